/**
 * What both families are made of: a forward pass under construction, and the layers that differ between a whole
 * sequence and a single new token.
 * @module
 */

import { attention, sequenceUnit } from "../kernels/attention.ts";
import { attentionDecode } from "../kernels/attention_decode.ts";
import { dropout } from "../kernels/dropout.ts";
import { embedding } from "../kernels/embedding.ts";
import { matmul } from "../kernels/matmul.ts";
import { residualAdd } from "../kernels/residual_add.ts";
import { rope } from "../kernels/rope.ts";
import type { Graph } from "../graph/graph.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { ModelConfiguration } from "./configuration.ts";

/** Key and value caches of one layer, `[maximumSequenceLength, keyValueHeads * headSize]` each. */
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
  /** u32 [1], the position of the one token, and the caches by layer: decoding instead of whole sequences. */
  readonly decode?: { readonly position: Tensor; readonly caches: readonly LayerCache[] };
  /** Dropout: u32 [4] (seed, step, first row, 0) and the probability. */
  readonly dropout?: { readonly state: Tensor; readonly probability: number };
}

/** A forward pass under construction. */
export interface Forward {
  readonly graph: Graph;
  readonly configuration: ModelConfiguration;
  /** Parameters by name. */
  readonly parameters: ReadonlyMap<string, Tensor>;
  readonly inputs: ForwardInputs;
  /** Tokens in a sequence; 1 when decoding. */
  readonly sequenceLength: number;
}

/** The parameter `name`. */
export function parameter(forward: Forward, name: string): Tensor {
  const tensor = forward.parameters.get(name);
  if (!tensor) throw new Error(`The model has no parameter ${name}`);
  return tensor;
}

/** Token (and position) embeddings: `[N, width]`. */
export function embed(forward: Forward, table: string, positions?: string): Tensor {
  const { graph, inputs, sequenceLength } = forward;
  const start = inputs.decode && positions ? [inputs.decode.position] : [];
  const [x] = graph.add(
    embedding,
    [inputs.tokens, parameter(forward, table), ...(positions ? [parameter(forward, positions)] : []), ...start],
    {
      sequenceLength,
      ...(start.length > 0 ? { start: true } : {}),
      ...(inputs.scatter ? { scatter: inputs.scatter } : {}),
    },
    { name: "embedding" },
  );
  return drop(forward, x, 0);
}

/** `x w (+ bias) (+ addend)`; weights are `[in, out]` (NN) or `[out, in]` (NT). */
export function linear(
  forward: Forward,
  x: Tensor,
  weight: string,
  layout: "NN" | "NT",
  options: { bias?: string; addend?: Tensor } = {},
): Tensor {
  const inputs = [x, parameter(forward, weight)];
  if (options.bias) inputs.push(parameter(forward, options.bias));
  if (options.addend) inputs.push(options.addend);
  const attributes = {
    layout,
    ...(options.bias ? { bias: true } : {}),
    ...(options.addend ? { addend: true } : {}),
  };
  return forward.graph.add(matmul, inputs, attributes, { name: weight })[0];
}

/** Packed queries, keys and values of `x`: a product whose rows are cut between sequences only. */
export function project(forward: Forward, x: Tensor, weight: string, layout: "NN" | "NT", bias?: string): Tensor {
  const inputs = [x, parameter(forward, weight), ...(bias ? [parameter(forward, bias)] : [])];
  const rowUnit = sequenceUnit(forward.sequenceLength);
  return forward.graph.add(matmul, inputs, { layout, rowUnit, ...(bias ? { bias: true } : {}) }, { name: weight })[0];
}

/** The end of a residual branch: `residual + dropout(x w + bias)`. `site` is unique in the model. */
export function linearResidual(
  forward: Forward,
  x: Tensor,
  weight: string,
  layout: "NN" | "NT",
  options: { bias?: string; residual: Tensor; site: number },
): Tensor {
  const { residual, site, ...rest } = options;
  if (!forward.inputs.dropout) return linear(forward, x, weight, layout, { ...rest, addend: residual });
  const dropped = drop(forward, linear(forward, x, weight, layout, rest), site);
  return forward.graph.add(residualAdd, [residual, dropped], {})[0];
}

function drop(forward: Forward, x: Tensor, site: number): Tensor {
  const { dropout: dropped } = forward.inputs;
  if (!dropped) return x;
  return forward.graph.add(dropout, [x, dropped.state], { probability: dropped.probability, site })[0];
}

/** Rotates queries and keys of packed `[N, (heads + 2 keyValueHeads) headSize]`. */
export function rotate(forward: Forward, qkv: Tensor): Tensor {
  const { configuration: { heads, keyValueHeads, headSize }, inputs, sequenceLength } = forward;
  if (!inputs.rope) throw new Error("A model with rotary positions needs their tables");
  const start = inputs.decode ? [inputs.decode.position] : [];
  const attributes = {
    heads,
    keyValueHeads,
    headSize,
    sequenceLength,
    ...(start.length > 0 ? { start: true } : {}),
  };
  return forward.graph.add(rope, [qkv, inputs.rope.cos, inputs.rope.sin, ...start], attributes)[0];
}

/** Causal attention over packed queries, keys and values: `[N, heads * headSize]`. */
export function attend(forward: Forward, qkv: Tensor, layer: number): Tensor {
  const { configuration: { heads, keyValueHeads, headSize }, inputs, sequenceLength } = forward;
  if (!inputs.decode) {
    return forward.graph.add(attention, [qkv], { heads, keyValueHeads, headSize, sequenceLength })[0];
  }
  const cache = inputs.decode.caches[layer];
  const attributes = { heads, keyValueHeads, headSize, positions: cache.keys.shape[0] };
  return forward.graph.add(attentionDecode, [qkv, inputs.decode.position], attributes, {
    outputs: [undefined, cache.keys, cache.values],
  })[0];
}
