/**
 * GPT-2 (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019): learned positions, layer norm
 * before each block, GELU (tanh form), biases everywhere. Weights of linear layers are `[in, out]`.
 * @module
 */

import { layernorm } from "../kernels/layernorm.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { ModelConfiguration } from "./configuration.ts";
import { attend, embed, enter, type Forward, linearGelu, linearResidual, parameter, project } from "./layers.ts";
import { matrix, type Parameter, type Slice, vector } from "./parameters.ts";
import { localSizes, type Shard } from "./part.ts";

/** Parameters in the order in which the forward pass uses them; of `shard`, its share. */
export function gpt2Parameters(configuration: ModelConfiguration, shard: Shard): Parameter[] {
  const { vocabularySize, width, headSize, hiddenWidth, layers, maximumSequenceLength, initializerRange, tied } =
    configuration;
  const local = localSizes(configuration, shard);
  // Residual branches add up, so their last layers start smaller (section 2.3 of the paper).
  const residual = initializerRange / Math.sqrt(2 * layers);
  const table = (name: string, source: string, unit: number) =>
    matrix(name, initializerRange, [
      { name: source, shape: [vocabularySize, width], rows: [local.firstToken, local.vocabulary] },
    ], { unit, split: true, rows: local.vocabularyRows });
  const list: Parameter[] = [
    table("wte", "transformer.wte.weight", 0),
    matrix("wpe", initializerRange, [{ name: "transformer.wpe.weight", shape: [maximumSequenceLength, width] }], {
      unit: 0,
    }),
  ];
  const own = local.heads * headSize;
  // Queries, keys and values lie side by side; a rank has its heads of each.
  const heads = [0, 1, 2].map((i): [number, number] => [i * width + shard.index * own, own]);
  const hidden: [number, number] = [shard.index * local.hiddenWidth, local.hiddenWidth];
  for (let layer = 0; layer < layers; layer++) {
    const unit = 1 + layer;
    const source = (name: string) => `transformer.h.${layer}.${name}`;
    const norm = (name: string) =>
      list.push(
        vector(`h${layer}.${name}.weight`, "ones", [{ name: source(`${name}.weight`), shape: [width] }], { unit }),
        vector(`h${layer}.${name}.bias`, "zeros", [{ name: source(`${name}.bias`), shape: [width] }], { unit }),
      );
    /** Outputs split: columns of the weights, and the bias. */
    const columns = (name: string, outputs: number, parts: readonly (readonly [number, number])[]) => {
      const weight = { name: source(`${name}.weight`), shape: [width, outputs] };
      const bias = { name: source(`${name}.bias`), shape: [outputs] };
      const slices: Slice[] = parts.map((part) => ({ ...weight, columns: part }));
      list.push(
        matrix(`h${layer}.${name}.weight`, initializerRange, slices, { unit, split: true, across: true }),
        vector(`h${layer}.${name}.bias`, "zeros", parts.map((part) => ({ ...bias, rows: part })), {
          unit,
          split: true,
        }),
      );
    };
    /** Inputs split: rows of the weights. */
    const rows = (name: string, inputs: number, part: readonly [number, number]) =>
      list.push(
        matrix(
          `h${layer}.${name}.weight`,
          residual,
          [{ name: source(`${name}.weight`), shape: [inputs, width], rows: part }],
          { unit, split: true },
        ),
        vector(`h${layer}.${name}.bias`, "zeros", [{ name: source(`${name}.bias`), shape: [width] }], { unit }),
      );
    norm("ln_1");
    columns("attn.c_attn", 3 * width, shard.size === 1 ? [[0, 3 * width]] : heads);
    rows("attn.c_proj", width, [shard.index * own, own]);
    norm("ln_2");
    columns("mlp.c_fc", hiddenWidth, [hidden]);
    rows("mlp.c_proj", hiddenWidth, hidden);
  }
  const unit = 1 + layers;
  list.push(
    vector("ln_f.weight", "ones", [{ name: "transformer.ln_f.weight", shape: [width] }], { unit }),
    vector("ln_f.bias", "zeros", [{ name: "transformer.ln_f.bias", shape: [width] }], { unit }),
  );
  if (!tied) list.push(table("lm_head", "lm_head.weight", unit));
  return list;
}

function norm(forward: Forward, x: Tensor, name: string): Tensor {
  const inputs = [x, parameter(forward, `${name}.weight`), parameter(forward, `${name}.bias`)];
  return forward.graph.add(layernorm, inputs, { epsilon: forward.configuration.normEpsilon }, { name })[0];
}

/** Token and position embeddings. */
export function gpt2Embed(forward: Forward): Tensor {
  return embed(forward, "wte", "wpe");
}

/** A block: `[N, width]` to `[N, width]`. */
export function gpt2Block(forward: Forward, x: Tensor, layer: number): Tensor {
  const h = `h${layer}`;
  const attended = enter(forward, norm(forward, x, `${h}.ln_1`));
  const qkv = project(forward, attended, `${h}.attn.c_attn.weight`, "NN", `${h}.attn.c_attn.bias`);
  const middle = linearResidual(forward, attend(forward, qkv, layer), `${h}.attn.c_proj.weight`, "NN", {
    bias: `${h}.attn.c_proj.bias`,
    residual: x,
    site: 2 * layer + 1,
  });
  const normed = enter(forward, norm(forward, middle, `${h}.ln_2`));
  const { activated, inner } = linearGelu(forward, normed, `${h}.mlp.c_fc.weight`, {
    bias: `${h}.mlp.c_fc.bias`,
    name: `${h}.gelu`,
  });
  return linearResidual(forward, activated, `${h}.mlp.c_proj.weight`, "NN", {
    bias: `${h}.mlp.c_proj.bias`,
    residual: middle,
    site: 2 * layer + 2,
    activated: inner,
  });
}

/** The final norm. */
export function gpt2Norm(forward: Forward, x: Tensor): Tensor {
  return norm(forward, x, "ln_f");
}
