/**
 * Training: from settings to a checkpoint. This is the coordinator: it prepares data and model, meets other machines, starts
 * the ranks, and writes checkpoints and metrics.
 * @module
 */

import { MachineError, UserError } from "../errors.ts";
import { latestCheckpoint } from "./checkpoint.ts";
import type { TrainEvent } from "./events.ts";
import { Cluster } from "./cluster.ts";
import { WorldEnded } from "./network_thread.ts";
import { prepareRun } from "./prepare_run.ts";
import { RunRecord } from "./run_record.ts";
import { RunState } from "./run_state.ts";
import { soleMachine } from "./run_world.ts";
import type { GivenSettings } from "./settings.ts";
import { tuneSelections } from "./tuning.ts";
import { trainInWorld } from "./world_training.ts";

/** Hooks of a run. */
export interface TrainHooks {
  /** Told of everything that happens. */
  readonly onEvent?: (event: TrainEvent) => void;
  /** When aborted, the step under way is finished and saved, and the run ends in good order. */
  readonly signal?: AbortSignal;
}

/** How a run ended. */
export interface TrainResult {
  /** Folder of the run. */
  readonly run: string;
  /** The last step taken. */
  readonly step: number;
  /** Training loss of that step, nats per token. */
  readonly loss: number;
  /** Nats per token, behind the last step. */
  readonly validationLoss: number;
  /** Wall time. */
  readonly seconds: number;
  /** Folder of the last checkpoint. */
  readonly checkpoint: string;
  /** True if it was asked to stop before its last step. */
  readonly stopped: boolean;
}

/** Adds to a fault that is not the user's what was kept and how to go on. */
function withLastCheckpoint(error: unknown, run: string): unknown {
  if (!(error instanceof Error) || error instanceof UserError || error.message.includes(run)) return error;
  const last = latestCheckpoint(run);
  const rest = last
    ? `the last checkpoint is ${last}: go on with \`muster train --resume ${run}\``
    : "no checkpoint was saved yet";
  const message = `${error.message}; ${rest}`;
  const fuller = error instanceof MachineError
    ? new MachineError(message, { restartable: error.restartable })
    : new Error(message);
  if (error.stack) fuller.stack = error.stack;
  return fuller;
}

/**
 * Trains a model. Rejects with `UserError` or `MachineError`, within five seconds of a fault. A rank that is stuck in its
 * driver then cannot be ended but with the process.
 */
export async function train(given: GivenSettings, hooks: TrainHooks = {}): Promise<TrainResult> {
  const started = performance.now();
  const onEvent = hooks.onEvent ?? (() => {});
  const untuned = await prepareRun(given, onEvent);
  const tuned = await tuneSelections(untuned, untuned.settings.tune, (message) => {
    onEvent({ event: "message", message });
  });
  const prepared = { ...untuned, ...tuned };
  const { run } = prepared;
  const record = new RunRecord(prepared, onEvent);
  const cluster = prepared.place && new Cluster(prepared.place, prepared, record, hooks.signal);
  const state = cluster?.state ?? new RunState(prepared, 1);
  try {
    for (;;) {
      const world = cluster ? await cluster.meet() : soleMachine(prepared.mesh);
      record.begin(world, state.step);
      try {
        const ended = await trainInWorld({ prepared, world, state, record, signal: hooks.signal, cluster });
        const parted = await cluster?.leave(ended.regroups);
        if (!ended.regroups) {
          // Who was to save the last state may not have.
          if (parted === false) await cluster!.keepState();
          const seconds = (performance.now() - started) / 1e3;
          const { regroups: _, ...result } = { ...ended, seconds };
          record.tell({ event: "done", ...result });
          return { run, ...result };
        }
      } catch (error) {
        if (!(error instanceof WorldEnded)) throw error;
        record.tell({ event: "lost", step: state.step, message: error.message });
      }
    }
  } catch (error) {
    await cluster?.end(error);
    await cluster?.keepState();
    record.failed(error);
    throw withLastCheckpoint(error, run);
  } finally {
    await cluster?.close();
    record.close();
  }
}
