import assert from "node:assert/strict";
import { attention } from "../../kernels/attention.ts";
import { crossEntropy } from "../../kernels/cross_entropy.ts";
import { dropout } from "../../kernels/dropout.ts";
import { embedding, sortTokens } from "../../kernels/embedding.ts";
import { gelu } from "../../kernels/gelu.ts";
import { layernorm } from "../../kernels/layernorm.ts";
import { matmul } from "../../kernels/matmul.ts";
import { addTensors, residualAdd } from "../../kernels/residual_add.ts";
import { rmsnorm } from "../../kernels/rmsnorm.ts";
import { rope, ropeTables } from "../../kernels/rope.ts";
import { silu } from "../../kernels/silu.ts";
import { softmax } from "../../kernels/softmax.ts";
import { swiglu } from "../../kernels/swiglu.ts";
import type { Device } from "../../gpu/device.ts";
import { backward } from "../../graph/backward.ts";
import type { Graph, OpDefinition } from "../../graph/graph.ts";
import { elementCount, type Tensor } from "../../graph/tensor.ts";
import { fillNormal } from "../../graph/random.ts";
import { runOn, withDevice } from "./harness.ts";

/** An operand: its shape and whether it is a parameter (whose gradient accumulates); or fixed data. */
interface Operand {
  readonly shape: number[];
  readonly parameter?: boolean;
  readonly data?: Float32Array | Uint32Array | Int32Array;
}

interface Case {
  readonly definition: OpDefinition;
  readonly operands: Operand[];
  readonly attributes: (graph: Graph, inputs: Map<Tensor, Float32Array | Uint32Array | Int32Array>) => unknown;
  /** The output is a loss: it has no upstream of its own. */
  readonly loss?: boolean;
  /** The output is the first operand. */
  readonly inPlace?: boolean;
}

const normal = (shape: number[], name: string) => {
  const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
  fillNormal(values, name, 11, 0, 0.7);
  return values;
};
const any = (definition: unknown) => definition as OpDefinition;
const plain = () => ({});
const ids = Uint32Array.of(3, 1, 3, 0, 2, 3);
const heads = { heads: 4, keyValueHeads: 2, headSize: 8, sequenceLength: 9 };
const tables = ropeTables(8, 9, 100);

const cases: Record<string, Case> = {
  "matmul NN with bias and addend": {
    definition: any(matmul),
    operands: [{ shape: [6, 8] }, { shape: [8, 12], parameter: true }, { shape: [12], parameter: true }, {
      shape: [6, 12],
    }],
    attributes: () => ({ layout: "NN", bias: true, addend: true }),
  },
  "matmul NT": {
    definition: any(matmul),
    operands: [{ shape: [9, 8] }, { shape: [12, 8], parameter: true }],
    attributes: () => ({ layout: "NT" }),
  },
  "matmul TN": {
    definition: any(matmul),
    operands: [{ shape: [7, 8] }, { shape: [7, 12] }],
    attributes: () => ({ layout: "TN" }),
  },
  layernorm: {
    definition: any(layernorm),
    operands: [{ shape: [5, 12] }, { shape: [12], parameter: true }, { shape: [12], parameter: true }],
    attributes: () => ({ epsilon: 1e-5 }),
  },
  rmsnorm: {
    definition: any(rmsnorm),
    operands: [{ shape: [5, 12] }, { shape: [12], parameter: true }],
    attributes: () => ({ epsilon: 1e-5 }),
  },
  softmax: { definition: any(softmax), operands: [{ shape: [4, 9] }], attributes: plain },
  gelu: { definition: any(gelu), operands: [{ shape: [4, 9] }], attributes: plain },
  silu: { definition: any(silu), operands: [{ shape: [4, 9] }], attributes: plain },
  swiglu: { definition: any(swiglu), operands: [{ shape: [4, 16] }], attributes: plain },
  residualAdd: { definition: any(residualAdd), operands: [{ shape: [3, 5] }, { shape: [3, 5] }], attributes: plain },
  attention: { definition: any(attention), operands: [{ shape: [18, 64] }], attributes: () => heads },
  rope: {
    definition: any(rope),
    operands: [{ shape: [18, 64] }, { shape: [9, 4], data: tables.cos }, { shape: [9, 4], data: tables.sin }],
    attributes: () => heads,
    inPlace: true,
  },
  dropout: {
    definition: any(dropout),
    operands: [{ shape: [6, 16] }, { shape: [4], data: Uint32Array.of(5, 2, 0, 0) }],
    attributes: () => ({ probability: 0.4, site: 3 }),
  },
  embedding: {
    definition: any(embedding),
    operands: [{ shape: [6], data: ids }, { shape: [5, 8], parameter: true }, { shape: [3, 8], parameter: true }],
    attributes(graph, inputs) {
      const order = new Uint32Array(6), runs = new Uint32Array(6);
      sortTokens(ids, order, runs, new Uint32Array(6));
      const declare = (name: string, data: Uint32Array) => {
        const tensor = graph.tensor(name, [6], "constant", { dtype: "u32" });
        inputs.set(tensor, data);
        return tensor;
      };
      return { sequenceLength: 3, scatter: { order: declare("order", order), runs: declare("runs", runs) } };
    },
  },
  crossEntropy: {
    definition: any(crossEntropy),
    operands: [{ shape: [5, 12] }, { shape: [5], data: Int32Array.of(3, -100, 9, 0, 3) }, {
      shape: [1],
      data: Float32Array.of(1),
    }],
    attributes: () => ({ vocabularySize: 10 }),
    loss: true,
  },
};

