/**
 * Which part of a model a rank holds: some of its blocks, and of these a share of heads, hidden units and vocabulary.
 * @module
 */

import { UserError } from "../errors.ts";
import type { ModelConfiguration } from "./configuration.ts";
import { vocabularyPadding } from "./parameters.ts";

/** One of `size` equal shares. */
export interface Shard {
  readonly size: number;
  readonly index: number;
}

/** A part of a model. */
export interface ModelPart {
  /** Share within blocks, embedding and head (tensor parallelism). */
  readonly tensor: Shard;
  /** First block, and the one behind the last. */
  readonly layers: readonly [number, number];
  /** True if the token embedding is here. */
  readonly embedding: boolean;
  /** True if the last norm and the logits are here. */
  readonly head: boolean;
  /** Norms and residuals on a share of the rows each (Korthikanti et al., "Reducing Activation Recomputation", 2022). */
  readonly sequenceParallel: boolean;
}

/** All of a model. */
export function wholeModel(configuration: ModelConfiguration): ModelPart {
  return {
    tensor: { size: 1, index: 0 },
    layers: [0, configuration.layers],
    embedding: true,
    head: true,
    sequenceParallel: false,
  };
}

/** Sizes of a rank's share. */
export interface LocalSizes {
  readonly heads: number;
  readonly keyValueHeads: number;
  /** First of its key/value heads in the whole model. */
  readonly firstKeyValueHead: number;
  readonly hiddenWidth: number;
  /** Rows of the token table in memory, padding included. */
  readonly vocabularyRows: number;
  /** Token id of the first of them. */
  readonly firstToken: number;
  /** How many of them are real. */
  readonly vocabulary: number;
}

/** The sizes of `shard`, or a `UserError` that says why the model cannot be split so. */
export function localSizes(configuration: ModelConfiguration, { size, index }: Shard): LocalSizes {
  const { heads, keyValueHeads, hiddenWidth, vocabularySize } = configuration;
  if (heads % size !== 0 || hiddenWidth % size !== 0) {
    throw new UserError(
      `--tp ${size} does not divide the model's ${heads} heads and hidden width of ${hiddenWidth}: choose another`,
    );
  }
  if (keyValueHeads % size !== 0 && size % keyValueHeads !== 0) {
    throw new UserError(`--tp ${size} and the model's ${keyValueHeads} key/value heads do not divide each other`);
  }
  const unit = vocabularyPadding * size;
  const vocabularyRows = Math.ceil(vocabularySize / unit) * vocabularyPadding;
  const firstToken = index * vocabularyRows;
  return {
    heads: heads / size,
    // Fewer heads than ranks: some ranks hold the same one.
    keyValueHeads: Math.max(1, keyValueHeads / size),
    firstKeyValueHead: Math.floor(index * keyValueHeads / size),
    hiddenWidth: hiddenWidth / size,
    vocabularyRows,
    firstToken,
    vocabulary: Math.max(0, Math.min(vocabularyRows, vocabularySize - firstToken)),
  };
}
