/**
 * Parameters in banks: those that become ready together lie one behind the other, so that the optimizer takes a bank with
 * one dispatch and a group of ranks sums a bank's gradients with one collective (a bank is a bucket).
 *
 * With sharding (Rajbhandari et al., "ZeRO", 2020) a rank's optimizer owns an equal part of each bank; from `zero` 2 on the
 * whole gradients, from 3 on the whole weights are declared here but get no memory: `sharding.ts` puts tensors that live
 * shortly in their places.
 * @module
 */

import { clip, type Run } from "../graph/collective.ts";
import type { Graph } from "../graph/graph.ts";
import {
  alignedElements,
  type DataType,
  elementCount,
  isHalf,
  type Precision,
  type Role,
  rowSize,
  type Tensor,
} from "../graph/tensor.ts";
import type { Shard } from "../model/part.ts";
import type { Parameter } from "../model/parameters.ts";
import type { RankLayout } from "./rank_layout.ts";

/** A parameter with the tensors that belong to it. */
export interface TrainedParameter {
  readonly parameter: Parameter;
  readonly tensor: Tensor;
  /** Absent where nothing is trained. */
  readonly gradient: Tensor | undefined;
}

/** What the optimizer of this rank keeps of a bank. */
export interface OptimizerShard {
  /** Elements of the bank. */
  readonly owned: Run;
  /**
   * Flat tensors that have them: the bank's own, or from some level of sharding on those of a shard. Weights that are
   * computed with in half are updated in f32, in a tensor of the optimizer's.
   */
  readonly weights: Tensor;
  readonly gradients: Tensor;
  /** Where in these they begin. */
  readonly weightsStart: number;
  readonly gradientsStart: number;
  /** Where the updated weights are put in half. */
  readonly copy: { readonly tensor: Tensor; readonly start: number } | undefined;
  readonly firstMoment: Tensor;
  readonly secondMoment: Tensor;
  /** How many of them, from the first on, decay. */
  readonly decayed: number;
  /** Runs of `gradients` whose squares this rank counts in the global norm: everything counts on one rank only. */
  readonly counted: readonly Run[];
}

/** A bank. */
export interface ParameterBank {
  readonly name: string;
  readonly members: readonly TrainedParameter[];
  /** First element of each member. */
  readonly offsets: readonly number[];
  /** Elements, padding included. */
  readonly length: number;
  /** Flat view of the weights. */
  readonly weights: Tensor;
  readonly gradients: Tensor | undefined;
  readonly optimizer: OptimizerShard | undefined;
}

/** How banks are made. */
export interface BankOptions {
  readonly training: boolean;
  /** Largest number of elements in a bank, but for a single parameter that has more. */
  readonly bucketElements: number;
  /** This rank among the copies of the model on this machine. */
  readonly data: Shard;
  /** Machines whose gradients are added up. */
  readonly machines: number;
  readonly zero: RankLayout["zero"];
  /** The optimizer's state is in host memory: on the device only while a bank is updated. */
  readonly offload: boolean;
  readonly precision: Precision;
  readonly tensor: Shard;
  readonly sequenceParallel: boolean;
  /** Name of the token table if a stage before holds it too. */
  readonly tiedCopy: string | undefined;
  /** Its name if a stage behind holds it too. */
  readonly tiedOriginal: string | undefined;
  readonly keyValueHeads: number;
}

/** Groups parameters in the order in which their gradients become ready, so that a bank is ready early. */
function buckets(parameters: readonly Parameter[], options: BankOptions): Parameter[][] {
  const { bucketElements, zero, tiedCopy, tiedOriginal } = options;
  const groups: Parameter[][] = [];
  let elements = 0;
  let last: Parameter | undefined;
  const isTied = ({ name }: Parameter) => name === tiedCopy || name === tiedOriginal;
  for (const parameter of [...parameters].sort((a, b) => b.unit - a.unit)) {
    const own = elementCount(parameter);
    // Shards of a tied table must be alike on both stages, so it has a bank of its own; what is gathered is a block at most.
    const apart = last !== undefined &&
      ((zero >= 2 && (isTied(parameter) || isTied(last))) || (zero >= 3 && parameter.unit !== last.unit));
    if (groups.length === 0 || apart || elements + own > bucketElements) {
      groups.push([]);
      elements = 0;
    }
    groups[groups.length - 1].push(parameter);
    elements += own;
    last = parameter;
  }
  // What decays comes first.
  return groups.map((group) => [...group.filter((p) => p.decay), ...group.filter((p) => !p.decay)]);
}

/** Elements of banks are multiples of this, so that shards are equal. */
export function bankUnit({ zero, data }: BankOptions): number {
  return alignedElements * (zero > 0 ? data.size : 1);
}

/** The type in which a bank's weights are computed with: kernels take four elements of a half at a time. */
function weightType(group: readonly Parameter[], { precision }: BankOptions): Precision {
  return group.every(({ shape }) => shape[shape.length - 1] % 4 === 0) ? precision : "f32";
}

/** Names of the host memories that a bank may have. */
export const hostNames = {
  weights: (bank: string): string => `weights of ${bank}`,
  master: (bank: string): string => `f32 weights of ${bank}`,
  firstMoment: (bank: string): string => `first moment of ${bank}`,
  secondMoment: (bank: string): string => `second moment of ${bank}`,
};

/** Elements of the host memories that ranks which share a batch have in common: with `zero` 3 the weights. */
export function sharedHostElements(parameters: readonly Parameter[], options: BankOptions): Map<string, number> {
  if (options.zero < 3) return new Map();
  const banks = buckets(parameters, options);
  return new Map(banks.map((group, number) => [hostNames.weights(`bank ${number}`), placesIn(group, options).length]));
}

