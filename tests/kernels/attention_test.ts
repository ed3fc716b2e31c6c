import assert from "node:assert/strict";
import type { Device } from "../../gpu/device.ts";
import { backward } from "../../graph/backward.ts";
import { fromHalves, toHalves } from "../../graph/halves.ts";
import type { Tensor } from "../../graph/tensor.ts";
import { attention } from "../../kernels/attention.ts";
import type { AttentionAttributes } from "../../kernels/attention_kernels.ts";
import { addTensors } from "../../kernels/residual_add.ts";
import { fillNormal } from "../../graph/random.ts";
import { type Overrides, runOn, scaledMax, withDevice } from "./harness.ts";

/** Attention and its gradient as written in a textbook, in double precision. */
function reference(
  qkv: Float32Array,
  dy: Float32Array,
  batch: number,
  { heads, keyValueHeads, headSize, sequenceLength }: AttentionAttributes,
): Record<"y" | "logSumExp" | "dqkv", Float64Array> {
  const stride = (heads + 2 * keyValueHeads) * headSize;
  const y = new Float64Array(dy.length);
  const logSumExp = new Float64Array(batch * sequenceLength * heads);
  const dqkv = new Float64Array(qkv.length);
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      const shared = Math.floor(h / (heads / keyValueHeads));
      for (let i = 0; i < sequenceLength; i++) {
        const row = b * sequenceLength + i;
        const q = row * stride + h * headSize;
        const at = (row * heads + h) * headSize;
        const key = (j: number) => (b * sequenceLength + j) * stride + (heads + shared) * headSize;
        const value = (j: number) => key(j) + keyValueHeads * headSize;
        const dot = (x: Float32Array, xAt: number, z: Float32Array, zAt: number) => {
          let sum = 0;
          for (let d = 0; d < headSize; d++) sum += x[xAt + d] * z[zAt + d];
          return sum;
        };
        const scale = 1 / Math.sqrt(headSize);
        const scores = Array.from({ length: i + 1 }, (_, j) => dot(qkv, q, qkv, key(j)) * scale);
        const top = Math.max(...scores);
        const total = scores.reduce((sum, s) => sum + Math.exp(s - top), 0);
        const weights = scores.map((s) => Math.exp(s - top) / total);
        logSumExp[row * heads + h] = top + Math.log(total);
        const dWeights = weights.map((_, j) => dot(dy, at, qkv, value(j)));
        const delta = weights.reduce((sum, w, j) => sum + w * dWeights[j], 0);
        weights.forEach((w, j) => {
          const dScore = w * (dWeights[j] - delta) * scale;
          for (let d = 0; d < headSize; d++) {
            y[at + d] += w * qkv[value(j) + d];
            dqkv[value(j) + d] += w * dy[at + d];
            dqkv[q + d] += dScore * qkv[key(j) + d];
            dqkv[key(j) + d] += dScore * qkv[q + d];
          }
        });
      }
    }
  }
  return { y, logSumExp, dqkv };
}

function normal(count: number, name: string, deviation: number): Float32Array<ArrayBuffer> {
  const values = new Float32Array(count);
  fillNormal(values, name, 3, 0, deviation);
  return values;
}

/** Largest errors of y, logSumExp and dqkv. */
async function errors(
  device: Device,
  batch: number,
  attributes: AttentionAttributes,
  { overrides = {}, dtype = "f32", deviation = 1 }: {
    overrides?: Overrides;
    dtype?: "f32" | "f16" | "bf16";
    deviation?: number;
  } = {},
): Promise<number[]> {
  const { heads, keyValueHeads, headSize, sequenceLength } = attributes;
  const rows = batch * sequenceLength;
  const width = (heads + 2 * keyValueHeads) * headSize;
  const qkvData = normal(rows * width, "qkv", deviation);
  const dyData = normal(rows * heads * headSize, "dy", 1);
  if (dtype !== "f32") { for (const data of [qkvData, dyData]) fromHalves(toHalves(data, dtype), dtype, data); }
  const results = await runOn(device, (graph) => {
    const qkv = graph.tensor("qkv", [rows, width], "input", { dtype });
    const dy = graph.tensor("dy", [rows, heads * headSize], "input", { dtype });
    const outputs: (Tensor | undefined)[] = dtype === "f32" ? [] : [
      graph.tensor("y", [rows, heads * headSize], "activation", { dtype }),
    ];
    const [y, logSumExp] = graph.add(attention, [qkv], attributes, { outputs });
    const gradients = backward(graph, new Map([[y, dy]]), new Map(), addTensors, [qkv]);
    return {
      inputs: new Map([[qkv, qkvData], [dy, dyData]]),
      outputs: { y, logSumExp, dqkv: gradients.get(qkv)! },
    };
  }, { overrides });
  const expected = reference(qkvData, dyData, batch, attributes);
  return (["y", "logSumExp", "dqkv"] as const).map((name) => scaledMax(results[name], expected[name]));
}

