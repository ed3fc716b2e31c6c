/**
 * GPT-2 (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019): learned positions, layer norm
 * before each block, GELU (tanh form), biases everywhere. Weights of linear layers are `[in, out]`.
 * @module
 */

import { gelu } from "../kernels/gelu.ts";
import { layernorm } from "../kernels/layernorm.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { ModelConfiguration } from "./configuration.ts";
import { attend, embed, type Forward, linear, linearResidual, parameter, project } from "./layers.ts";
import { matrix, paddedVocabulary, type Parameter, vector } from "./parameters.ts";

/** Parameters in the order in which the forward pass uses them. */
export function gpt2Parameters(configuration: ModelConfiguration): Parameter[] {
  const { vocabularySize, width, hiddenWidth, layers, maximumSequenceLength, initializerRange, tied } = configuration;
  const rows = paddedVocabulary(configuration);
  // Residual branches add up, so their last layers start smaller (section 2.3 of the paper).
  const residual = initializerRange / Math.sqrt(2 * layers);
  const list: Parameter[] = [
    matrix("wte", initializerRange, [{ name: "transformer.wte.weight", shape: [vocabularySize, width] }], rows),
    matrix("wpe", initializerRange, [{ name: "transformer.wpe.weight", shape: [maximumSequenceLength, width] }]),
  ];
  for (let layer = 0; layer < layers; layer++) {
    const linearLayer = (name: string, inputs: number, outputs: number, deviation: number) => {
      const source = `transformer.h.${layer}.${name}`;
      list.push(
        matrix(`h${layer}.${name}.weight`, deviation, [{ name: `${source}.weight`, shape: [inputs, outputs] }]),
        vector(`h${layer}.${name}.bias`, "zeros", `${source}.bias`, outputs),
      );
    };
    const norm = (name: string) => {
      const source = `transformer.h.${layer}.${name}`;
      list.push(
        vector(`h${layer}.${name}.weight`, "ones", `${source}.weight`, width),
        vector(`h${layer}.${name}.bias`, "zeros", `${source}.bias`, width),
      );
    };
    norm("ln_1");
    linearLayer("attn.c_attn", width, 3 * width, initializerRange);
    linearLayer("attn.c_proj", width, width, residual);
    norm("ln_2");
    linearLayer("mlp.c_fc", width, hiddenWidth, initializerRange);
    linearLayer("mlp.c_proj", hiddenWidth, width, residual);
  }
  list.push(
    vector("ln_f.weight", "ones", "transformer.ln_f.weight", width),
    vector("ln_f.bias", "zeros", "transformer.ln_f.bias", width),
  );
  if (!tied) {
    list.push(matrix("lm_head", initializerRange, [{ name: "lm_head.weight", shape: [vocabularySize, width] }], rows));
  }
  return list;
}

/** The forward pass: logits `[N, padded vocabulary]`. `observe` is told of the hidden states behind each block. */
export function gpt2Forward(forward: Forward, observe?: (name: string, hidden: Tensor) => void): Tensor {
  const { graph, configuration } = forward;
  const norm = (x: Tensor, name: string) =>
    graph.add(
      layernorm,
      [x, parameter(forward, `${name}.weight`), parameter(forward, `${name}.bias`)],
      { epsilon: configuration.normEpsilon },
      { name },
    )[0];
  let x = embed(forward, "wte", "wpe");
  observe?.("hidden.0", x);
  for (let layer = 0; layer < configuration.layers; layer++) {
    const h = `h${layer}`;
    const qkv = project(forward, norm(x, `${h}.ln_1`), `${h}.attn.c_attn.weight`, "NN", `${h}.attn.c_attn.bias`);
    x = linearResidual(forward, attend(forward, qkv, layer), `${h}.attn.c_proj.weight`, "NN", {
      bias: `${h}.attn.c_proj.bias`,
      residual: x,
      site: 2 * layer + 1,
    });
    const inner = linear(forward, norm(x, `${h}.ln_2`), `${h}.mlp.c_fc.weight`, "NN", { bias: `${h}.mlp.c_fc.bias` });
    const [activated] = graph.add(gelu, [inner], {}, { name: `${h}.gelu` });
    x = linearResidual(forward, activated, `${h}.mlp.c_proj.weight`, "NN", {
      bias: `${h}.mlp.c_proj.bias`,
      residual: x,
      site: 2 * layer + 2,
    });
    observe?.(`hidden.${layer + 1}`, x);
  }
  const last = norm(x, "ln_f");
  observe?.("hidden.norm", last);
  return linear(forward, last, configuration.tied ? "wte" : "lm_head", "NT");
}
