import assert from "node:assert/strict";
import { assignImages, bindingsOf, imageOf } from "../../graph/images.ts";
import { Graph } from "../../graph/graph.ts";
import { windowOf } from "../../graph/dispatch.ts";
import type { Tensor } from "../../graph/tensor.ts";

const graph = new Graph();
const tensor = (name: string, shape: number[]) => graph.tensor(name, shape, "input");
const reader = (a: Tensor, b: Tensor, output: Tensor) => ({
  kernel: { file: "", variant: "", code: "" },
  windows: [imageOf(windowOf(a)), imageOf(windowOf(b)), windowOf(output)],
  uniforms: [],
  workgroups: [1, 1, 1] as [number, number, number],
  flops: 0,
  bytes: 0,
  op: { outputs: [output] },
});

Deno.test("an image is filled once, until its tensor is written; two of a shape are kept for two operands", () => {
  const [a, b, c, d] = ["a", "b", "c", "d"].map((name) => tensor(name, [8, 64]));
  const stretch = { dispatches: [reader(a, b, c), reader(b, a, d), reader(a, c, b), reader(a, b, d)] };
  const shapes = assignImages([stretch]);
  assert.deepEqual(shapes, [{ width: 16, height: 8, halves: false }, { width: 16, height: 8, halves: false }]);
  const uses = stretch.dispatches.map((dispatch) =>
    (dispatch as { images?: readonly ({ image: number; copy: boolean } | undefined)[] }).images!.slice(0, 2)
  );
  assert.deepEqual(uses, [
    [{ image: 0, copy: true }, { image: 1, copy: true }],
    [{ image: 1, copy: false }, { image: 0, copy: false }],
    [{ image: 0, copy: false }, { image: 1, copy: true }],
    [{ image: 0, copy: false }, { image: 1, copy: true }],
  ]);
  assert.equal(bindingsOf(stretch.dispatches[0]), "ffb");
});

Deno.test("rows that are no whole 256 bytes, and too many of them, are no image", () => {
  assert.equal(imageOf(windowOf(tensor("odd", [8, 36]))), undefined);
  assert.equal(imageOf(windowOf(tensor("long", [8193, 64]))), undefined);
  assert.equal(imageOf(windowOf(graph.tensor("half", [8, 64], "input", { dtype: "bf16" }))), undefined);
  assert.equal(imageOf(windowOf(graph.tensor("halves", [8, 128], "input", { dtype: "bf16" })))?.image, 32);
});
