/**
 * A model as its family's parameters and forward pass, and its initial weights.
 * @module
 */

import { fillNormal } from "../graph/random.ts";
import { elementCount, type Tensor } from "../graph/tensor.ts";
import type { ModelConfiguration } from "./configuration.ts";
import { gpt2Forward, gpt2Parameters } from "./gpt2.ts";
import type { Forward } from "./layers.ts";
import { llamaForward, llamaParameters } from "./llama.ts";
import type { Parameter } from "./parameters.ts";

/** What a family of models consists of. */
export interface Family {
  parameters(configuration: ModelConfiguration): Parameter[];
  forward(forward: Forward, observe?: (name: string, hidden: Tensor) => void): Tensor;
}

/** The families by the name that configurations use. */
export const families: Record<ModelConfiguration["family"], Family> = {
  gpt2: { parameters: gpt2Parameters, forward: gpt2Forward },
  llama: { parameters: llamaParameters, forward: llamaForward },
};

/**
 * Initial values of a parameter. They depend on the seed, the names in the checkpoint and the index alone, never on
 * how the model is spread over devices.
 */
export function initialValues(parameter: Parameter, seed: number): Float32Array {
  const values = new Float32Array(elementCount(parameter));
  let start = 0;
  for (const source of parameter.sources) {
    const piece = values.subarray(start, start += elementCount(source));
    if (parameter.initial === "ones") piece.fill(1);
    if (parameter.initial === "normal") fillNormal(piece, source.name, seed, 0, parameter.standardDeviation);
  }
  return values;
}
