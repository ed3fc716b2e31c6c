import assert from "node:assert/strict";
import { matmul, type MatmulAttributes } from "../../kernels/matmul.ts";
import { backward } from "../../graph/backward.ts";
import type { Graph } from "../../graph/graph.ts";
import type { Tensor } from "../../graph/tensor.ts";
import { readOpCases } from "../fixtures.ts";
import { type Overrides, runOn, scaledMax, withDevice } from "./harness.ts";

const noSum = (): Tensor => {
  throw new Error("no two gradients meet here");
};

const families: Record<string, Overrides> = {
  "as the adapter is": {},
  "without subgroups": { subgroupSize: 0 },
  "as on a GPU": { type: "gpu" },
};

for (const [family, overrides] of Object.entries(families)) {
  Deno.test(`matmul and its gradients equal PyTorch's, ${family}`, () =>
    withDevice(async (device) => {
      for (const { name, config, given, expected, limits } of readOpCases("matmul")) {
        const attributes: MatmulAttributes = {
          layout: config.kind.toUpperCase(),
          ...(config.batch.length ? { batch: config.batch.reduce((x: number, y: number) => x * y, 1) } : {}),
        };
        const results = await runOn(device, (graph: Graph) => {
          const a = graph.tensor("a", given.a.shape, "input");
          const b = graph.tensor("b", given.b.shape, "input");
          const dy = graph.tensor("dy", given.dy.shape, "input");
          const [y] = graph.add(matmul, [a, b], attributes);
          const gradients = backward(graph, new Map([[y, dy]]), new Map(), noSum, [a, b]);
          return {
            inputs: new Map([[a, given.a.data], [b, given.b.data], [dy, given.dy.data]]),
            outputs: { y, da: gradients.get(a)!, db: gradients.get(b)! },
          };
        });
        for (const key of ["y", "da", "db"]) {
          const error = scaledMax(results[key], expected[key].data);
          assert.ok(error <= limits[key], `${name} ${key}: ${error} > ${limits[key]}`);
        }
      }
    }, overrides));
}

function random(count: number, seed: number): Float32Array {
  let state = seed;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32 - 0.5;
  });
}

/** The product in double precision. */
function reference(layout: string, a: Float32Array, b: Float32Array, M: number, N: number, K: number): Float64Array {
  const c = new Float64Array(M * N);
  for (let m = 0; m < M; m++) {
    for (let k = 0; k < K; k++) {
      const x = layout === "TN" ? a[k * M + m] : a[m * K + k];
      for (let n = 0; n < N; n++) c[m * N + n] += x * (layout === "NT" ? b[n * K + k] : b[k * N + n]);
    }
  }
  return c;
}

const shapes = [[1, 64, 128], [5, 12, 8], [16, 32, 64], [100, 68, 36], [130, 132, 260], [8, 4, 4]];
/** Sums that software drivers make in pieces; rows of A would exceed small bindings. */
const longSums = [[36, 40, 1300], [64, 128, 2048]];

for (const [family, overrides] of Object.entries({ ...families, "with bindings of 68 KiB": { bindingLimit: 69632 } })) {
  Deno.test(`matmul with bias, addend and accumulation is right for ragged sizes, ${family}`, () =>
    withDevice(async (device) => {
      for (const layout of ["NN", "NT", "TN"] as const) {
        for (const [M, N, K] of [...shapes, ...("bindingLimit" in overrides ? [] : longSums)]) {
          const a = random(M * K, 1), b = random(N * K, 2), bias = random(N, 3), addend = random(M * N, 4);
          const product = reference(layout, a, b, M, N, K);
          const results = await runOn(device, (graph) => {
            const at = graph.tensor("a", layout === "TN" ? [K, M] : [M, K], "input");
            const bt = graph.tensor("b", layout === "NT" ? [N, K] : [K, N], "input");
            const biasT = graph.tensor("bias", [N], "input");
            const addendT = graph.tensor("addend", [M, N], "input");
            const sum = graph.tensor("sum", [M, N], "output");
            const [y] = graph.add(matmul, [at, bt, biasT, addendT], { layout, bias: true, addend: true });
            graph.add(matmul, [at, bt], { layout, accumulate: true }, { outputs: [sum] });
            return {
              inputs: new Map([[at, a], [bt, b], [biasT, bias], [addendT, addend]]),
              outputs: { y, sum },
            };
          }, { runs: 2 });
          const full = product.map((x, i) => x + bias[i % N] + addend[i]);
          assert.ok(scaledMax(results.y, full) < 2e-6, `${layout} ${M}x${N}x${K}: ${scaledMax(results.y, full)}`);
          const twice = product.map((x) => 2 * x);
          assert.ok(
            scaledMax(results.sum, twice) < 2e-6,
            `${layout} ${M}x${N}x${K} sum ${scaledMax(results.sum, twice)}`,
          );
        }
      }
    }, overrides));
}
