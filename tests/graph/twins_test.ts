/** Kernels compiled twice: which are tried, which of two is kept, and that results are the same. */

import assert from "node:assert/strict";
import type { Device } from "../../gpu/device.ts";
import { openDevice } from "../../gpu/open.ts";
import { Graph } from "../../graph/graph.ts";
import type { Piece } from "../../graph/pieces.ts";
import { Program } from "../../graph/program.ts";
import { weighTwins } from "../../graph/twins.ts";
import { matmul } from "../../kernels/matmul.ts";

/** A pipeline that does not exist; `second` is its twin. */
function named(label: string) {
  return { label } as GPUComputePipeline;
}

function stretch(...pieces: [pipeline: GPUComputePipeline, milliseconds: number][]) {
  return { pieces: pieces.map(([pipeline, milliseconds]) => ({ pipeline, milliseconds }) as Piece) };
}

/** A device that makes twins, and those that were made. */
function twinMaker(type: "cpu" | "gpu") {
  const made: string[] = [];
  const twin = ({ label }: GPUComputePipeline) => {
    made.push(label);
    return named(`${label}'`);
  };
  return { made, device: { capabilities: { type }, twin } as unknown as Device };
}

Deno.test("a clearly faster twin is kept, any other is not, and what takes no time is not tried", () => {
  const [slow, fine, tiny] = [named("slow"), named("fine"), named("tiny")];
  const { device, made } = twinMaker("cpu");
  const stretches = [stretch([slow, 30], [fine, 10]), stretch([slow, 20], [fine, 10], [tiny, 0.1])];
  const trial = weighTwins(device, { stretches });
  const labels = () => stretches.map(({ pieces }) => pieces.map(({ pipeline }) => pipeline.label).join(" "));
  assert.deepEqual(made, ["slow", "fine"]);
  assert.deepEqual(labels(), ["slow' fine'", "slow' fine' tiny"]);
  // 20 instead of 50 ms, and 22 instead of 20.
  const times = [[12, 11], [8, 11, 0.1]];
  stretches.forEach(({ pieces }, i) => pieces.forEach((piece, j) => piece.milliseconds = times[i][j]));
  assert.equal(weighTwins(device, { stretches, trial }), undefined);
  assert.deepEqual(labels(), ["slow' fine", "slow' fine tiny"]);
  assert.deepEqual(stretches.map(({ pieces }) => pieces.map(({ milliseconds }) => milliseconds)), [[12, 10], [
    8,
    10,
    0.1,
  ]]);
});

Deno.test("GPUs compile nothing twice", () => {
  const { device, made } = twinMaker("gpu");
  assert.equal(weighTwins(device, { stretches: [stretch([named("slow"), 30])] }), undefined);
  assert.deepEqual(made, []);
});

Deno.test("runs with either of two kernels give the same, and later ones make nothing", async () => {
  const device = await openDevice();
  try {
    const graph = new Graph();
    const [a, b] = [graph.tensor("a", [512, 1024], "input"), graph.tensor("b", [1024, 512], "input")];
    let c = a;
    graph.segment("run", () => {
      [c] = graph.add(matmul, [a, b], { layout: "NN" });
      // What is read back keeps its memory to the end.
      graph.add({ name: "keep", infer: () => [], lower: () => [] }, [c], {});
    });
    const program = await Program.create(device, graph);
    for (const tensor of [a, b]) {
      program.write(
        tensor,
        Float32Array.from({ length: 512 * 1024 }, (_, i) => Math.sin(i)),
      );
    }
    const results: Float32Array[] = [];
    const created: number[] = [];
    for (let run = 0; run < 5; run++) {
      await program.run("run");
      created.push(device.objectsCreated);
      results.push(await program.readInto(c, new Float32Array(512 * 512)));
    }
    for (const result of results) assert.deepEqual(result, results[0]);
    // What a twin takes is made behind the second run.
    assert.deepEqual(created.slice(2), [created[1], created[1], created[1]]);
    // As when a device's speed has changed.
    program.recalibrate();
    for (let run = 0; run < 3; run++) await program.run("run");
    assert.equal(device.objectsCreated, created[4]);
    program.destroy();
  } finally {
    await device.destroy();
  }
});

Deno.test("of two copies of a kernel each is the other's", async () => {
  const device = await openDevice();
  try {
    const code = "@compute @workgroup_size(1) fn main() {}";
    const first = await device.pipeline({ file: "none.wgsl", variant: "", code }, "b");
    const before = device.objectsCreated;
    const second = device.twin(first);
    assert.notEqual(second, first);
    assert.equal(device.twin(first), second);
    assert.equal(device.twin(second), first);
    assert.equal(device.objectsCreated, before + 1);
  } finally {
    await device.destroy();
  }
});
