/**
 * What both families are made of: a forward pass under construction, and the layers that differ between whole sequences
 * and new tokens.
 * @module
 */

import { collective, enterGroup } from "../graph/collective.ts";
import { attention, sequenceUnit } from "../kernels/attention.ts";
import { attentionDecode } from "../kernels/attention_decode.ts";
import { dropout } from "../kernels/dropout.ts";
import { embedding } from "../kernels/embedding.ts";
import { gelu } from "../kernels/gelu.ts";
import { matmul, type MatmulAttributes } from "../kernels/matmul.ts";
import { columnSum } from "../kernels/column_sum.ts";
import { residualAdd } from "../kernels/residual_add.ts";
import { rope } from "../kernels/rope.ts";
import { isRowProduct, rowProduct, type RowProductAttributes } from "../kernels/row_product.ts";
import type { Graph, OpDefinition } from "../graph/graph.ts";
import { rowCount, rowSize, type Tensor } from "../graph/tensor.ts";
import type { ModelConfiguration } from "./configuration.ts";
import { localSizes, type ModelPart } from "./part.ts";

/** Key and value caches of one layer, `[maximumSequenceLength, keyValueHeads * headSize]` each, of the heads that are here. */
export interface LayerCache {
  readonly keys: Tensor;
  readonly values: Tensor;
}

/** Tensors that a forward pass reads besides the parameters. */
export interface ForwardInputs {
  /** u32 [N], N = batch * sequenceLength. */
  readonly tokens: Tensor;
  /** Rows of `tokens` sorted by token, and the lengths of their runs: for the gradient of the token table. */
  readonly scatter?: { readonly order: Tensor; readonly runs: Tensor };
  /** Cosines and sines of RoPE, `[maximumSequenceLength, headSize / 2]`. */
  readonly rope?: { readonly cos: Tensor; readonly sin: Tensor };
  /** u32 [1], the position of the first of the tokens, and the caches by layer: decoding instead of whole sequences. */
  readonly decode?: { readonly position: Tensor; readonly caches: readonly LayerCache[] };
  /** Dropout: u32 [4] (seed, step, first row, 0) and the probability. */
  readonly dropout?: { readonly state: Tensor; readonly probability: number };
}

/** A forward pass under construction. */
export interface Forward {
  readonly graph: Graph;
  readonly configuration: ModelConfiguration;
  /** What of the model is here. */
  readonly part: ModelPart;
  /** Parameters by name. */
  readonly parameters: ReadonlyMap<string, Tensor>;
  readonly inputs: ForwardInputs;
  /** Tokens in a sequence, or in a block when decoding. */
  readonly sequenceLength: number;
  /** GELU is an op of its own, so that backward may compute it again without the product before it. */
  readonly separateActivations?: boolean;
}

/** The parameter `name`. */
export function parameter(forward: Pick<Forward, "parameters">, name: string): Tensor {
  const tensor = forward.parameters.get(name);
  if (!tensor) throw new Error(`The model has no parameter ${name}`);
  return tensor;
}

/** The group of ranks over which blocks are split. */
const group = "tensor";

function isSplit({ part }: Forward): boolean {
  return part.tensor.size > 1;
}

/** Where a split part of a block begins: all rows of `x` on every rank, whose gradients are summed. */
export function enter(forward: Forward, x: Tensor): Tensor {
  if (!isSplit(forward)) return x;
  const { graph, part } = forward;
  if (!part.sequenceParallel) {
    return graph.add(enterGroup, [x], { group }, { outputs: [x], name: `enter ${x.name}` })[0];
  }
  const shape = [rowCount(x) * part.tensor.size, rowSize(x)];
  return graph.add(collective, [x], { kind: "allGather", group, shape }, { name: `gather ${x.name}` })[0];
}

/** Where it ends: the sum of all ranks' `x`, on each or (sequence-parallel) a share of the rows on each. */
function leave(forward: Forward, x: Tensor): Tensor {
  if (!isSplit(forward)) return x;
  const { graph, part: { sequenceParallel, tensor } } = forward;
  if (!sequenceParallel) return graph.add(collective, [x], { kind: "allReduce", group }, { outputs: [x] })[0];
  const shape = [rowCount(x) / tensor.size, rowSize(x)];
  return graph.add(collective, [x], { kind: "reduceScatter", group, shape }, { name: `scatter ${x.name}` })[0];
}

