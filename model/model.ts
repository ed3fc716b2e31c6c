/**
 * A model as its family's parameters and forward pass, and its initial weights.
 * @module
 */

import { fillNormal } from "../graph/random.ts";
import { elementCount, type Tensor } from "../graph/tensor.ts";
import type { ModelConfiguration } from "./configuration.ts";
import { gpt2Block, gpt2Embed, gpt2Norm, gpt2Parameters } from "./gpt2.ts";
import { enter, type Forward, linear } from "./layers.ts";
import { llamaBlock, llamaEmbed, llamaNorm, llamaParameters } from "./llama.ts";
import type { Parameter } from "./parameters.ts";
import type { ModelPart, Shard } from "./part.ts";

/** Told of hidden states under their names in references. */
export type Observer = (name: string, hidden: Tensor) => void;

/** What a family of models consists of. */
export interface Family {
  /** All parameters, of a rank's share of each. */
  parameters(configuration: ModelConfiguration, shard: Shard): Parameter[];
  embed(forward: Forward): Tensor;
  block(forward: Forward, x: Tensor, layer: number): Tensor;
  /** The norm behind the last block. */
  norm(forward: Forward, x: Tensor): Tensor;
  /** Name of the token table, which is a tied model's output projection too. */
  readonly table: string;
}

/** The families by the name that configurations use. */
export const families: Record<ModelConfiguration["family"], Family> = {
  gpt2: { parameters: gpt2Parameters, embed: gpt2Embed, block: gpt2Block, norm: gpt2Norm, table: "wte" },
  llama: { parameters: llamaParameters, embed: llamaEmbed, block: llamaBlock, norm: llamaNorm, table: "embed_tokens" },
};

/** The parameters of a part of a model. */
export function partParameters(configuration: ModelConfiguration, part: ModelPart): Parameter[] {
  const all = families[configuration.family].parameters(configuration, part.tensor);
  return all.filter(({ unit, decay, sources }) => {
    if (unit === 0) {
      // A tied head needs the token table, whose source is the first of all.
      return part.embedding || (part.head && configuration.tied && decay && sources[0].name === all[0].sources[0].name);
    }
    if (unit === 1 + configuration.layers) return part.head;
    return unit - 1 >= part.layers[0] && unit - 1 < part.layers[1];
  });
}

/**
 * The forward pass of a part: from tokens, or from the part before's `[N, width]`, to `[N, width]`; where the head is, to
 * what `outputProjection` takes.
 */
export function forwardPass(forward: Forward, hidden?: Tensor, observe?: Observer): Tensor {
  const { configuration, part } = forward;
  const family = families[configuration.family];
  let x = part.embedding ? family.embed(forward) : hidden!;
  if (part.embedding) observe?.("hidden.0", x);
  for (let layer = part.layers[0]; layer < part.layers[1]; layer++) {
    x = family.block(forward, x, layer);
    observe?.(`hidden.${layer + 1}`, x);
  }
  if (!part.head) return x;
  const last = family.norm(forward, x);
  observe?.("hidden.norm", last);
  return enter(forward, last);
}

/** The logits, `[N, vocabulary rows of the shard]`, of some or all rows of a forward pass that has the head. */
export function outputProjection(
  forward: Pick<Forward, "graph" | "configuration" | "parameters">,
  x: Tensor,
): Tensor {
  const { family, tied } = forward.configuration;
  return linear(forward, x, tied ? families[family].table : "lm_head", "NT");
}

/**
 * Initial values of a parameter. They depend on the seed, the names in the checkpoint and the index alone, never on
 * how the model is spread over devices.
 */
export function initialValues(parameter: Parameter, seed: number): Float32Array {
  const width = parameter.shape[1] ?? 1;
  const values = new Float32Array(elementCount(parameter));
  for (const { name, shape, rows, columns, row, column } of parameter.sources) {
    const sourceWidth = shape[1] ?? 1;
    const whole = columns[1] === sourceWidth && columns[1] === width;
    // Rows that lie behind each other in the checkpoint as well as here are drawn at once.
    const runs = whole ? [[rows[0] * sourceWidth, row * width, rows[1] * width]] : Array.from(
      { length: rows[1] },
      (_, r) => [(rows[0] + r) * sourceWidth + columns[0], (row + r) * width + column, columns[1]],
    );
    for (const [from, to, length] of runs) {
      if (parameter.initial === "ones") values.fill(1, to, to + length);
      if (parameter.initial === "normal") {
        const piece = values.subarray(to, to + length);
        fillNormal(piece, name, seed, from, parameter.standardDeviation);
      }
    }
  }
  return values;
}
