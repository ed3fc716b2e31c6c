/** Runs the ops of the fixtures on a device and compares every output and gradient with PyTorch's. */

import { adamw, fillHyper } from "../../kernels/adamw.ts";
import { attention } from "../../kernels/attention.ts";
import { crossEntropy } from "../../kernels/cross_entropy.ts";
import { embedding, sortTokens } from "../../kernels/embedding.ts";
import { gelu } from "../../kernels/gelu.ts";
import { layernorm } from "../../kernels/layernorm.ts";
import { matmul } from "../../kernels/matmul.ts";
import { addTensors, residualAdd } from "../../kernels/residual_add.ts";
import { rmsnorm } from "../../kernels/rmsnorm.ts";
import { rope, ropeTables } from "../../kernels/rope.ts";
import { silu } from "../../kernels/silu.ts";
import { softmax } from "../../kernels/softmax.ts";
import { sumOfSquares } from "../../kernels/sum_of_squares.ts";
import { swiglu } from "../../kernels/swiglu.ts";
import type { Device } from "../../gpu/device.ts";
import { backward } from "../../graph/backward.ts";
import type { Graph, OpDefinition } from "../../graph/graph.ts";
import type { Role, Tensor } from "../../graph/tensor.ts";
import { type OpCase, readOpCases, type Reference } from "../fixtures.ts";
import { runOn, scaledMax } from "../kernels/harness.ts";

/** One compared tensor. */
export interface Comparison {
  readonly what: string;
  readonly error: number;
  readonly limit: number;
}

type Numbers = Float32Array | Int32Array | Uint32Array;

/** What a case builds: inputs with data, and the tensors whose numbers are expected, by the fixture's names. */
interface Built {
  readonly inputs: Map<Tensor, Numbers>;
  readonly outputs: Record<string, Tensor>;
  /** Turns what was read back into the fixture's layout. */
  readonly unpack?: (results: Record<string, Numbers>) => Record<string, Numbers>;
}

type Build = (graph: Graph, test: OpCase) => Built;

/** Declares inputs and remembers their data. */
class Inputs {
  readonly map = new Map<Tensor, Numbers>();
  constructor(readonly graph: Graph) {}

  of(name: string, reference: Reference, role: Role = "input", shape = reference.shape): Tensor {
    return this.add(name, reference.data, shape.length ? shape : [1], role);
  }

  add(name: string, data: Numbers, shape: number[], role: Role = "input"): Tensor {
    const dtype = data instanceof Float32Array ? "f32" : data instanceof Int32Array ? "i32" : "u32";
    const tensor = this.graph.tensor(name, shape, role, { dtype });
    this.map.set(tensor, data);
    return tensor;
  }
}

/** Forward and backward of an op whose first inputs have gradients of their own and whose parameters accumulate. */
function differentiate(
  graph: Graph,
  inputs: Inputs,
  definition: OpDefinition,
  operands: Tensor[],
  dy: Tensor,
  attributes: unknown = {},
  inPlace = false,
): { outputs: Tensor[]; gradients: Map<Tensor, Tensor> } {
  const outputs = graph.add(definition, operands, attributes, inPlace ? { outputs: [operands[0]] } : {});
  const parameters = operands.filter((tensor) => tensor.role === "parameter");
  const accumulators = new Map(
    parameters.map((tensor) => [
      tensor,
      inputs.add(
        `d${tensor.name}`,
        new Float32Array(tensor.shape.reduce((a, b) => a * b, 1)),
        [...tensor.shape],
        "gradient",
      ),
    ]),
  );
  const wanted = operands.filter((tensor) => tensor.role === "input" && tensor.dtype === "f32");
  const gradients = backward(graph, new Map([[outputs[0], dy]]), accumulators, addTensors, wanted);
  return { outputs, gradients: new Map([...gradients, ...accumulators]) };
}

// Each op has constants of its own type; the fixtures are what says which.
const any = (definition: unknown) => definition as OpDefinition;

function unary(definition: OpDefinition): Build {
  return (graph, { given }) => {
    const inputs = new Inputs(graph);
    const x = inputs.of("x", given.x);
    const { outputs, gradients } = differentiate(graph, inputs, definition, [x], inputs.of("dy", given.dy));
    return { inputs: inputs.map, outputs: { y: outputs[0], dx: gradients.get(x)! } };
  };
}

