import assert from "node:assert/strict";
import { makePlan } from "../../graph/plan.ts";
import { genericCapabilities } from "../../gpu/capabilities.ts";
import { backward } from "../../graph/backward.ts";
import { fillNormal } from "../../graph/random.ts";
import type { Tensor } from "../../graph/tensor.ts";
import { columnSum } from "../../kernels/column_sum.ts";
import { layernorm } from "../../kernels/layernorm.ts";
import { addTensors, residualAdd } from "../../kernels/residual_add.ts";
import { rmsnorm } from "../../kernels/rmsnorm.ts";
import { softmax } from "../../kernels/softmax.ts";
import { modelConfiguration } from "../../model/configuration.ts";
import { buildModelGraph } from "../../train/model_graph.ts";
import { runOn, scaledMax, withDevice } from "./harness.ts";

const forms = {
  "as it is": {},
  "without subgroups": { subgroupSize: 0 },
  "as on a GPU": { type: "gpu" as const },
};

function normal(count: number, name: string, mean = 0): Float32Array {
  const values = new Float32Array(count);
  fillNormal(values, name, 5, 0, 1);
  return values.map((x) => x + mean);
}

/** Layer norm, or RMS norm, and its gradients in double precision. */
function reference(x: Float32Array, w: Float32Array, b: Float32Array, dy: Float32Array, C: number, centered = true) {
  const y = new Float64Array(x.length), dx = new Float64Array(x.length);
  const dw = new Float64Array(C), db = new Float64Array(C);
  for (let start = 0; start < x.length; start += C) {
    const row = Float64Array.from(x.subarray(start, start + C));
    const mean = centered ? row.reduce((a, v) => a + v, 0) / C : 0;
    const rstd = 1 / Math.sqrt(row.reduce((a, v) => a + (v - mean) ** 2, 0) / C + 1e-5);
    const normed = row.map((v) => (v - mean) * rstd);
    const g = normed.map((_, c) => dy[start + c] * w[c]);
    const meanG = centered ? g.reduce((a, v) => a + v, 0) / C : 0;
    const meanGX = g.reduce((a, v, c) => a + v * normed[c], 0) / C;
    for (let c = 0; c < C; c++) {
      y[start + c] = normed[c] * w[c] + b[c];
      dx[start + c] = (g[c] - meanG - normed[c] * meanGX) * rstd;
      dw[c] += dy[start + c] * normed[c];
      db[c] += dy[start + c];
    }
  }
  return { y, dx, dw, db };
}