/** Runs a case; returns the first output and the gradients of operands for the upstream `dy`. */
async function run(device: Device, test: Case, values: (Float32Array | Uint32Array | Int32Array)[], dy?: Float32Array) {
  return await runOn(device, (graph) => {
    const inputs = new Map<Tensor, Float32Array | Uint32Array | Int32Array>();
    const operands = test.operands.map(({ shape, parameter, data }, i) => {
      const dtype = data instanceof Uint32Array ? "u32" : data instanceof Int32Array ? "i32" : "f32";
      const tensor = graph.tensor(`x${i}`, shape, data ? "constant" : parameter ? "parameter" : "input", { dtype });
      inputs.set(tensor, values[i]);
      return tensor;
    });
    const made = graph.add(test.definition, operands, test.attributes(graph, inputs), {
      ...(test.inPlace ? { outputs: [operands[0]] } : {}),
    });
    const outputs: Record<string, Tensor> = { y: made[0] };
    if (dy) {
      const upstream = graph.tensor("dy", made[0].shape, "constant");
      inputs.set(upstream, dy);
      const accumulators = new Map(
        operands.filter(({ role }) => role === "parameter").map((tensor) => {
          const gradient = graph.tensor(`d${tensor.name}`, tensor.shape, "gradient");
          inputs.set(gradient, new Float32Array(elementCount(tensor)));
          return [tensor, gradient] as const;
        }),
      );
      const wanted = operands.filter(({ role }) => role === "input");
      const found = new Map([
        ...backward(graph, new Map([[made[0], upstream]]), accumulators, addTensors, wanted),
        ...accumulators,
      ]);
      operands.forEach((tensor, i) => found.has(tensor) && (outputs[`d${i}`] = found.get(tensor)!));
    }
    return { inputs, outputs };
  });
}

for (const [name, test] of Object.entries(cases)) {
  Deno.test(`the gradient of ${name} equals finite differences`, () =>
    withDevice(async (device) => {
      const values = test.operands.map(({ shape, data }, i) => data ?? normal(shape, `${name} ${i}`));
      const y = (await run(device, test, values)).y;
      const dy = test.loss ? Float32Array.of(1) : normal([y.length], `${name} dy`);
      const gradients = await run(device, test, values, dy);
      const objective = async (changed: typeof values) => {
        const out = (await run(device, test, changed)).y as Float32Array;
        return out.reduce((sum, v, i) => sum + v * dy[i], 0);
      };
      let checked = 0;
      for (const [i, { shape, data }] of test.operands.entries()) {
        if (data) continue;
        // Along a random direction: the change of the objective is the gradient's part in that direction.
        for (const probe of [0, 1]) {
          const direction = normal(shape, `${name} direction ${i} ${probe}`);
          const h = 4e-3;
          const shifted = (sign: number) =>
            values.map((value, k) => k === i ? Float32Array.from(value, (v, e) => v + sign * h * direction[e]) : value);
          const numeric = (await objective(shifted(1)) - await objective(shifted(-1))) / (2 * h);
          const analytic = (gradients[`d${i}`] as Float32Array).reduce((sum, g, e) => sum + g * direction[e], 0);
          const scale = Math.sqrt((gradients[`d${i}`] as Float32Array).reduce((sum, g) => sum + g * g, 0));
          assert.ok(Math.abs(numeric - analytic) < 5e-3 * scale + 1e-3, `operand ${i}: ${numeric} and ${analytic}`);
          checked++;
        }
      }
      assert.ok(checked >= 2);
    }));
}
