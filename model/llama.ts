/**
 * Llama (Touvron et al., "LLaMA: Open and Efficient Foundation Language Models", 2023): RMSNorm, rotary positions
 * (RoPE), SwiGLU, grouped-query attention, no biases. Weights of linear layers are `[out, in]`. Query, key and value
 * projections are one matrix here, and so are gate and up: fewer and larger products.
 * @module
 */

import { rmsnorm } from "../kernels/rmsnorm.ts";
import { swiglu } from "../kernels/swiglu.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { ModelConfiguration } from "./configuration.ts";
import { attend, embed, enter, type Forward, linear, linearResidual, parameter, project, rotate } from "./layers.ts";
import { matrix, type Parameter, vector } from "./parameters.ts";
import { localSizes, type Shard } from "./part.ts";

/** Parameters in the order in which the forward pass uses them; of `shard`, its share. */
export function llamaParameters(configuration: ModelConfiguration, shard: Shard): Parameter[] {
  const { vocabularySize, width, hiddenWidth, layers, heads, keyValueHeads, headSize, initializerRange, tied } =
    configuration;
  const local = localSizes(configuration, shard);
  const table = (name: string, source: string, unit: number) =>
    matrix(name, initializerRange, [
      { name: source, shape: [vocabularySize, width], rows: [local.firstToken, local.vocabulary] },
    ], { unit, split: true, rows: local.vocabularyRows });
  const list: Parameter[] = [table("embed_tokens", "model.embed_tokens.weight", 0)];
  const query: [number, number] = [shard.index * local.heads * headSize, local.heads * headSize];
  const keyValue: [number, number] = [local.firstKeyValueHead * headSize, local.keyValueHeads * headSize];
  const hidden: [number, number] = [shard.index * local.hiddenWidth, local.hiddenWidth];
  for (let layer = 0; layer < layers; layer++) {
    const unit = 1 + layer;
    const source = (name: string) => `model.layers.${layer}.${name}.weight`;
    const block = `l${layer}`;
    const norm = (name: string) =>
      vector(`${block}.${name}`, "ones", [{ name: source(name), shape: [width] }], { unit });
    list.push(
      norm("input_layernorm"),
      matrix(`${block}.qkv_proj`, initializerRange, [
        { name: source("self_attn.q_proj"), shape: [heads * headSize, width], rows: query },
        { name: source("self_attn.k_proj"), shape: [keyValueHeads * headSize, width], rows: keyValue },
        { name: source("self_attn.v_proj"), shape: [keyValueHeads * headSize, width], rows: keyValue },
      ], {
        unit,
        split: true,
        alike: shard.size > keyValueHeads ? [query[1], 2 * keyValue[1]] : undefined,
      }),
      matrix(`${block}.o_proj`, initializerRange, [
        { name: source("self_attn.o_proj"), shape: [width, heads * headSize], columns: query },
      ], { unit, split: true }),
      norm("post_attention_layernorm"),
      matrix(`${block}.gate_up_proj`, initializerRange, [
        { name: source("mlp.gate_proj"), shape: [hiddenWidth, width], rows: hidden },
        { name: source("mlp.up_proj"), shape: [hiddenWidth, width], rows: hidden },
      ], { unit, split: true }),
      matrix(`${block}.down_proj`, initializerRange, [
        { name: source("mlp.down_proj"), shape: [width, hiddenWidth], columns: hidden },
      ], { unit, split: true }),
    );
  }
  const unit = 1 + layers;
  list.push(vector("norm", "ones", [{ name: "model.norm.weight", shape: [width] }], { unit }));
  if (!tied) list.push(table("lm_head", "lm_head.weight", unit));
  return list;
}

function norm(forward: Forward, x: Tensor, name: string): Tensor {
  const epsilon = forward.configuration.normEpsilon;
  return forward.graph.add(rmsnorm, [x, parameter(forward, name)], { epsilon }, { name })[0];
}

/** Token embeddings. */
export function llamaEmbed(forward: Forward): Tensor {
  return embed(forward, "embed_tokens");
}

/** A block: `[N, width]` to `[N, width]`. */
export function llamaBlock(forward: Forward, x: Tensor, layer: number): Tensor {
  const l = `l${layer}`;
  const qkv = project(forward, enter(forward, norm(forward, x, `${l}.input_layernorm`)), `${l}.qkv_proj`, "NT");
  const mixed = attend(forward, rotate(forward, qkv), layer);
  const middle = linearResidual(forward, mixed, `${l}.o_proj`, "NT", { residual: x, site: 2 * layer + 1 });
  const normed = enter(forward, norm(forward, middle, `${l}.post_attention_layernorm`));
  const [activated] = forward.graph.add(swiglu, [linear(forward, normed, `${l}.gate_up_proj`, "NT")], {}, {
    name: `${l}.swiglu`,
  });
  return linearResidual(forward, activated, `${l}.down_proj`, "NT", { residual: middle, site: 2 * layer + 2 });
}

/** The final norm. */
export function llamaNorm(forward: Forward, x: Tensor): Tensor {
  return norm(forward, x, "norm");
}
