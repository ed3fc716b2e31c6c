import assert from "node:assert/strict";
import fc from "fast-check";
import { UserError } from "../../errors.ts";
import { genericCapabilities } from "../../gpu/capabilities.ts";
import type { Target } from "../../graph/dispatch.ts";
import { cutGrid, submitEnds } from "../../graph/grid.ts";
import { Graph, type OpDefinition } from "../../graph/graph.ts";
import { assertFits, makePlan } from "../../graph/plan.ts";
import { elementCount, type Tensor } from "../../graph/tensor.ts";
import { modelConfiguration } from "../../model/configuration.ts";
import { buildModelGraph } from "../../train/model_graph.ts";

const touch: OpDefinition<{ readonly shapes: readonly (readonly number[])[] }> = {
  name: "touch",
  infer: (_, { shapes }) => shapes.map((shape) => ({ shape })),
  lower: () => [],
};

Deno.test("makePlan() gives tensors that live at the same time places that do not overlap", () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.integer({ min: 1, max: 3000 }), fc.nat(5)), { minLength: 2, maxLength: 40 }),
      (steps) => {
        const graph = new Graph();
        const uses: [number, number][] = [];
        const scratch: Tensor[] = [];
        graph.segment("run", () => {
          const made: ReturnType<Graph["add"]> = [];
          steps.forEach(([size, back], i) => {
            const inputs = made.length ? [made[Math.max(0, made.length - 1 - back)]] : [];
            const lower = (_: unknown, target: Target) => {
              scratch.push(target.scratch([size, 2])!);
              uses[scratch[scratch.length - 1].id] = [i, i];
              assert.equal(target.scratch([8193, 2]), undefined);
              return [];
            };
            const [tensor] = graph.add({ ...touch, lower }, inputs, { shapes: [[size, 8]] });
            for (const input of inputs) uses[input.id][1] = i;
            uses[tensor.id] = [i, i];
            made.push(tensor);
          });
        });
        const plan = makePlan(graph, { ...genericCapabilities, chunkBytes: 65536, bindingLimit: 65536 });
        assert.ok(plan.buffers.every((size) => size <= 65536));
        const tensors = [...graph.tensors, ...scratch];
        for (const a of tensors) {
          const parts = plan.placements[a.id];
          assert.equal(parts.reduce((sum, { length }) => sum + length, 0), elementCount(a));
          for (const part of parts) assert.equal(part.offset % 256, 0);
          for (const b of tensors) {
            if (b.id <= a.id || uses[a.id][1] < uses[b.id][0] || uses[b.id][1] < uses[a.id][0]) continue;
            for (const p of parts) {
              for (const q of plan.placements[b.id]) {
                const apart = p.buffer !== q.buffer || p.offset + p.length * 4 <= q.offset ||
                  q.offset + q.length * 4 <= p.offset;
                assert.ok(apart, `${a.name} and ${b.name} overlap`);
              }
            }
          }
        }
      },
    ),
    { numRuns: 60 },
  );
});

Deno.test("rows() and stack() give tensors places in the memory of another, over its cuts, for as long as that lives", () => {
  const graph = new Graph();
  graph.segment("run", () => {
    const [x] = graph.add(touch, [], { shapes: [[256, 16]] });
    const middle = graph.rows(x, 64, 128);
    assert.equal(graph.rows(x, 0, 256), x);
    const halves = [0, 1].map(() => graph.add(touch, [middle], { shapes: [[64, 16]] })[0]);
    const both = graph.stack("both", halves);
    const [last] = graph.add(touch, [both, graph.rows(middle, 64, 64)], { shapes: [[256, 16]] });
    // Cut at row 128, being 64 bytes a row.
    const { placements } = makePlan(graph, { ...genericCapabilities, chunkBytes: 8192, bindingLimit: 8192 });
    const [whole, part, stacked] = [x, middle, both].map(({ id }) => placements[id]);
    assert.deepEqual(part, [
      { ...whole[0], offset: whole[0].offset + 64 * 64, length: 64 * 16 },
      { ...whole[1], start: 64 * 16, length: 64 * 16 },
    ]);
    assert.deepEqual(halves.map(({ id }) => placements[id]), [
      [{ ...stacked[0], length: 64 * 16 }],
      [{ ...stacked[0], offset: stacked[0].offset + 64 * 64, length: 64 * 16 }],
    ]);
    // The second half of `x` is read, through a view of a view, while `last` is written.
    assert.ok(placements[last.id].every((p) => p.buffer !== whole[1].buffer || p.offset !== whole[1].offset));
    graph.rows(last, 1, 64);
    assert.throws(() => makePlan(graph, genericCapabilities), /begins at byte 64/);
  });
});