/** The gradients of what the first rank alone adds to a sum, for the others: `[y, bias?, addend?]`. Computes nothing. */
const addedElsewhere: OpDefinition<{ readonly bias: boolean; readonly addend: boolean }> = {
  name: "addedElsewhere",
  infer: ([y]) => [{ shape: y.shape, dtype: y.dtype, rowUnit: y.rowUnit }],
  gradient(backward, op) {
    const { bias, addend } = op.attributes;
    const dy = backward.gradientOf(op.outputs[0])!;
    if (bias) {
      const options = { name: `${op.name}.dbias`, outputs: [backward.accumulator(op.inputs[1])] };
      backward.add(columnSum, [dy], { accumulate: true }, options);
    }
    if (addend) backward.give(op.inputs[op.inputs.length - 1], dy);
  },
  lower: () => [],
};

/** Token (and position) embeddings: `[N, width]`. */
export function embed(forward: Forward, table: string, positions?: string): Tensor {
  const { graph, configuration, part, inputs, sequenceLength } = forward;
  const start = inputs.decode && positions ? [inputs.decode.position] : [];
  const [x] = graph.add(
    embedding,
    [inputs.tokens, parameter(forward, table), ...(positions ? [parameter(forward, positions)] : []), ...start],
    {
      sequenceLength,
      firstToken: localSizes(configuration, part.tensor).firstToken,
      addPositions: part.tensor.index === 0,
      ...(start.length > 0 ? { start: true } : {}),
      ...(inputs.scatter ? { scatter: inputs.scatter } : {}),
    },
    { name: "embedding" },
  );
  return drop(forward, leave(forward, x), 0);
}

/** `x w (+ bias) (+ addend)`; weights are `[in, out]` (NN) or `[out, in]` (NT). `x` is GELU of `activated`. */
export function linear(
  forward: Pick<Forward, "graph" | "parameters"> & Partial<Pick<Forward, "inputs">>,
  x: Tensor,
  weight: string,
  layout: "NN" | "NT",
  options: { bias?: string; addend?: Tensor; activated?: Tensor } = {},
): Tensor {
  const inputs = [x, parameter(forward, weight)];
  if (options.bias) inputs.push(parameter(forward, options.bias));
  if (options.addend) inputs.push(options.addend);
  const attributes = {
    layout,
    ...(options.bias ? { bias: true } : {}),
    ...(options.addend ? { addend: true } : {}),
    ...(options.activated ? { activated: options.activated } : {}),
  };
  return multiply(forward, inputs, attributes, weight);
}

/** A product; of the one row of a new token, which has no gradient, the fast one. */
function multiply(
  { graph, inputs: given }: Pick<Forward, "graph"> & Partial<Pick<Forward, "inputs">>,
  inputs: readonly Tensor[],
  attributes: RowProductAttributes & MatmulAttributes,
  name: string,
): Tensor {
  const [x, weights] = inputs;
  if (given?.decode && isRowProduct(x, weights)) return graph.add(rowProduct, inputs, attributes, { name })[0];
  return graph.add(matmul, inputs, attributes, { name })[0];
}

/** `GELU(x w + bias)`, and what GELU is of: a product that takes the former is told the latter, and computes its gradient. */
export function linearGelu(
  forward: Forward,
  x: Tensor,
  weight: string,
  options: { bias: string; name: string },
): { activated: Tensor; inner: Tensor } {
  if (forward.separateActivations || forward.inputs.decode) {
    const inner = linear(forward, x, weight, "NN", { bias: options.bias });
    return { activated: forward.graph.add(gelu, [inner], {}, { name: options.name })[0], inner };
  }
  const inputs = [x, parameter(forward, weight), parameter(forward, options.bias)];
  const attributes = { layout: "NN", bias: true, activation: "gelu" } as const;
  const [inner, activated] = forward.graph.add(matmul, inputs, attributes, { name: weight });
  return { activated, inner };
}