for (const [form, overrides] of Object.entries(forms)) {
  Deno.test(`layer norm of rows short, ragged and long is right, also where the mean is 1,000 deviations, ${form}`, () =>
    withDevice(async (device) => {
      // The last two are read from images where images are faster.
      for (const [R, C] of [[75, 4], [75, 130], [75, 132], [75, 384], [75, 2052], [700, 384], [75, 3584]]) {
        // A mean of 1,000 is known to half a unit in its last place, 3e-5; a row of four may deviate by a tenth only.
        for (const [mean, limit] of [[0, 3e-6], [1000, 1e-3]]) {
          const data = [normal(R * C, "x", mean), normal(C, "w", 1), normal(C, "b"), normal(R * C, "dy")] as const;
          const results = await runOn(device, (graph) => {
            const x = graph.tensor("x", [R, C], "input"), dy = graph.tensor("dy", [R, C], "input");
            const w = graph.tensor("w", [C], "parameter"), b = graph.tensor("b", [C], "parameter");
            const dw = graph.tensor("dw", [C], "gradient"), db = graph.tensor("db", [C], "gradient");
            const [y] = graph.add(layernorm, [x, w, b], { epsilon: 1e-5 });
            const sums = new Map([[w, dw], [b, db]]);
            const found = backward(graph, new Map([[y, dy]]), sums, addTensors, [x]);
            return {
              inputs: new Map([[x, data[0]], [w, data[1]], [b, data[2]], [dy, data[3]]]),
              outputs: { y, dx: found.get(x)!, dw, db },
            };
          });
          const expected = reference(...data, C);
          for (const key of ["y", "dx", "dw", "db"] as const) {
            const error = scaledMax(results[key], expected[key]);
            assert.ok(error < limit, `${C} columns, mean ${mean}: ${key} is off by ${error}`);
          }
        }
      }
    }, overrides));

  Deno.test(`gradients of norms are right for any number of rows, cut ones, halves, and added to a residual's, ${form}`, () =>
    withDevice(async (device) => {
      // Rows of the last are cut, between blocks whose sums the kernels make.
      for (const [R, C, bindingLimit] of [[1, 64], [31, 128], [33, 200], [100, 384], [9, 66], [400, 128, 2 ** 16]]) {
        for (const [centered, dtype] of [[true, "f32"], [false, "f32"], [true, "bf16"], [false, "bf16"]] as const) {
          if (dtype === "bf16" && C % 4 !== 0) continue;
          // Whole numbers and quarters are bf16 as they are.
          const draw = (count: number, name: string) => normal(count, name).map((x) => Math.round(4 * x) / 4);
          const data = [draw(R * C, "x"), draw(C, "w"), draw(C, "b"), draw(R * C, "dy")] as const;
          const results = await runOn(device, (graph) => {
            const [x, dy] = ["x", "dy"].map((name) => graph.tensor(name, [R, C], "input", { dtype }));
            const [w, b] = ["w", "b"].map((name) => graph.tensor(name, [C], "parameter", { dtype }));
            const dw = graph.tensor("dw", [C], "gradient"), db = graph.tensor("db", [C], "gradient");
            const [y] = centered
              ? graph.add(layernorm, [x, w, b], { epsilon: 1e-5 })
              : graph.add(rmsnorm, [x, w], { epsilon: 1e-5 });
            const [z] = graph.add(residualAdd, [x, y], {});
            const sums = new Map([[w, dw], [b, db]]);
            const found = backward(graph, new Map([[z, dy]]), sums, addTensors, [x]);
            return {
              inputs: new Map([[x, data[0]], [w, data[1]], [b, data[2]], [dy, data[3]]]),
              outputs: { dx: found.get(x)!, dw, ...(centered ? { db } : {}) },
            };
          }, { runs: 2, activationType: dtype, overrides: bindingLimit ? { bindingLimit } : {} });
          const { dx, dw, db } = reference(...data, C, centered);
          const twice = (sum: Float64Array) => sum.map((x) => 2 * x);
          const expected = { dx: dx.map((x, i) => x + data[3][i]), dw: twice(dw), db: twice(db) };
          for (const key of Object.keys(results) as (keyof typeof expected)[]) {
            const error = scaledMax(results[key], expected[key]);
            const limit = key === "dx" && dtype === "bf16" ? 1 / 256 : 3e-6;
            assert.ok(error < limit, `${R}x${C} ${dtype}${centered ? ", centered" : ""}: ${key} is off by ${error}`);
          }
        }
      }
    }, overrides));

  Deno.test(`softmax and column sums of ragged sizes are right, ${form}`, () =>
    withDevice(async (device) => {
      for (const [R, C] of [[3, 5], [33, 36], [100, 132], [70, 1028], [9, 3000]]) {
        const data = normal(R * C, "x");
        const results = await runOn(device, (graph) => {
          const x = graph.tensor("x", [R, C], "input"), sum = graph.tensor("sum", [C], "output");
          const [y] = graph.add(softmax, [x], {});
          graph.add(columnSum, [x], { accumulate: true }, { outputs: [sum] });
          return { inputs: new Map([[x, data]]), outputs: { y, sum } };
        }, { runs: 2 });
        const y = new Float64Array(R * C), sum = new Float64Array(C);
        for (let r = 0; r < R; r++) {
          const e = Float64Array.from(data.subarray(r * C, (r + 1) * C), Math.exp);
          const z = e.reduce((a, b) => a + b, 0);
          for (let c = 0; c < C; c++) {
            y[r * C + c] = e[c] / z;
            sum[c] += 2 * data[r * C + c];
          }
        }
        assert.ok(scaledMax(results.y, y) < 3e-6, `softmax ${R}x${C}: ${scaledMax(results.y, y)}`);
        assert.ok(scaledMax(results.sum, sum) < 2e-6, `sum ${R}x${C}: ${scaledMax(results.sum, sum)}`);
      }
    }, overrides));
}

Deno.test("layer norm rounds only what it stores where tensors are bf16", () =>
  withDevice(async (device) => {
    const [R, C] = [16, 132];
    const results = await runOn(device, (graph) => {
      const inputs = new Map<Tensor, Float32Array>();
      const declare = (name: string, shape: number[]) => {
        const tensor = graph.tensor(name, shape, "input", { dtype: "bf16" });
        // Whole numbers and quarters are bf16 as they are.
        inputs.set(tensor, normal(shape.reduce((a, b) => a * b, 1), name).map((x) => Math.round(4 * x) / 4));
        return tensor;
      };
      const [x, w, b] = [declare("x", [R, C]), declare("w", [C]), declare("b", [C])];
      const wide = (tensor: Tensor) => {
        const own = graph.tensor(`${tensor.name} f32`, tensor.shape, "input");
        inputs.set(own, inputs.get(tensor)!);
        return own;
      };
      const half = graph.tensor("y", [R, C], "output", { dtype: "bf16" });
      graph.add(layernorm, [x, w, b], { epsilon: 1e-5 }, { outputs: [half] });
      const [y] = graph.add(layernorm, [wide(x), wide(w), wide(b)], { epsilon: 1e-5 });
      return { inputs, outputs: { y, half } };
    });
    results.y.forEach((y, i) =>
      assert.ok(Math.abs(results.half[i] - y) <= Math.abs(y) / 256, `${results.half[i]} for ${y}`)
    );
  }));

Deno.test("the update of a model takes three dispatches: two for the gradient norm, one for AdamW", () => {
  const configuration = modelConfiguration({
    family: "gpt2",
    vocabularySize: 256,
    layers: 4,
    heads: 4,
    width: 128,
    maximumSequenceLength: 128,
  });
  const { graph } = buildModelGraph({ configuration, batch: 1, sequenceLength: 16, segments: ["train"] });
  const dispatches = (bindingLimit: number) => {
    const { segments } = makePlan(graph, { ...genericCapabilities, bindingLimit });
    return segments.get("update")!.flatMap(({ dispatches }) => dispatches).map(({ op }) => op.definition.name);
  };
  assert.deepEqual(dispatches(128 * 2 ** 20), ["sumOfSquares", "sumOfSquares", "adamw"]);
  // Gradients in four pieces of memory: still two.
  assert.deepEqual(dispatches(2 ** 20).filter((name) => name === "sumOfSquares").length, 2);
});