/** Where the members of a bank begin, and its length: in elements, padding included. */
function placesIn(group: readonly Parameter[], options: BankOptions): { offsets: number[]; length: number } {
  const unit = bankUnit(options);
  let at = 0;
  const offsets = group.map((parameter) => {
    const offset = at;
    at += Math.ceil(elementCount(parameter) / alignedElements) * alignedElements;
    return offset;
  });
  return { offsets, length: Math.ceil(at / unit) * unit };
}

/** Declares weights and, for training, gradients and optimizer state of `parameters`. */
export function makeBanks(graph: Graph, parameters: readonly Parameter[], options: BankOptions): ParameterBank[] {
  const { training } = options;
  const unit = bankUnit(options);
  return buckets(parameters, options).map((group, number) => {
    const name = `bank ${number}`;
    const declare = (role: Role, prefix: string, dtype: DataType = "f32") => {
      const tensors = group.map((p) => graph.tensor(`${prefix}${p.name}`, p.shape, role, { dtype }));
      return { tensors, flat: graph.bank(`${prefix}${name}`, role, tensors, unit) };
    };
    const weights = declare("parameter", "", weightType(group, options));
    const gradients = training ? declare("gradient", "gradient of ") : undefined;
    const members = group.map((parameter, i): TrainedParameter => ({
      parameter,
      tensor: weights.tensors[i],
      gradient: gradients?.tensors[i],
    }));
    const bank = {
      name,
      members,
      ...placesIn(group, options),
      weights: weights.flat,
      gradients: gradients?.flat,
    };
    return { ...bank, optimizer: gradients && optimizerShard(graph, bank, weights.flat, gradients.flat, options) };
  });
}

type BareBank = Omit<ParameterBank, "optimizer">;

function optimizerShard(
  graph: Graph,
  bank: BareBank,
  weights: Tensor,
  gradients: Tensor,
  options: BankOptions,
): OptimizerShard {
  const { data, zero, offload } = options;
  const share = bank.length / data.size;
  const owned = zero > 0 ? { start: data.index * share, length: share } : { start: 0, length: bank.length };
  const state = (prefix: string, role: Role) =>
    zero > 0 ? graph.tensor(`${prefix}${bank.name}`, [owned.length], role) : graph.bank(
      `${prefix}${bank.name}`,
      role,
      bank.members.map(({ parameter }) => graph.tensor(`${prefix}${parameter.name}`, parameter.shape, role)),
    );
  const kept: Role = offload ? "activation" : "optimizer";
  const half = isHalf(weights.dtype);
  const firstPlain = bank.members.findIndex(({ parameter }) => !parameter.decay);
  const decayed = firstPlain < 0 ? bank.length : bank.offsets[firstPlain];
  const own = zero > 0 || data.index === 0 ? [owned] : [];
  const counted = own.flatMap((run) => clip(run, countedRuns(bank, options)));
  const gradientsStart = zero >= 2 ? 0 : owned.start;
  return {
    owned,
    weights: half ? state("f32 weights of ", kept) : zero >= 3 ? state("shard of ", "optimizer") : weights,
    gradients: zero >= 2 ? graph.tensor(`gradient shard of ${bank.name}`, [owned.length], "gradient") : gradients,
    weightsStart: half || zero >= 3 ? 0 : owned.start,
    gradientsStart,
    copy: half ? copyOf(graph, bank, weights, owned, zero) : undefined,
    firstMoment: state("first moment of ", kept),
    secondMoment: state("second moment of ", kept),
    decayed: Math.min(owned.length, Math.max(0, decayed - owned.start)),
    counted: counted.map(({ start, length }) => ({ start: start - owned.start + gradientsStart, length })),
  };
}

/** Where a rank's part of the weights is in half: with `zero` 3 it lives shortly, on its way to host memory. */
function copyOf(graph: Graph, bank: BareBank, weights: Tensor, { start, length }: Run, zero: RankLayout["zero"]) {
  if (zero < 3) return { tensor: weights, start };
  const { dtype } = weights;
  return { tensor: graph.tensor(`shard of ${bank.name}`, [length], "activation", { dtype }), start: 0 };
}

/** True for the rank that answers for what several ranks of a tensor-parallel group hold alike. */
function answersFor(parameter: Parameter, { tensor }: BankOptions): boolean {
  return parameter.split || tensor.index === 0;
}

/**
 * Runs of a bank that count in the norm, were the bank not shared by data-parallel ranks: as few as can be. The padding behind
 * a member is zero and counts along.
 */
function countedRuns(bank: BareBank, options: BankOptions): Run[] {
  const copies = options.tensor.size / options.keyValueHeads;
  const runs = bank.members.flatMap(({ parameter }, i): Run[] => {
    if (!answersFor(parameter, options) || parameter.name === options.tiedCopy) return [];
    const start = bank.offsets[i];
    const length = (bank.offsets[i + 1] ?? bank.length) - start;
    if (!parameter.alike || options.tensor.index % copies === 0) return [{ start, length }];
    const [row, rows] = parameter.alike;
    const width = rowSize(parameter);
    return [{ start, length: row * width }, {
      start: start + (row + rows) * width,
      length: length - (row + rows) * width,
    }].filter((run) => run.length > 0);
  });
  const merged: Run[] = [];
  for (const { start, length } of runs) {
    const last = merged.pop();
    if (last && last.start + last.length === start) merged.push({ start: last.start, length: last.length + length });
    else merged.push(...(last ? [last] : []), { start, length });
  }
  return merged;
}
