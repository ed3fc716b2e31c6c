import assert from "node:assert/strict";
import { genericCapabilities } from "../../gpu/capabilities.ts";
import { windowOf } from "../../graph/dispatch.ts";
import { Graph, type OpDefinition } from "../../graph/graph.ts";
import { assignImages, bindingsOf, declareImages, imageOf } from "../../graph/images.ts";
import { makePlan } from "../../graph/plan.ts";
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
  const shapes = assignImages([stretch], ({ id }) => [id]);
  assert.deepEqual(shapes, [{ width: 16, height: 8, halves: false, flat: false }, {
    width: 16,
    height: 8,
    halves: false,
    flat: false,
  }]);
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

Deno.test("an image is filled anew where its tensor was written as another of the same memory", () => {
  const own = new Graph();
  const [whole, b, c] = ["whole", "b", "c"].map((name) => own.tensor(name, [128, 64], "input"));
  const half = own.rows(whole, 64, 64);
  const product: OpDefinition<object> = {
    name: "product",
    infer: ([a]) => [{ shape: a.shape }],
    lower: ({ inputs, outputs }) => [reader(inputs[0], inputs[1], outputs[0])],
  };
  own.segment("test", () => {
    own.add(product, [whole, b], {}, { outputs: [c] });
    own.add(product, [b, c].map((tensor) => own.rows(tensor, 0, 64)), {}, { outputs: [half] });
    own.add(product, [whole, b], {}, { outputs: [c] });
  });
  const [{ dispatches }] = makePlan(own, genericCapabilities).segments.get("test")!;
  assert.deepEqual(dispatches[2].images!.map((use) => use?.copy), [true, false, undefined]);
});

Deno.test("rows that are no whole 256 bytes, and too many of them, are no image", () => {
  assert.equal(imageOf(windowOf(tensor("odd", [8, 36]))), undefined);
  assert.equal(imageOf(windowOf(tensor("long", [8193, 64]))), undefined);
  assert.equal(imageOf(windowOf(graph.tensor("half", [8, 64], "input", { dtype: "bf16" }))), undefined);
  assert.equal(imageOf(windowOf(graph.tensor("halves", [8, 128], "input", { dtype: "bf16" })))?.image, 32);
});

Deno.test("flat tensors of any length share images as high as the largest of them", () => {
  const [a, b, c, d] = [1024, 5000, 2048, 64].map((length, i) => tensor(`flat ${i}`, [length]));
  const stretch = { dispatches: [reader(a, b, d), reader(c, a, d), reader(a, b, d)] };
  const shapes = assignImages([stretch], ({ id }) => [id]);
  assert.deepEqual(shapes, [
    { width: 256, height: 1, halves: false, flat: true },
    { width: 256, height: 5, halves: false, flat: true },
  ]);
});

Deno.test("what is bound as storage and as an image is read from the image", () => {
  const [a, b] = ["read", "both"].map((name) => tensor(name, [8, 64]));
  const text = "{{storage 1 a vec4f}}\n{{storage 2 b vec4f}}";
  const declared = declareImages(text, [windowOf(a), windowOf(b), imageOf(windowOf(b))]);
  assert.equal(
    declared,
    "{{storage 1 a vec4f}}\n{{storage 2 bStored vec4f}}\n" +
      "fn store_b(i: u32, value: vec4f) { store_bStored(i, value); }\n{{image 3 b 16}}",
  );
});