/** Packed queries, keys and values of `x`: a product whose rows are cut between sequences only. */
export function project(forward: Forward, x: Tensor, weight: string, layout: "NN" | "NT", bias?: string): Tensor {
  const inputs = [x, parameter(forward, weight), ...(bias ? [parameter(forward, bias)] : [])];
  const rowUnit = sequenceUnit(forward.sequenceLength);
  return multiply(forward, inputs, { layout, rowUnit, ...(bias ? { bias: true } : {}) }, weight);
}

/** The end of a residual branch: `residual + dropout(x w + bias)`. `site` is unique in the model. */
export function linearResidual(
  forward: Forward,
  x: Tensor,
  weight: string,
  layout: "NN" | "NT",
  options: { bias?: string; residual: Tensor; site: number; activated?: Tensor },
): Tensor {
  const { residual, site, bias } = options;
  const activated = options.activated ? { activated: options.activated } : {};
  const { tensor, sequenceParallel } = forward.part;
  const dropped = forward.inputs.dropout !== undefined;
  // A share of the rows is left of the sum, so the residual, which has just these, is added behind it.
  const fused = !dropped && !(tensor.size > 1 && sequenceParallel);
  const addend = fused ? { addend: residual } : {};
  let sum: Tensor;
  if (tensor.index === 0) {
    sum = linear(forward, x, weight, layout, { ...(bias ? { bias } : {}), ...addend, ...activated });
  } else {
    sum = linear(forward, x, weight, layout, activated);
    const added = [...(bias ? [parameter(forward, bias)] : []), ...(fused ? [residual] : [])];
    if (added.length > 0) {
      forward.graph.add(addedElsewhere, [sum, ...added], { bias: bias !== undefined, addend: fused }, {
        outputs: [sum],
      });
    }
  }
  const branch = leave(forward, sum);
  return fused ? branch : forward.graph.add(residualAdd, [residual, drop(forward, branch, site)], {})[0];
}

function drop(forward: Forward, x: Tensor, site: number): Tensor {
  const { inputs: { dropout: dropped }, part: { tensor, sequenceParallel } } = forward;
  if (!dropped) return x;
  const { state, probability } = dropped;
  const firstRow = sequenceParallel ? tensor.index * rowCount(x) : 0;
  return forward.graph.add(dropout, [x, state], { probability, site, firstRow })[0];
}

/** Rotates, in place, queries and keys of packed `[N, (heads + 2 keyValueHeads) headSize]`. */
export function rotate(forward: Forward, qkv: Tensor): Tensor {
  const { configuration, part, inputs, sequenceLength } = forward;
  const { headSize } = configuration;
  const { heads, keyValueHeads } = localSizes(configuration, part.tensor);
  if (!inputs.rope) throw new Error("A model with rotary positions needs their tables");
  const start = inputs.decode ? [inputs.decode.position] : [];
  const attributes = {
    heads,
    keyValueHeads,
    headSize,
    sequenceLength,
    ...(start.length > 0 ? { start: true } : {}),
  };
  return forward.graph.add(rope, [qkv, inputs.rope.cos, inputs.rope.sin, ...start], attributes, { outputs: [qkv] })[0];
}

/** Causal attention over packed queries, keys and values: `[N, heads * headSize]`. */
export function attend(forward: Forward, qkv: Tensor, layer: number): Tensor {
  const { configuration, part, inputs, sequenceLength } = forward;
  const { headSize } = configuration;
  const { heads, keyValueHeads } = localSizes(configuration, part.tensor);
  if (!inputs.decode) {
    return forward.graph.add(attention, [qkv], { heads, keyValueHeads, headSize, sequenceLength })[0];
  }
  const cache = inputs.decode.caches[layer - part.layers[0]];
  const attributes = { heads, keyValueHeads, headSize, positions: cache.keys.shape[0] };
  return forward.graph.add(attentionDecode, [qkv, inputs.decode.position], attributes, {
    outputs: [undefined, cache.keys, cache.values],
  })[0];
}