Deno.test("makePlan() lays out GPT-2 124M's token table in parts and banks of equal layout alike", () => {
  const configuration = modelConfiguration({
    vocabularySize: 50257,
    layers: 12,
    heads: 12,
    width: 768,
    maximumSequenceLength: 1024,
  });
  const model = buildModelGraph({ configuration, batch: 1, sequenceLength: 1024, segments: ["train", "evaluate"] });
  const plan = makePlan(model.graph, genericCapabilities);
  assert.ok(plan.buffers.every((size) => size <= 128 * 2 ** 20));
  const members = model.banks.flatMap((bank) => bank.members);
  const table = members.find(({ parameter }) => parameter.name === "wte")!;
  assert.equal(plan.placements[table.tensor.id].length, 2);
  for (const { tensor, gradient } of members) {
    const shape = (id: number) => plan.placements[id].map(({ start, length }) => [start, length]);
    assert.deepEqual(shape(gradient!.id), shape(tensor.id));
  }
  // Four times 124M padded parameters of four bytes, and nothing lost to padding but a little.
  const { parameter, gradient, optimizer } = plan.bytes;
  assert.equal(parameter, gradient);
  assert.equal(optimizer, 2 * gradient);
  assert.ok(Math.abs(parameter / (124.5e6 * 4) - 1) < 0.01, `${parameter}`);
  // Shared memory: the activations alive at once are far fewer than all that are written.
  const all = model.graph.tensors.filter(({ role }) => role === "activation").reduce(
    (sum, t) => sum + 4 * elementCount(t),
    0,
  );
  assert.ok(plan.bytes.activation < 0.6 * all);
});

Deno.test("assertFits() foretells what does not fit, part by part, and what to lower", () => {
  const configuration = modelConfiguration({
    vocabularySize: 50257,
    layers: 12,
    heads: 12,
    width: 768,
    maximumSequenceLength: 1024,
  });
  const plan = makePlan(
    buildModelGraph({ configuration, batch: 8, sequenceLength: 1024, segments: ["train"] }).graph,
    genericCapabilities,
  );
  assert.doesNotThrow(() => assertFits(plan, undefined));
  assert.throws(
    () => assertFits(plan, 4 * 2 ** 30),
    (error: Error) =>
      error instanceof UserError &&
      /needs .* GiB .*activations .*weights.*3\.60 GiB can be used; lower --micro-batch-size/.test(error.message),
  );
});

Deno.test("cutGrid() covers a grid exactly, in pieces that are allowed", () => {
  fc.assert(
    fc.property(
      fc.tuple(fc.integer({ min: 1, max: 200000 }), fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: 9 })),
      fc.integer({ min: 1, max: 20 }),
      (grid, count) => {
        const boxes = cutGrid(grid, count);
        const volume = boxes.reduce((sum, { size }) => sum + size[0] * size[1] * size[2], 0);
        assert.equal(volume, grid[0] * grid[1] * grid[2]);
        assert.equal(new Set(boxes.map(({ origin }) => origin.join())).size, boxes.length);
        for (const { origin, size } of boxes) {
          size.forEach((extent, axis) =>
            assert.ok(extent >= 1 && extent <= 65535 && origin[axis] + extent <= grid[axis])
          );
        }
        assert.ok(boxes.length >= Math.min(count, grid[0] * grid[1] * grid[2]) / 2);
      },
    ),
    { numRuns: 100 },
  );
});

Deno.test("submitEnds() groups by time and never joins beyond the limit", () => {
  const pieces = [50, 50, 50, 200, 10, 10].map((milliseconds) => ({ milliseconds }));
  assert.deepEqual(submitEnds(pieces), [2, 3, 4, 6]);
  assert.deepEqual(submitEnds([]), []);
});
