/**
 * What a model's parameters are: shapes, initial values, and the tensors of a Hugging Face checkpoint they hold.
 * @module
 */

import type { ModelConfiguration } from "./configuration.ts";

/** A tensor of a Hugging Face checkpoint: rows of a parameter. */
export interface ParameterSource {
  /** Name in the checkpoint. */
  readonly name: string;
  /** Shape in the checkpoint; the extents behind the first equal the parameter's. */
  readonly shape: readonly number[];
}

/** One parameter. Its rows are those of its sources, one behind the other; rows beyond them are padding and stay 0. */
export interface Parameter {
  /** Name in graphs and messages. */
  readonly name: string;
  readonly shape: readonly number[];
  readonly sources: readonly ParameterSource[];
  /** How each source starts. */
  readonly initial: "normal" | "zeros" | "ones";
  /** Of `normal`. */
  readonly standardDeviation: number;
  /** True if weight decay applies: matrices, not biases and norms. */
  readonly decay: boolean;
}

/** Rows of the token table are padded to a multiple of this, so that every matrix product has whole vectors. */
export const vocabularyPadding = 64;

/** Rows of the token table in memory. */
export function paddedVocabulary(configuration: ModelConfiguration): number {
  return Math.ceil(configuration.vocabularySize / vocabularyPadding) * vocabularyPadding;
}

/** A matrix drawn from a normal distribution. */
export function matrix(
  name: string,
  standardDeviation: number,
  sources: readonly ParameterSource[],
  rows = sources.reduce((sum, source) => sum + source.shape[0], 0),
): Parameter {
  return { name, shape: [rows, sources[0].shape[1]], sources, initial: "normal", standardDeviation, decay: true };
}

/** A vector of zeros or ones: bias, norm. */
export function vector(name: string, initial: "zeros" | "ones", sourceName: string, length: number): Parameter {
  const sources = [{ name: sourceName, shape: [length] }];
  return { name, shape: [length], sources, initial, standardDeviation: 0, decay: false };
}