const families: Record<string, Overrides> = {
  broadcast: {},
  tile: { type: "gpu" },
  direct: { subgroupSize: 0 },
};

// heads, key/value heads, head size, sequence length, batch
const shapes: [number, number, number, number, number][] = [
  [1, 1, 1, 1, 1],
  [2, 2, 3, 9, 2],
  [4, 1, 8, 33, 2],
  [2, 1, 32, 130, 1],
  [1, 1, 37, 67, 1],
];

for (const [family, overrides] of Object.entries(families)) {
  Deno.test(`attention and its gradient in the ${family} family equal a double-precision reference in all shapes`, () =>
    withDevice(async (device) => {
      for (const [heads, keyValueHeads, headSize, sequenceLength, batch] of shapes) {
        const attributes = { heads, keyValueHeads, headSize, sequenceLength };
        for (const error of await errors(device, batch, attributes, { overrides })) {
          assert.ok(error < 1e-5, `${JSON.stringify(attributes)}: error ${error}`);
        }
      }
    }));
}

Deno.test("attention's kernels for any number of lanes that hand round equal the reference", () =>
  withDevice(async (device) => {
    const lanes = device.capabilities.subgroupSize;
    // A subgroup of more lanes consists of groups of at most 16 that do the same.
    for (const subgroupSize of [8, 16, 32, 64].filter((size) => Math.min(size, 16) <= lanes)) {
      for (const headSize of [6, 24]) {
        const attributes = { heads: 2, keyValueHeads: 1, headSize, sequenceLength: 131 };
        for (const error of await errors(device, 1, attributes, { overrides: { subgroupSize } })) {
          assert.ok(error < 1e-5, `${subgroupSize} lanes, heads of ${headSize}: error ${error}`);
        }
      }
    }
  }));

Deno.test("attention takes heads of up to 256", () =>
  withDevice(async (device) => {
    for (const headSize of [128, 256]) {
      const attributes = { heads: 2, keyValueHeads: 1, headSize, sequenceLength: 19 };
      for (const error of await errors(device, 1, attributes)) assert.ok(error < 1e-5, `error ${error}`);
    }
  }));

Deno.test("attention stands scores that differ by hundreds", () =>
  withDevice(async (device) => {
    for (const overrides of Object.values(families)) {
      const attributes = { heads: 1, keyValueHeads: 1, headSize: 8, sequenceLength: 33 };
      const found = await errors(device, 1, attributes, { overrides, deviation: 12 });
      for (const error of found) assert.ok(error < 2e-4, `${JSON.stringify(overrides)}: error ${error}`);
    }
  }));

for (const dtype of ["f16", "bf16"] as const) {
  Deno.test(`attention reads and writes ${dtype}`, () =>
    withDevice(async (device) => {
      for (const overrides of Object.values(families)) {
        const attributes = { heads: 4, keyValueHeads: 2, headSize: 8, sequenceLength: 37 };
        const [y, logSumExp, dqkv] = await errors(device, 2, attributes, { overrides, dtype });
        const rounding = dtype === "f16" ? 2 ** -11 : 2 ** -8;
        assert.ok(y < rounding && dqkv < 2 * rounding && logSumExp < 3e-6, `errors ${y}, ${logSumExp}, ${dqkv}`);
      }
    }));
}