function norm(definition: OpDefinition, names: string[]): Build {
  return (graph, { given, config }) => {
    const inputs = new Inputs(graph);
    const x = inputs.of("x", given.x);
    const weights = names.map((name) => inputs.of(name, given[name], "parameter"));
    const made = differentiate(graph, inputs, definition, [x, ...weights], inputs.of("dy", given.dy), {
      epsilon: config.eps,
    });
    const outputs: Record<string, Tensor> = { y: made.outputs[0], dx: made.gradients.get(x)! };
    names.forEach((name, i) => outputs[`d${name}`] = made.gradients.get(weights[i])!);
    return { inputs: inputs.map, outputs };
  };
}

/** Moves [B, H, T, D] tensors into columns of [B T, ΣH D], and back. */
function pack(tensors: Reference[]): { data: Float32Array; shape: number[] } {
  const [B, , T, D] = tensors[0].shape;
  const heads = tensors.reduce((sum, { shape }) => sum + shape[1], 0);
  const data = new Float32Array(B * T * heads * D);
  let firstHead = 0;
  for (const { shape: [, H], data: from } of tensors) {
    for (let b = 0; b < B; b++) {
      for (let h = 0; h < H; h++) {
        for (let t = 0; t < T; t++) {
          const source = ((b * H + h) * T + t) * D;
          data.set(from.subarray(source, source + D), ((b * T + t) * heads + firstHead + h) * D);
        }
      }
    }
    firstHead += H;
  }
  return { data, shape: [B * T, heads * D] };
}

function unpack(packed: Numbers, heads: number, firstHead: number, [B, H, T, D]: number[]): Float32Array {
  const data = new Float32Array(B * H * T * D);
  for (let b = 0; b < B; b++) {
    for (let h = 0; h < H; h++) {
      for (let t = 0; t < T; t++) {
        const source = ((b * T + t) * heads + firstHead + h) * D;
        data.set(packed.subarray(source, source + D), ((b * H + h) * T + t) * D);
      }
    }
  }
  return data;
}

