/**
 * What a rank's loop works with, and what its parts share.
 * @module
 */

import type { Loader } from "../data/loader.ts";
import type { Peak } from "../gpu/peak.ts";
import type { Trace } from "../gpu/trace.ts";
import type { SharedMemoryExecutor } from "../parallel/executor.ts";
import type { scheduleOf } from "./launch.ts";
import type { LossScaler } from "./loss_scaling.ts";
import type { ModelProgram } from "./model_program.ts";
import type { RankJob, RankMessage } from "./rank_protocol.ts";
import { microBatchCount } from "./share_batch.ts";

/** What the loop works with. */
export interface Run {
  readonly job: RankJob;
  readonly executor: SharedMemoryExecutor;
  /** Sequences of a step that each copy of the model takes, in order. */
  shares: readonly number[];
  /** What this rank's stage of a pipeline does. */
  readonly schedule: ReturnType<typeof scheduleOf> | undefined;
  readonly model: ModelProgram;
  /** With f16. */
  readonly scaler: LossScaler | undefined;
  readonly control: Int32Array;
  readonly microBatch: number;
  readonly training: Loader;
  readonly validation: Loader;
  readonly tokens: Uint32Array;
  readonly targets: Int32Array;
  /** First sample of `training` that is in them, prepared, and how many are wanted; none behind an evaluation. */
  prepared: { readonly first: number; readonly count: number } | undefined;
  readonly post: (message: RankMessage) => void;
  /** Checkpoints that were filled so far. */
  commits: number;
  /** For how many looks in a row each machine was slow. */
  readonly slowLooks: number[];
  /** Of this rank's device. */
  readonly peak: Peak;
}

/** Sequences of a step that this rank's copy of the model takes, the first of them, and the micro-batches they make. */
export function shareOf({ shares, job, microBatch }: Run): { first: number; share: number; count: number } {
  const index = job.copy;
  const first = shares.slice(0, index).reduce((a, b) => a + b, 0);
  const share = shares[index];
  return { first, share, count: microBatchCount({ share, microBatchSize: microBatch }) };
}

/** A sign of life; ends this rank if another has failed. */
export function beat(run: Run): void {
  run.executor.alive();
}

/** Notes what this rank does from now on, as a part of `step` if it is given, for reports of stalls and the timeline. */
export function doing({ executor: { status }, job: { rank } }: Run, task: string, step?: number): void {
  status.doing(rank, step === undefined ? task : `step ${step}, ${task}`);
  status.trace?.next(step === undefined ? 0 : 1, task, "phase");
}

/** Has what this rank does recorded, or no longer. */
export function traceWith({ executor, model }: Run, trace: Trace | undefined): void {
  executor.status.trace = trace;
  model.program.device.trace = trace;
}

/** The sum over all ranks of all machines of numbers that the ranks of a tensor-parallel group have alike. */
export function sumOverRanks({ executor, job: { mesh } }: Run, what: string, values: readonly number[]): number[] {
  return executor.sumNumbers(what, values).map((sum) => sum / mesh.tensor);
}
