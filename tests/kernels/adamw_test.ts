import assert from "node:assert/strict";
import { fromHalves, toHalves } from "../../graph/halves.ts";
import { fillNormal } from "../../graph/random.ts";
import { adamw, type AdamWStep, fillHyper } from "../../kernels/adamw.ts";
import { runOn, withDevice } from "./harness.ts";

const count = 1000;
const length = 1024;

function normal(name: string, deviation: number): Float32Array {
  const values = new Float32Array(length);
  fillNormal(values.subarray(0, count), name, 3, 0, deviation);
  return values;
}

/** A step over the same weights and moments; `copy` writes them in bf16 besides, behind 128 others. */
async function step(options: { gradients: Float32Array; squares: number; more?: Partial<AdamWStep>; copy?: boolean }) {
  const hyper = new Float32Array(16);
  const plain = { learningRate: 0.01, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clip: 1, step: 2 };
  fillHyper(hyper, { ...plain, ...options.more });
  return await withDevice((device) =>
    runOn(device, (graph) => {
      const given = [normal("w", 1), options.gradients, normal("m", 0.1), normal("v", 0.1).map((x) => x * x)];
      const state = ["weights", "gradients", "m", "v"].map((name) => graph.tensor(name, [length], "input"));
      const h = graph.tensor("hyper", [16], "input"), norm = graph.tensor("norm", [1], "input");
      const copy = options.copy ? { dtype: "bf16", elements: length + 128, start: 128 } as const : undefined;
      const half = copy && graph.tensor("copy", [copy.elements], "output", { dtype: "bf16" });
      graph.add(adamw, [...state, h, norm], {
        decayed: 512,
        weightsStart: 0,
        gradientsStart: 0,
        ...(copy ? { copy } : {}),
      }, { outputs: [...state, half] });
      const inputs = new Map(state.map((tensor, i) => [tensor, given[i]] as const));
      inputs.set(h, hyper).set(norm, Float32Array.of(options.squares));
      const [weights, gradients, m, v] = state;
      return { inputs, outputs: { weights, gradients, m, v, ...(half ? { half } : {}) } };
    })
  );
}

Deno.test("gradients of a loss that was multiplied give the step of those that were not", async () => {
  const gradients = normal("g", 1);
  const squares = gradients.reduce((sum, x) => sum + x * x, 0);
  const plain = await step({ gradients, squares });
  const scaled = await step({
    gradients: gradients.map((x) => 1024 * x),
    squares: squares * 1024 ** 2,
    more: { gradientScale: 1 / 1024 },
  });
  assert.deepEqual(scaled.weights, plain.weights);
  assert.deepEqual(scaled.m, plain.m);
  assert.ok(plain.gradients.every((x) => x === 0));
});

for (const squares of [Infinity, NaN]) {
  Deno.test(`a step whose gradient norm is ${squares} leaves weights and moments, and zeroes gradients`, async () => {
    const { weights, gradients, m, v } = await step({ gradients: normal("g", 1).fill(NaN, 7, 9), squares });
    assert.deepEqual(weights, normal("w", 1));
    assert.deepEqual(m, normal("m", 0.1));
    assert.deepEqual(v, normal("v", 0.1).map((x) => x * x));
    assert.ok(gradients.every((x) => x === 0));
  });
}

Deno.test("a copy of the weights in bf16 holds the new weights, rounded", async () => {
  const { weights, half } = await step({ gradients: normal("g", 1), squares: 1000, copy: true });
  const rounded = new Float32Array(length);
  fromHalves(toHalves(weights as Float32Array, "bf16"), "bf16", rounded);
  assert.deepEqual(half.subarray(128), rounded);
  assert.ok(half.subarray(0, 128).every((x) => x === 0));
});

Deno.test("a step that is skipped writes the copy too, of the weights as they were: its memory may have been another's", async () => {
  const { half } = await step({ gradients: normal("g", 1), squares: Infinity, copy: true });
  const rounded = new Float32Array(length);
  fromHalves(toHalves(normal("w", 1), "bf16"), "bf16", rounded);
  assert.deepEqual(half.subarray(128), rounded);
});

Deno.test("what is long enough to be read from textures, in several dispatches, becomes what it becomes without", () =>
  withDevice(async (device) => {
    const elements = 2 ** 20 + 70_144;
    const hyper = new Float32Array(16);
    const options = { learningRate: 0.01, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clip: 1, step: 2 };
    fillHyper(hyper, options);
    const given = [3, 5, 7, 11].map((seed, n) =>
      Float32Array.from({ length: elements + (n < 2 ? 128 : 0) }, (_, i) => (i * seed % 1009) / 1009)
    );
    const update = (type: "cpu" | "gpu") =>
      runOn(device, (graph) => {
        const [weights, gradients] = ["weights", "gradients"].map((name) =>
          graph.tensor(name, [elements + 128], "input")
        );
        const moments = ["m", "v"].map((name) => graph.tensor(name, [elements], "input"));
        const h = graph.tensor("hyper", [16], "input"), norm = graph.tensor("norm", [1], "input");
        const operands = [weights, gradients, ...moments];
        const attributes = { decayed: 2 ** 20 + 512, weightsStart: 128, gradientsStart: 0 };
        graph.add(adamw, [...operands, h, norm], attributes, { outputs: operands });
        const inputs = new Map(operands.map((tensor, i) => [tensor, given[i]] as const));
        inputs.set(h, hyper).set(norm, Float32Array.of(4));
        return { inputs, outputs: { weights, gradients, m: moments[0], v: moments[1] } };
      }, { overrides: { type } });
    const [images, buffers] = [await update("cpu"), await update("gpu")];
    for (const name of ["weights", "m", "v"]) assert.deepEqual(images[name], buffers[name], name);
    for (const { gradients } of [images, buffers]) assert.ok(gradients.subarray(0, elements).every((x) => x === 0));
  }));