const builds: Record<string, Build> = {
  matmul(graph, { given, config }) {
    const inputs = new Inputs(graph);
    const a = inputs.of("a", given.a), b = inputs.of("b", given.b);
    const batch = config.batch.reduce((x: number, y: number) => x * y, 1);
    const attributes = { layout: config.kind.toUpperCase(), ...(batch > 1 ? { batch } : {}) };
    const { outputs, gradients } = differentiate(
      graph,
      inputs,
      any(matmul),
      [a, b],
      inputs.of("dy", given.dy),
      attributes,
    );
    return { inputs: inputs.map, outputs: { y: outputs[0], da: gradients.get(a)!, db: gradients.get(b)! } };
  },
  linear(graph, { given, config }) {
    const inputs = new Inputs(graph);
    const x = inputs.of("x", given.x), w = inputs.of("w", given.w, "parameter");
    const b = config.bias ? [inputs.of("b", given.b, "parameter")] : [];
    const attributes = { layout: config.kind === "linear" ? "NT" : "NN", ...(config.bias ? { bias: true } : {}) };
    const made = differentiate(graph, inputs, any(matmul), [x, w, ...b], inputs.of("dy", given.dy), attributes);
    const outputs: Record<string, Tensor> = {
      y: made.outputs[0],
      dx: made.gradients.get(x)!,
      dw: made.gradients.get(w)!,
    };
    if (config.bias) outputs.db = made.gradients.get(b[0])!;
    return { inputs: inputs.map, outputs };
  },
  layernorm: norm(any(layernorm), ["w", "b"]),
  rmsnorm: norm(any(rmsnorm), ["w"]),
  gelu_new: unary(any(gelu)),
  silu: unary(any(silu)),
  softmax: unary(any(softmax)),
  swiglu(graph, { given }) {
    const inputs = new Inputs(graph);
    const columns = given.gate.shape[given.gate.shape.length - 1];
    const rows = given.gate.data.length / columns;
    const data = new Float32Array(2 * rows * columns);
    for (let r = 0; r < rows; r++) {
      data.set(given.gate.data.subarray(r * columns, (r + 1) * columns), 2 * r * columns);
      data.set(given.up.data.subarray(r * columns, (r + 1) * columns), (2 * r + 1) * columns);
    }
    const gateUp = inputs.add("gateUp", data, [rows, 2 * columns]);
    const dy = inputs.of("dy", given.dy, "input", [rows, columns]);
    const { outputs, gradients } = differentiate(graph, inputs, any(swiglu), [gateUp], dy);
    const side = (packed: Numbers, offset: number) => {
      const out = new Float32Array(rows * columns);
      for (let r = 0; r < rows; r++) {
        const from = (2 * r + offset) * columns;
        out.set(packed.subarray(from, from + columns), r * columns);
      }
      return out;
    };
    return {
      inputs: inputs.map,
      outputs: { y: outputs[0], d: gradients.get(gateUp)! },
      unpack: ({ y, d }) => ({ y, dgate: side(d, 0), dup: side(d, 1) }),
    };
  },
  attention(graph, { given, config: { B, H, KV, T, D } }) {
    const inputs = new Inputs(graph);
    const packed = pack([given.q, given.k, given.v]);
    const qkv = inputs.add("qkv", packed.data, packed.shape);
    const dy = pack([given.dy]);
    const made = differentiate(graph, inputs, any(attention), [qkv], inputs.add("dy", dy.data, dy.shape), {
      heads: H,
      keyValueHeads: KV,
      headSize: D,
      sequenceLength: T,
    });
    const all = H + 2 * KV;
    return {
      inputs: inputs.map,
      outputs: { y: made.outputs[0], lse: made.outputs[1], d: made.gradients.get(qkv)! },
      unpack: ({ y, lse, d }) => ({
        y: unpack(y, H, 0, [B, H, T, D]),
        lse: unpack(lse, H, 0, [B, H, T, 1]),
        dq: unpack(d, all, 0, [B, H, T, D]),
        dk: unpack(d, all, H, [B, KV, T, D]),
        dv: unpack(d, all, H + KV, [B, KV, T, D]),
      }),
    };
  },
  rope(graph, { given, config: { theta, start, D } }) {
    const inputs = new Inputs(graph);
    const [B, H, T] = given.x.shape;
    const tables = ropeTables(D, start + T, theta);
    // The op rotates packed heads: the fixture's are queries, and one key and one value head stand beside them.
    const filler = { shape: [B, 1, T, D], data: new Float32Array(B * T * D).fill(1) };
    const packed = pack([given.x, filler, filler]);
    const dy = pack([given.dy, filler, filler]);
    const x = inputs.add("x", packed.data, packed.shape);
    const cos = graph.tensor("cos", [start + T, D / 2], "constant");
    const sin = graph.tensor("sin", [start + T, D / 2], "constant");
    inputs.map.set(cos, tables.cos).set(sin, tables.sin);
    const first = graph.tensor("start", [1], "constant", { dtype: "u32" });
    inputs.map.set(first, new Uint32Array([start]));
    const made = differentiate(graph, inputs, any(rope), [x, cos, sin, first], inputs.add("dy", dy.data, dy.shape), {
      heads: H,
      keyValueHeads: 1,
      headSize: D,
      sequenceLength: T,
      start: true,
    }, true);
    return {
      inputs: inputs.map,
      outputs: { y: made.outputs[0], d: made.gradients.get(x)! },
      unpack: ({ y, d }) => ({
        y: unpack(y, H + 2, 0, [B, H, T, D]),
        dx: unpack(d, H + 2, 0, [B, H, T, D]),
        cos: tables.cos.subarray(start * D / 2),
        sin: tables.sin.subarray(start * D / 2),
      }),
    };
  },
  embedding(graph, { given, config: { V } }) {
    const inputs = new Inputs(graph);
    const ids = new Uint32Array(given.ids.data);
    const order = new Uint32Array(ids.length), runs = new Uint32Array(ids.length);
    sortTokens(ids, order, runs, new Uint32Array(V + 1));
    const tokens = inputs.add("ids", ids, [ids.length]);
    const scatter = { order: inputs.add("order", order, [ids.length]), runs: inputs.add("runs", runs, [ids.length]) };
    const wte = inputs.of("wte", given.wte, "parameter");
    const wpe = given.wpe ? [inputs.of("wpe", given.wpe, "parameter")] : [];
    const dy = inputs.of("dy", given.dy, "input", [ids.length, given.wte.shape[1]]);
    const made = differentiate(graph, inputs, any(embedding), [tokens, wte, ...wpe], dy, {
      sequenceLength: given.ids.shape[1],
      scatter,
    });
    const outputs: Record<string, Tensor> = { y: made.outputs[0], dwte: made.gradients.get(wte)! };
    if (given.wpe) outputs.dwpe = made.gradients.get(wpe[0])!;
    return { inputs: inputs.map, outputs };
  },
  cross_entropy(graph, { given }) {
    const inputs = new Inputs(graph);
    const [, V] = given.logits.shape;
    const targets = given.targets.data as Int32Array;
    const count = targets.filter((t) => t >= 0).length;
    const logits = inputs.of("logits", given.logits);
    const operands = [logits, inputs.of("targets", given.targets)];
    const upstream = graph.tensor("upstream", [1], "constant");
    inputs.map.set(upstream, Float32Array.of(given.dloss.data[0] / count));
    const attributes = { vocabularySize: V };
    const made = differentiate(graph, inputs, any(crossEntropy), [...operands, upstream], upstream, attributes);
    return {
      inputs: inputs.map,
      outputs: { sum: made.outputs[0], row_loss: made.outputs[1], dlogits: logits },
      unpack: ({ sum, ...rest }) => ({ ...rest, loss: Float32Array.of(sum[0] / count) }),
    };
  },
  residual_add(graph, { given }) {
    const inputs = new Inputs(graph);
    const a = inputs.of("a", given.a), b = inputs.of("b", given.b);
    const { outputs, gradients } = differentiate(graph, inputs, any(residualAdd), [a, b], inputs.of("dy", given.dy));
    return { inputs: inputs.map, outputs: { y: outputs[0], da: gradients.get(a)!, db: gradients.get(b)! } };
  },
  adamw(graph, { given, config }) {
    const inputs = new Inputs(graph);
    const flat = (name: string) => inputs.of(name, given[name], "input", [given[name].data.length]);
    const [p, g, m, v] = ["p", "g", "m", "v"].map(flat);
    const hyper = new Float32Array(16);
    fillHyper(hyper, {
      learningRate: config.lr,
      beta1: config.beta1,
      beta2: config.beta2,
      epsilon: config.eps,
      weightDecay: config.weight_decay,
      clip: 0,
      step: config.step,
    });
    const h = inputs.add("hyper", hyper, [16]), norm = inputs.add("norm", new Float32Array(1), [1]);
    graph.add(adamw, [p, g, m, v, h, norm], { decayed: 1 << 30, weightsStart: 0, gradientsStart: 0 }, {
      outputs: [p, g, m, v],
    });
    return { inputs: inputs.map, outputs: { p_new: p, m_new: m, v_new: v } };
  },
  clip_grad_norm(graph, { given, config }) {
    // Clipping is folded into AdamW: with beta1 = 0 the first moment after a step is the clipped gradient.
    const inputs = new Inputs(graph);
    const hyper = new Float32Array(16);
    fillHyper(hyper, {
      learningRate: 0,
      beta1: 0,
      beta2: 0,
      epsilon: 1,
      weightDecay: 0,
      clip: config.max_norm,
      step: 1,
    });
    const h = inputs.add("hyper", hyper, [16]);
    const names = Object.keys(given);
    const gradients = names.map((name) => inputs.of(name, given[name], "input", [given[name].data.length]));
    const [sum] = graph.add(sumOfSquares, gradients, {});
    const outputs: Record<string, Tensor> = { sum };
    names.forEach((name, i) => {
      const zero = (what: string) =>
        inputs.add(`${what}${i}`, new Float32Array(gradients[i].shape[0]), [...gradients[i].shape]);
      const [p, m, v] = [zero("p"), zero("m"), zero("v")];
      graph.add(adamw, [p, gradients[i], m, v, h, sum], { decayed: 0, weightsStart: 0, gradientsStart: 0 }, {
        outputs: [p, gradients[i], m, v],
      });
      outputs[`${name}_clipped`] = m;
    });
    return {
      inputs: inputs.map,
      outputs,
      unpack: ({ sum, ...rest }) => ({ ...rest, norm: Float32Array.of(Math.sqrt(sum[0])) }),
    };
  },
};

/** Names of the ops that can be compared. */
export const opNames: readonly string[] = Object.keys(builds);

/** Compares all cases of `op` from a folder of fixtures. */
export async function compareOp(device: Device, op: string, folder?: URL): Promise<Comparison[]> {
  const comparisons: Comparison[] = [];
  for (const test of readOpCases(op, folder)) {
    let built: Built | undefined;
    const raw = await runOn(device, (graph) => built = builds[op](graph, test));
    const results = built!.unpack ? built!.unpack(raw) : raw;
    for (const [name, { data }] of Object.entries(test.expected)) {
      const actual = results[name];
      comparisons.push({
        what: `${op} ${test.name} ${name}`,
        error: actual ? scaledMax(actual, data) : Infinity,
        limit: test.limits[name],
      });
    }
  }
  return comparisons;
}
