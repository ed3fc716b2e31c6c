/**
 * What the coordinator and a rank say to each other.
 * @module
 */

import type { NamedTensor } from "../data/safetensors.ts";
import { MachineError, messageOf, UserError } from "../errors.ts";
import type { Selection } from "../gpu/select.ts";
import type { TraceSpans } from "../gpu/trace.ts";
import type { ModelConfiguration } from "../model/configuration.ts";
import type { ExecutorSetup } from "../parallel/executor.ts";
import type { Mesh } from "../parallel/mesh.ts";
import { StoppedError } from "../parallel/status.ts";
import type { Copy } from "./rank_layout.ts";
import type { RunWorld } from "./run_world.ts";
import type { CompleteSettings } from "./settings.ts";

/** What a rank that trains is to do. Plain data. */
export interface RankJob {
  readonly settings: CompleteSettings;
  readonly configuration: ModelConfiguration;
  readonly sequenceLength: number;
  /** Prepared folder of tokens. */
  readonly dataFolder: string;
  /** State to go on from in memory; or a checkpoint, with optimizer state; or a model to start from. */
  readonly state: CheckpointMemory | undefined;
  readonly resumeFolder: string | undefined;
  readonly initFolder: string | undefined;
  /** Steps done before. */
  readonly firstStep: number;
  readonly control: SharedArrayBuffer;
  readonly rank: number;
  readonly mesh: Mesh;
  readonly world: RunWorld;
  /** What each copy of the model, on all machines, takes of a batch at first; a rank alone may choose its micro-batch. */
  readonly copies: readonly Copy[];
  /** This rank's copy. */
  readonly copy: number;
  /** The shares follow the measured speeds. */
  readonly rebalances: boolean;
  readonly executor: ExecutorSetup;
  /** The GPU to open. */
  readonly selection: Selection;
  /** Ranks of this machine among which the device is shared, or the cores by which software drivers compute. */
  readonly sharers: number;
  /** Tensors of the whole checkpoint, which the ranks fill together; several are used in turn, so that one is whole. */
  readonly checkpoints: readonly CheckpointMemory[];
}

/** Whole tensors under the names of the checkpoint. */
export interface CheckpointMemory {
  readonly weights: readonly NamedTensor[];
  /** With the prefixes of optimizer state. */
  readonly optimizer: readonly NamedTensor[];
}

/** Places in the control words, i32. */
export const controlSlots = {
  /** Set by the coordinator: finish the step, save, end. */
  stop: 0,
  /** Counted up by the coordinator when it has taken note of a checkpoint, and has it on the disk if it was to be saved. */
  saved: 1,
  /** Set by the coordinator: a machine waits to be let in. */
  newcomers: 2,
  /** Set by a rank when nothing more is exchanged with other machines. */
  parted: 3,
} as const;

/**
 * How long ranks wait for each other, and may themselves show no sign of life, in ms: at first, until all have made and
 * loaded their part of the model, and then.
 */
export function patienceOf({ stallTimeout }: { readonly stallTimeout: number }): { first: number; usual: number } {
  const usual = stallTimeout * 1e3;
  return { first: Math.max(10 * 60_000, usual), usual };
}

/** What a rank tells. */
export type RankMessage =
  | { readonly type: "opened" }
  | { readonly type: "compile"; readonly done: number; readonly total: number; readonly seconds: number }
  | {
    readonly type: "planned";
    readonly device: string;
    readonly microBatchSize: number;
    readonly bytes: number;
    readonly memory: string;
  }
  | {
    readonly type: "step";
    readonly step: number;
    readonly loss: number;
    readonly gradNorm: number;
    readonly learningRate: number;
    readonly milliseconds: number;
    readonly modelFlopsUtilization: number;
    readonly lossScale?: number;
    readonly skipped?: number;
    readonly collectiveMilliseconds?: number;
  }
  | { readonly type: "balance"; readonly step: number; readonly shares: readonly number[] }
  | { readonly type: "evaluation"; readonly step: number; readonly loss: number }
  /** The state is in the `slot`-th checkpoint memory; `save`: it belongs on the disk. */
  | { readonly type: "checkpoint"; readonly step: number; readonly slot: number; readonly save: boolean }
  | { readonly type: "straggler"; readonly step: number; readonly machine: number; readonly slowness: number }
  | { readonly type: "trace"; readonly spans: TraceSpans }
  // Of a rank that generates: a text's first turn begins, and a new token of it. `at`: ms since 1970 by a clock of all ranks.
  | { readonly type: "begun"; readonly text: number; readonly at: number }
  | { readonly type: "token"; readonly text: number; readonly token: number; readonly at: number }
  /** `regroups`: it ended to let a machine in. */
  | { readonly type: "done"; readonly step: number; readonly stopped: boolean; readonly regroups: boolean }
  // What went wrong is told at once, and again when the device has been let go, which may take its time.
  | { readonly type: "failing"; readonly failure: Failure }
  | { readonly type: "failed"; readonly failure: Failure };

/** An error on its way between threads. */
export interface Failure {
  readonly kind: "user" | "machine" | "bug";
  readonly message: string;
  readonly stack: string | undefined;
  readonly restartable: boolean;
  /** True if it ended because another rank failed. */
  readonly stopped: boolean;
}

/** Packs an error. */
export function packFailure(error: unknown): Failure {
  const kind = error instanceof UserError ? "user" : error instanceof MachineError ? "machine" : "bug";
  return {
    kind,
    message: messageOf(error),
    stack: error instanceof Error ? error.stack : undefined,
    restartable: error instanceof MachineError && error.restartable,
    stopped: error instanceof StoppedError,
  };
}

/** Makes an error of a packed one. */
export function unpackFailure({ kind, message, stack, restartable }: Failure): Error {
  const error = kind === "user"
    ? new UserError(message)
    : kind === "machine"
    ? new MachineError(message, { restartable })
    : new Error(message);
  if (stack) error.stack = stack;
  return error;
}
