/**
 * What a rank of several holds and does, as the graphs of its part of the model need to know.
 * @module
 */

import type { ModelConfiguration } from "../model/configuration.ts";
import type { Precision } from "../graph/tensor.ts";
import { type ModelPart, type Shard, wholeModel } from "../model/part.ts";
import type { Action } from "../parallel/schedules.ts";

/** What a rank of several does. */
export interface RankLayout {
  /** Its parts of the model, in order, and their places among all parts. */
  readonly parts: readonly ModelPart[];
  readonly indices: readonly number[];
  /** Parts in all. */
  readonly total: number;
  /** Place among the copies of the model on this machine. */
  readonly data: Shard;
  /** What these copies share out: 1: optimizer state; 2: gradients too; 3: parameters too. */
  readonly zero: 0 | 1 | 2 | 3;
  /** Activations that backward computes again. */
  readonly recompute: "none" | "selective" | "block";
  /** The optimizer's state is in host memory. */
  readonly offload: boolean;
  readonly precision: Precision;
  readonly bucketElements: number;
  /** Micro-batches under way at once, for each part. */
  readonly slots: number;
  /** Gradients of weights in a segment of their own. */
  readonly splitWeights: boolean;
  /** Number of ranks of this machine. */
  readonly world: number;
  /** Machines whose gradients are added up. */
  readonly machines: number;
}

/** What a data-parallel copy of the model takes of a batch. */
export interface Copy {
  /** Sequences of a step. */
  readonly share: number;
  /** Sequences computed at a time. Left to the rank if it is alone. */
  readonly microBatchSize: number | undefined;
}

/** The layout of one rank alone. */
export function soleRank(configuration: ModelConfiguration, precision: Precision = "f32"): RankLayout {
  return {
    parts: [wholeModel(configuration)],
    indices: [0],
    total: 1,
    data: { size: 1, index: 0 },
    zero: 0,
    recompute: "none",
    offload: false,
    precision,
    bucketElements: Infinity,
    slots: 1,
    splitWeights: false,
    world: 1,
    machines: 1,
  };
}

/** Names of a segment of part `chunk` for the micro-batch in `slot`; a part that is the whole model trains in one. */
export function segmentName(kind: Action["kind"], layout: RankLayout, chunk: number, slot: number): string {
  return layout.total === 1 ? "train" : `${kind} ${chunk}.${slot}`;
}

/** Place in `ModelGraph.slots`. */
export function slotIndex(layout: RankLayout, chunk: number, slot: number): number {
  return chunk * layout.slots + slot;
}

/** What to build. */
export interface ModelGraphOptions {
  readonly configuration: ModelConfiguration;
  /** Sequences in a micro-batch. */
  readonly batch: number;
  readonly sequenceLength: number;
  /** Segments wanted; `train` brings `update`. */
  readonly segments: readonly ("train" | "evaluate" | "decode")[];
  /** Of `decode`: rows of the blocks of tokens that go through at once; 1 if left out. */
  readonly blockRows?: readonly number[];
  /** Probability of dropout while training. */
  readonly dropout?: number;
  /** Keep the logits and hidden states of `evaluate` for reading. */
  readonly observe?: boolean;
  /** Most bytes of logits that are there at once (tests force little); see `loss.ts`. */
  readonly logitsBytes?: number;
  /** One rank alone if left out. */
  readonly layout?: RankLayout;
}
