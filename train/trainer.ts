/**
 * Training: from settings to a checkpoint. This is the coordinator: it prepares data and model, starts the rank, writes
 * checkpoints and metrics, and watches that something happens.
 * @module
 */

import { MachineError, messageOf, UserError } from "../errors.ts";
import { parameterCount } from "../model/configuration.ts";
import { latestCheckpoint, saveCheckpoint } from "./checkpoint.ts";
import type { TrainEvent } from "./events.ts";
import { type PreparedRun, prepareRun } from "./prepare_run.ts";
import { startRank } from "./rank.ts";
import { controlSlots, type RankMessage, unpackFailure } from "./rank_protocol.ts";
import { MetricsFile } from "./run_folder.ts";
import type { GivenSettings } from "./settings.ts";
import { version } from "./version.ts";

/** Without a sign of life from the device for this long, in ms, a run is given up. First steps compile kernels. */
const stallMilliseconds = 10 * 60_000;

/** Time that a device gets to finish its step when the run has failed elsewhere, in ms. */
const stopMilliseconds = 60_000;

/** Time for a rank's thread to let go of its driver; Deno does not tell when a Worker is gone. In ms. */
const unloadMilliseconds = 100;

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

/** Trains a model. Rejects with `UserError` or `MachineError`. */
export async function train(given: GivenSettings, hooks: TrainHooks = {}): Promise<TrainResult> {
  const onEvent = hooks.onEvent ?? (() => {});
  const prepared = await prepareRun(given, onEvent);
  const { job, run } = prepared;
  const settings = { ...prepared.settings, out: run };
  Deno.writeTextFileSync(`${run}/settings.json`, JSON.stringify(settings, null, 2));
  const metrics = new MetricsFile(run, job.firstStep);
  const tell = (event: TrainEvent) => {
    metrics.write(event);
    onEvent(event);
  };
  try {
    return await coordinate({ ...prepared, settings }, tell, hooks.signal);
  } catch (error) {
    const exitCode = error instanceof UserError ? 2 : 1;
    metrics.write({ event: "error", message: messageOf(error), exitCode });
    throw withLastCheckpoint(error, run);
  } finally {
    metrics.close();
  }
}

/** Adds to a machine's fault what was kept and how to go on. */
function withLastCheckpoint(error: unknown, run: string): unknown {
  if (!(error instanceof MachineError) || error.message.includes(run)) return error;
  const last = latestCheckpoint(run);
  const rest = last
    ? `the last checkpoint is ${last}: go on with \`muster train --resume ${run}\``
    : "no checkpoint was saved yet";
  const fuller = new MachineError(`${error.message}; ${rest}`, { restartable: error.restartable });
  if (error.stack) fuller.stack = error.stack;
  return fuller;
}

function coordinate(
  prepared: PreparedRun,
  tell: (event: TrainEvent) => void,
  signal?: AbortSignal,
): Promise<TrainResult> {
  const { settings, run, job, tokenizerFiles, dataHash } = prepared;
  const { configuration, sequenceLength, firstStep } = job;
  const control = new Int32Array(job.control);
  const tokensPerStep = settings.batchSize * sequenceLength;
  const started = performance.now();
  let loss = NaN;
  let validationLoss = NaN;
  let path = "";
  let saving: Promise<unknown> = Promise.resolve();

  return new Promise((resolve, reject) => {
    const worker = startRank(0, job);
    let heartbeat = -1;
    let alive = performance.now();
    const watch = setInterval(() => {
      const now = Atomics.load(control, controlSlots.heartbeat);
      if (now !== heartbeat) alive = performance.now();
      heartbeat = now;
      if (performance.now() - alive < stallMilliseconds) return;
      const minutes = stallMilliseconds / 60_000;
      fail(
        new MachineError(`The device has done nothing for ${minutes} minutes: its driver hangs`, { restartable: true }),
      );
    }, 1000);
    const stop = () => void Atomics.store(control, controlSlots.stop, 1);
    signal?.addEventListener("abort", stop);
    if (signal?.aborted) stop();
    let patience: ReturnType<typeof setTimeout> | undefined;
    const end = () => {
      clearInterval(watch);
      clearTimeout(patience);
      signal?.removeEventListener("abort", stop);
    };
    // A Worker that is ended while its device works takes the process with it, and so does a process that ends while a
    // Worker's driver is being unloaded: a rank is asked to stop, ends by itself, and is given a moment to be gone.
    const settle = (then: () => void) => {
      end();
      setTimeout(then, unloadMilliseconds);
    };
    let failure: unknown;
    const fail = (error: unknown) => {
      if (failure !== undefined) return;
      failure = error;
      stop();
      Atomics.add(control, controlSlots.saved, 1 << 20);
      Atomics.notify(control, controlSlots.saved);
      patience = setTimeout(() => abandon(error), stopMilliseconds);
    };
    const giveUp = (error: unknown) => {
      // A checkpoint under way is finished first: it may be what the run goes on from.
      const after = () => settle(() => reject(error));
      saving.then(after, after);
    };
    const abandon = (error: unknown) => {
      worker.terminate();
      giveUp(error);
    };

    worker.onerror = (event) => {
      event.preventDefault();
      abandon(new MachineError(`The device's Worker failed: ${event.message}`, { restartable: true }));
    };
    worker.onmessage = ({ data }: MessageEvent<RankMessage>) => {
      switch (data.type) {
        case "ready":
          return tell({
            event: "start",
            config: settings,
            run,
            device: data.device,
            parameters: parameterCount(configuration),
            vocabularySize: configuration.vocabularySize,
            microBatchSize: data.microBatchSize,
            bytes: data.bytes,
            memory: data.memory,
            firstStep,
          });
        case "step": {
          loss = data.loss;
          const { type: _, milliseconds, ...rest } = data;
          const tokens = (data.step - firstStep) * tokensPerStep;
          const tokensPerSecond = tokensPerStep / (milliseconds / 1e3);
          return tell({ event: "step", ...rest, tokens, tokensPerSecond, milliseconds });
        }
        case "evaluation":
          validationLoss = data.loss;
          return tell({ event: "evaluation", step: data.step, loss: data.loss });
        case "checkpoint": {
          if (failure !== undefined) return;
          const trainer = { muster: version, settings, dataHash, sequenceLength, loss, validationLoss };
          const { step, weights, optimizer } = data;
          saving = saveCheckpoint(
            run,
            { step, configuration, tokenizerFiles, weights, optimizer, trainer },
            settings.keep,
          )
            .then((saved) => {
              path = saved;
              Atomics.add(control, controlSlots.saved, 1);
              Atomics.notify(control, controlSlots.saved);
              tell({ event: "checkpoint", step, path });
            });
          saving.catch(fail);
          return;
        }
        case "done":
          if (failure !== undefined) return giveUp(failure);
          return void saving.then(() => {
            const seconds = (performance.now() - started) / 1e3;
            const { step, stopped } = data;
            tell({ event: "done", step, loss, validationLoss, seconds, checkpoint: path, stopped });
            settle(() => resolve({ run, step, loss, validationLoss, seconds, checkpoint: path, stopped }));
          }, () => {});
        case "failed":
          return giveUp(failure ?? unpackFailure(data.failure));
      }
    };
  });
}
