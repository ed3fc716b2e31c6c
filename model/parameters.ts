/**
 * What a model's parameters are: shapes, initial values, and the tensors of a Hugging Face checkpoint they hold.
 * @module
 */

import type { ModelConfiguration } from "./configuration.ts";

/** A rectangle of a tensor of a Hugging Face checkpoint, and where in a parameter it lies. Vectors have one column. */
export interface ParameterSource {
  /** Name in the checkpoint. */
  readonly name: string;
  /** Shape of the whole tensor in the checkpoint. */
  readonly shape: readonly number[];
  /** Of the checkpoint's tensor: first row and number of rows. */
  readonly rows: readonly [number, number];
  readonly columns: readonly [number, number];
  /** Its first row and column in the parameter. */
  readonly row: number;
  readonly column: number;
}

/** One parameter, or a rank's share of it. What no source covers is padding and stays 0. */
export interface Parameter {
  /** Name in graphs and messages. */
  readonly name: string;
  /** 0: embeddings; 1 + layer: a block; behind the last block: final norm and head. */
  readonly unit: number;
  readonly shape: readonly number[];
  readonly sources: readonly ParameterSource[];
  /** How each source starts. */
  readonly initial: "normal" | "zeros" | "ones";
  /** Of `normal`. */
  readonly standardDeviation: number;
  /** True if weight decay applies: matrices, not biases and norms. */
  readonly decay: boolean;
  /** True if each rank of a tensor-parallel group holds another share; false if all hold the same. */
  readonly split: boolean;
  /** Rows that the ranks of the group `keyValue` hold alike, although the parameter is split: first row and number. */
  readonly alike?: readonly [number, number];
}

/** Rows of the token table are padded to a multiple of this, so that every matrix product has whole vectors. */
export const vocabularyPadding = 64;

/** Rows of the whole token table in memory. */
export function paddedVocabulary(configuration: ModelConfiguration): number {
  return Math.ceil(configuration.vocabularySize / vocabularyPadding) * vocabularyPadding;
}

/** A rectangle of a checkpoint's tensor: all of it, or some rows or columns. */
export interface Slice {
  readonly name: string;
  readonly shape: readonly number[];
  readonly rows?: readonly [number, number];
  readonly columns?: readonly [number, number];
}

/** What all parameters have. */
interface Common {
  readonly unit: number;
  readonly split?: boolean;
}

function place(slices: readonly Slice[], across: boolean): ParameterSource[] {
  let at = 0;
  return slices.map(({ name, shape, rows = [0, shape[0]], columns = [0, shape[1] ?? 1] }) => {
    const source = { name, shape, rows, columns, row: across ? 0 : at, column: across ? at : 0 };
    at += across ? columns[1] : rows[1];
    return source;
  });
}

/** A matrix drawn from a normal distribution, of slices one below the other or (`across`) side by side. */
export function matrix(
  name: string,
  standardDeviation: number,
  slices: readonly Slice[],
  options: Common & { across?: boolean; rows?: number; alike?: readonly [number, number] | undefined },
): Parameter {
  const sources = place(slices, options.across ?? false);
  const rows = options.rows ?? Math.max(...sources.map((source) => source.row + source.rows[1]));
  const columns = Math.max(...sources.map((source) => source.column + source.columns[1]));
  return {
    name,
    unit: options.unit,
    shape: [rows, columns],
    sources,
    initial: "normal",
    standardDeviation,
    decay: true,
    split: options.split ?? false,
    ...(options.alike ? { alike: options.alike } : {}),
  };
}

/** A vector of zeros or ones: bias, norm; slices one behind the other. */
export function vector(
  name: string,
  initial: "zeros" | "ones",
  slices: readonly Slice[],
  { unit, split = false }: Common,
): Parameter {
  const sources = place(slices, false);
  const length = sources.reduce((sum, { rows }) => sum + rows[1], 0);
  return { name, unit, shape: [length], sources, initial, standardDeviation: 0, decay: false, split };
}
