/** How long dispatches and submits are predicted to take, above all before anything has been timed. */

import assert from "node:assert/strict";
import { workloads } from "../../bench/workloads.ts";
import { genericCapabilities } from "../../gpu/capabilities.ts";
import { Graph } from "../../graph/graph.ts";
import { assertSplittable, cutGrid, longestMilliseconds, submitEnds } from "../../graph/grid.ts";
import { makePlan } from "../../graph/plan.ts";
import { Program } from "../../graph/program.ts";
import { modelConfiguration } from "../../model/configuration.ts";
import { buildModelGraph } from "../../train/model_graph.ts";
import { withDevice } from "../kernels/harness.ts";

const llama = {
  configuration: modelConfiguration({
    family: "llama",
    vocabularySize: 4096,
    layers: 2,
    heads: 8,
    width: 512,
    maximumSequenceLength: 1024,
  }),
  batch: 1,
  sequenceLength: 1024,
};

/** Multiply-add rates: a quarter of one core; a quarter of the smallest integrated GPU of the last ten years. */
const slow = { cpu: 2e10, gpu: 1e11 };

for (const [name, workload] of Object.entries({ ...workloads, llama })) {
  for (const type of ["cpu", "gpu"] as const) {
    Deno.test(`on a slow ${type} the first step of ${name} is in dispatches of 0.3 s and submits of 0.2 s at most`, () =>
      withDevice(async (device) => {
        const { configuration, batch, sequenceLength } = workload;
        const model = buildModelGraph({ configuration, batch, sequenceLength, segments: ["train"] });
        const program = await Program.create(device, model.graph);
        for (const segment of ["train", "update"]) {
          const submits = program.predict(segment);
          const longest = Math.max(...submits.flat());
          assert.ok(longest <= longestMilliseconds, `a dispatch of ${longest} ms in ${segment}`);
          const sums = submits.map((submit) => submit.reduce((a, b) => a + b, 0));
          assert.ok(Math.max(...sums) <= 200, `a submit of ${Math.max(...sums)} ms in ${segment}`);
        }
        program.destroy();
      }, { flopsPerSecond: slow[type], type }));
  }
}

Deno.test("cutGrid() covers a grid once, in pieces whose shares are less than twice the wanted one", () => {
  for (const grid of [[7, 1, 1], [5, 9, 1], [3, 4, 5], [100_000, 2, 1]] as const) {
    for (const count of [1, 2, 3, 7, 20, 1000]) {
      const boxes = cutGrid(grid, count);
      const volume = (size: readonly number[]) => size[0] * size[1] * size[2];
      const whole = volume(grid);
      assert.equal(boxes.reduce((sum, { size }) => sum + volume(size), 0), whole);
      const largest = Math.max(...boxes.map(({ size }) => volume(size)));
      assert.ok(largest === 1 || largest / whole < 2 / count, `${grid} by ${count}: ${largest}`);
    }
  }
});

Deno.test("submitEnds() gathers what is short and leaves alone what is long", () => {
  const pieces = [50, 50, 50, 190, 1, 1].map((milliseconds) => ({ milliseconds }));
  assert.deepEqual(submitEnds(pieces), [2, 3, 4, 6]);
});

Deno.test("a workgroup that would keep a GPU busy for too long is refused before anything is made", () => {
  const graph = new Graph();
  const x = graph.tensor("x", [64], "input");
  const kernel = { file: "kernels/long.wgsl", variant: "", code: "" };
  const dispatch = { kernel, windows: [], uniforms: [], workgroups: [4, 1, 1] as const, flops: 1e10, bytes: 0 };
  const long = { name: "long", infer: () => [{ shape: [1] }], lower: () => [dispatch] };
  graph.segment("run", () => graph.add(long, [x], {}));
  const capabilities = { ...genericCapabilities, flopsPerSecond: slow.cpu };
  const plan = makePlan(graph, capabilities);
  assertSplittable(plan, capabilities);
  assert.throws(
    () => assertSplittable(plan, { ...capabilities, type: "gpu" }),
    /A workgroup of kernels\/long\.wgsl \(.*\) would take some 1\.3 s on generic, whose driver may end/,
  );
});
