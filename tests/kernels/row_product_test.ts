import assert from "node:assert/strict";
import type { DataType } from "../../graph/tensor.ts";
import { rowProduct } from "../../kernels/row_product.ts";
import { type Overrides, runOn, scaledMax, withDevice } from "./harness.ts";

/** Numbers that every type holds exactly. */
const numbers = (count: number, phase: number) =>
  Float32Array.from({ length: count }, (_, i) => Math.round(Math.sin(i * 1.7 + phase) * 32) / 32);

/** `x w + bias + addend` in double precision. */
function expectedOf(layout: "NN" | "NT", x: Float32Array, w: Float32Array, more: readonly Float32Array[], N: number) {
  const K = x.length;
  return Float32Array.from({ length: N }, (_, n) => {
    let sum = 0;
    for (let k = 0; k < K; k++) sum += x[k] * w[layout === "NN" ? k * N + n : n * K + k];
    return more.reduce((all, values) => all + values[n], sum);
  });
}

const cases: [number, number, { bias?: boolean; addend?: boolean }, Overrides, DataType][] = [
  [64, 128, {}, {}, "f32"],
  [20, 12, { bias: true, addend: true }, {}, "f32"],
  [24, 260, { addend: true }, { type: "gpu" }, "f32"],
  [640, 1000, { bias: true }, { type: "gpu" }, "f32"],
  [64, 128, { bias: true, addend: true }, {}, "bf16"],
  // Rows of the weights in several buffers.
  [256, 256, { bias: true }, { chunkBytes: 64 * 256 * 4 }, "f32"],
];

Deno.test("the product of one row is that of plain arithmetic, in both layouts, cut or not, in all types", () =>
  withDevice(async (device) => {
    for (const layout of ["NN", "NT"] as const) {
      for (const [K, N, { bias, addend }, overrides, activationType] of cases) {
        const data = { x: numbers(K, 1), w: numbers(K * N, 2), bias: numbers(N, 3), addend: numbers(N, 4) };
        const found = await runOn(device, (graph) => {
          const input = (name: string, shape: number[]) =>
            graph.tensor(name, shape, "input", { dtype: graph.activationType });
          const operands = new Map([
            [input("x", [1, K]), data.x],
            [input("w", layout === "NN" ? [K, N] : [N, K]), data.w],
          ]);
          if (bias) operands.set(graph.tensor("bias", [N], "input"), data.bias);
          if (addend) operands.set(input("addend", [1, N]), data.addend);
          const attributes = { layout, ...(bias ? { bias } : {}), ...(addend ? { addend } : {}) };
          return { inputs: operands, outputs: { y: graph.add(rowProduct, [...operands.keys()], attributes)[0] } };
        }, { overrides, activationType });
        const more = [...(bias ? [data.bias] : []), ...(addend ? [data.addend] : [])];
        const error = scaledMax(found.y, expectedOf(layout, data.x, data.w, more, N));
        assert.ok(error < (activationType === "f32" ? 2e-6 : 4e-3), `${layout} ${K}x${N} ${activationType}: ${error}`);
      }
    }
  }));
