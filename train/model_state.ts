/**
 * Where the state of a model is kept: weights, gradients and the optimizer's moments, in banks and in checkpoints.
 * @module
 */

import type { TensorReader } from "../data/safetensors.ts";
import { UserError } from "../errors.ts";
import type { Run } from "../graph/collective.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { ParameterSource } from "../model/parameters.ts";
import { hostNames, type ParameterBank } from "./parameter_banks.ts";
import type { RankLayout } from "./rank_layout.ts";

/** Which of a parameter's tensors is meant. */
export type StateKind = "weights" | "gradient" | "firstMoment" | "secondMoment";

/** Prefixes under which optimizer state is saved: PyTorch's names for AdamW's. */
export const statePrefixes = { firstMoment: "exp_avg.", secondMoment: "exp_avg_sq." } as const;

/** Where a kind of state of a bank is kept, and the elements of the bank that it covers. */
export interface StatePlace {
  readonly run: Run;
  readonly tensor: Tensor;
  /** Name of the host memory that it is in instead of in the tensor. */
  readonly host?: string;
}

/** Where `bank` keeps a kind of state on a rank of this layout. */
export function placeOf(bank: ParameterBank, kind: StateKind, { zero, offload }: RankLayout): StatePlace {
  const whole = { start: 0, length: bank.length };
  const { optimizer } = bank;
  if (kind === "weights") {
    if (!optimizer || optimizer.weights === bank.weights) return { tensor: bank.weights, run: whole };
    const host = offload && optimizer.copy ? { host: hostNames.master(bank.name) } : {};
    return { tensor: optimizer.weights, run: optimizer.owned, ...host };
  }
  if (!optimizer || !bank.gradients) throw new Error("Nothing is trained here");
  if (kind === "gradient") {
    return zero < 2 ? { tensor: bank.gradients, run: whole } : { tensor: optimizer.gradients, run: optimizer.owned };
  }
  const host = offload ? { host: hostNames[kind](bank.name) } : {};
  return { tensor: optimizer[kind], run: optimizer.owned, ...host };
}

/** True if copies of the model have each a part of a kind of state. */
export function isSharedOut(banks: readonly ParameterBank[], kind: StateKind, layout: RankLayout): boolean {
  return banks.some((bank) => placeOf(bank, kind, layout).run.length < bank.length);
}

/** Calls `copy(from, to, length)` for each run that a source and a bank's flat array have in common. */
export function eachRun(
  bank: ParameterBank,
  member: number,
  source: ParameterSource,
  copy: (inSource: number, inBank: number, length: number) => void,
): void {
  const width = bank.members[member].parameter.shape[1] ?? 1;
  const sourceWidth = source.shape[1] ?? 1;
  const { rows, columns, row, column } = source;
  const first = bank.offsets[member] + row * width + column;
  const start = rows[0] * sourceWidth + columns[0];
  if (columns[1] === width && columns[1] === sourceWidth) return copy(start, first, rows[1] * width);
  for (let r = 0; r < rows[1]; r++) copy(start + r * sourceWidth, first + r * width, columns[1]);
}

/** GPT-2's own files leave out the prefix that transformers writes today. */
export function storedName(reader: TensorReader, name: string): string {
  const short = name.replace(/^transformer\./, "");
  return !reader.tensors.has(name) && reader.tensors.has(short) ? short : name;
}

/** Throws `UserError` unless the checkpoint has the tensor `name` in the shape that the model needs. */
export function checkShape(reader: TensorReader, name: string, source: ParameterSource): void {
  const entry = reader.tensors.get(name);
  if (!entry) throw new UserError(`The checkpoint has no tensor ${name}: it is of another model`);
  if (entry.shape.join() !== source.shape.join()) {
    throw new UserError(
      `Tensor ${name} of the checkpoint is [${entry.shape.join(", ")}], but the model's is [${
        source.shape.join(", ")
      }]`,
    );
  }
}
