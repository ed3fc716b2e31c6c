import assert from "node:assert/strict";
import { matmul, type MatmulAttributes } from "../../kernels/matmul.ts";
import { backward } from "../../graph/backward.ts";
import type { Graph } from "../../graph/graph.ts";
import type { Tensor } from "../../graph/tensor.ts";
import { readOpCases } from "../fixtures.ts";
import { type Overrides, runOn, scaledMax, withDevice } from "./harness.ts";
import { allProducts, gelu, random, reference } from "./matmul_reference.ts";

const noSum = (): Tensor => {
  throw new Error("no two gradients meet here");
};

const families: Record<string, Overrides> = {
  "as the adapter is": {},
  "without subgroups": { subgroupSize: 0 },
  "as on a GPU": { type: "gpu" },
};

/** Further variants, on shapes that have all they do. */
const variants: Record<string, Overrides> = {
  "from buffers, two vectors wide": allProducts({ family: "broadcast", rows: 16, columns: 2 }),
  "tiles of 32 x 64 x 8, 4 rows a thread, unrolled by 4": {
    type: "gpu",
    ...allProducts({
      family: "tile",
      rows: 4,
      columns: 1,
      tile: { rows: 32, columns: 64, steps: 8, unroll: 4 },
    }),
  },
  "tiles of 64 x 32 x 8, 4 x 2 vectors a thread": {
    type: "gpu",
    ...allProducts({ family: "tile", rows: 4, columns: 2, tile: { rows: 64, columns: 32, steps: 8, unroll: 8 } }),
  },
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

const shapes = [[1, 64, 128], [5, 12, 8], [16, 32, 64], [100, 68, 36], [130, 132, 260], [8, 4, 4], [7, 9, 70]];
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
            const columnSums = graph.tensor("columnSums", [N], "output");
            const transposed = layout === "TN";
            graph.add(matmul, [at, bt], { layout, accumulate: true, ...(transposed ? { sums: true } : {}) }, {
              outputs: transposed ? [sum, columnSums] : [sum],
            });
            return {
              inputs: new Map([[at, a], [bt, b], [biasT, bias], [addendT, addend]]),
              outputs: { y, sum, columnSums },
            };
          }, { runs: 2 });
          const full = product.map((x, i) => x + bias[i % N] + addend[i]);
          assert.ok(scaledMax(results.y, full) < 2e-6, `${layout} ${M}x${N}x${K}: ${scaledMax(results.y, full)}`);
          const twice = product.map((x) => 2 * x);
          assert.ok(
            scaledMax(results.sum, twice) < 2e-6,
            `${layout} ${M}x${N}x${K} sum ${scaledMax(results.sum, twice)}`,
          );
          if (layout !== "TN") continue;
          const columns = Float64Array.from({ length: N }, (_, n) => {
            let total = 0;
            for (let k = 0; k < K; k++) total += 2 * b[k * N + n];
            return total;
          });
          const error = scaledMax(results.columnSums, columns);
          assert.ok(error < 2e-6, `${M}x${N}x${K} sums of columns: ${error}`);
        }
      }
    }, overrides));
}

for (const [family, overrides] of Object.entries({ ...families, ...variants })) {
  Deno.test(`matmul with GELU or its slope behind it is right in all layouts and types, ${family}`, () =>
    withDevice(async (device) => {
      for (
        const [layout, M, N, K] of [["NN", 96, 192, 64], ["NT", 64, 128, 128], ["NT", 40, 36, 12], [
          "TN",
          128,
          64,
          67,
        ]] as const
      ) {
        for (const dtype of layout === "TN" || N % 128 !== 0 ? ["f32"] as const : ["f32", "bf16"] as const) {
          const aShape = layout === "TN" ? [K, M] : [M, K];
          const bShape = layout === "NT" ? [N, K] : [K, N];
          const a = random(M * K, 5), b = random(N * K, 6), bias = random(N, 7), x = random(M * N, 8);
          // A value that bf16 holds exactly.
          if (dtype === "bf16") { for (let i = 0; i < b.length; i++) b[i] = Math.round(b[i] * 128) / 128; }
          const product = reference(layout, a, b, M, N, K);
          const results = await runOn(device, (graph) => {
            const at = graph.tensor("a", aShape, "input", { dtype: "f32" });
            const bt = graph.tensor("b", bShape, "input", { dtype });
            const biasT = graph.tensor("bias", [N], "input", { dtype: "f32" });
            const xT = graph.tensor("x", [M, N], "input", { dtype: "f32" });
            const forward = { layout, bias: true, activation: "gelu" } as const;
            const [y, activated] = graph.add(matmul, [at, bt, biasT], forward);
            const [dx] = graph.add(matmul, [at, bt, xT, xT], { layout, addend: true, activation: "geluGradient" });
            return {
              inputs: new Map([[at, a], [bt, b], [biasT, bias], [xT, x]]),
              outputs: { y, activated, dx },
            };
          });
          const expected = {
            y: product.map((sum, i) => sum + bias[i % N]),
            activated: product.map((sum, i) => gelu(sum + bias[i % N])[0]),
            dx: product.map((sum, i) => (sum + x[i]) * gelu(x[i])[1]),
          };
          for (const [name, numbers] of Object.entries(expected)) {
            const error = scaledMax(results[name], numbers);
            assert.ok(error < 3e-6, `${layout} ${M}x${N}x${K} ${dtype} ${name}: ${error}`);
          }
        }
      }
    }, overrides));
}
