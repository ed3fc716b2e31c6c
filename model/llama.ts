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
import { attend, embed, type Forward, linear, linearResidual, parameter, project, rotate } from "./layers.ts";
import { matrix, paddedVocabulary, type Parameter, vector } from "./parameters.ts";

/** Parameters in the order in which the forward pass uses them. */
export function llamaParameters(configuration: ModelConfiguration): Parameter[] {
  const { vocabularySize, width, hiddenWidth, layers, heads, keyValueHeads, headSize, initializerRange, tied } =
    configuration;
  const rows = paddedVocabulary(configuration);
  const list: Parameter[] = [
    matrix(
      "embed_tokens",
      initializerRange,
      [{ name: "model.embed_tokens.weight", shape: [vocabularySize, width] }],
      rows,
    ),
  ];
  for (let layer = 0; layer < layers; layer++) {
    const source = `model.layers.${layer}`;
    const block = `l${layer}`;
    list.push(
      vector(`${block}.input_layernorm`, "ones", `${source}.input_layernorm.weight`, width),
      matrix(`${block}.qkv_proj`, initializerRange, [
        { name: `${source}.self_attn.q_proj.weight`, shape: [heads * headSize, width] },
        { name: `${source}.self_attn.k_proj.weight`, shape: [keyValueHeads * headSize, width] },
        { name: `${source}.self_attn.v_proj.weight`, shape: [keyValueHeads * headSize, width] },
      ]),
      matrix(`${block}.o_proj`, initializerRange, [
        { name: `${source}.self_attn.o_proj.weight`, shape: [width, heads * headSize] },
      ]),
      vector(`${block}.post_attention_layernorm`, "ones", `${source}.post_attention_layernorm.weight`, width),
      matrix(`${block}.gate_up_proj`, initializerRange, [
        { name: `${source}.mlp.gate_proj.weight`, shape: [hiddenWidth, width] },
        { name: `${source}.mlp.up_proj.weight`, shape: [hiddenWidth, width] },
      ]),
      matrix(`${block}.down_proj`, initializerRange, [
        { name: `${source}.mlp.down_proj.weight`, shape: [width, hiddenWidth] },
      ]),
    );
  }
  list.push(vector("norm", "ones", "model.norm.weight", width));
  if (!tied) {
    list.push(matrix("lm_head", initializerRange, [{ name: "lm_head.weight", shape: [vocabularySize, width] }], rows));
  }
  return list;
}

/** The forward pass: logits `[N, padded vocabulary]`. `observe` is told of the hidden states behind each block. */
export function llamaForward(forward: Forward, observe?: (name: string, hidden: Tensor) => void): Tensor {
  const { graph, configuration } = forward;
  const norm = (x: Tensor, name: string) =>
    graph.add(rmsnorm, [x, parameter(forward, name)], { epsilon: configuration.normEpsilon }, { name })[0];
  let x = embed(forward, "embed_tokens");
  observe?.("hidden.0", x);
  for (let layer = 0; layer < configuration.layers; layer++) {
    const l = `l${layer}`;
    const qkv = project(forward, norm(x, `${l}.input_layernorm`), `${l}.qkv_proj`, "NT");
    const mixed = attend(forward, rotate(forward, qkv), layer);
    x = linearResidual(forward, mixed, `${l}.o_proj`, "NT", { residual: x, site: 2 * layer + 1 });
    const gateUp = linear(forward, norm(x, `${l}.post_attention_layernorm`), `${l}.gate_up_proj`, "NT");
    const [activated] = graph.add(swiglu, [gateUp], {}, { name: `${l}.swiglu` });
    x = linearResidual(forward, activated, `${l}.down_proj`, "NT", { residual: x, site: 2 * layer + 2 });
    observe?.(`hidden.${layer + 1}`, x);
  }
  const last = norm(x, "norm");
  observe?.("hidden.norm", last);
  return linear(forward, last, configuration.tied ? "embed_tokens" : "lm_head", "NT");
}
