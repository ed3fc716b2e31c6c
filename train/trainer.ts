/**
 * Training: from settings to a checkpoint. This is the coordinator: it prepares data and model, starts the ranks, and
 * writes checkpoints and metrics.
 * @module
 */

import { MachineError, messageOf, UserError } from "../errors.ts";
import { parameterCount } from "../model/configuration.ts";
import { latestCheckpoint, saveCheckpoint } from "./checkpoint.ts";
import type { TrainEvent } from "./events.ts";
import { type PreparedRun, prepareRun } from "./prepare_run.ts";
import { nameMesh } from "../parallel/mesh.ts";
import { startRanks } from "./crew.ts";
import { controlSlots, type RankMessage } from "./rank_protocol.ts";
import { MetricsFile } from "./run_folder.ts";
import type { GivenSettings } from "./settings.ts";
import { TraceFile } from "./trace_file.ts";
import { version } from "./version.ts";

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

/** Time from a failure on that a checkpoint under way gets, in ms. */
const saveMilliseconds = 4000;

/** Resolves when `promise` has settled either way, or behind so many ms. */
async function settledWithin(promise: Promise<unknown>, milliseconds: number): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<void>((resolve) => timer = setTimeout(resolve, milliseconds));
  await Promise.race([promise.catch(() => {}), late]);
  clearTimeout(timer);
}

/**
 * Trains a model. Rejects with `UserError` or `MachineError`, within five seconds of a fault. A rank that is stuck in its
 * driver then cannot be ended but with the process.
 */
export async function train(given: GivenSettings, hooks: TrainHooks = {}): Promise<TrainResult> {
  const onEvent = hooks.onEvent ?? (() => {});
  const prepared = await prepareRun(given, onEvent);
  const { jobs, run } = prepared;
  const settings = { ...prepared.settings, out: run };
  const trace = settings.trace === undefined ? undefined : new TraceFile(settings.trace);
  Deno.writeTextFileSync(`${run}/settings.json`, JSON.stringify(settings, null, 2));
  const metrics = new MetricsFile(run, jobs[0].firstStep);
  const tell = (event: TrainEvent) => {
    metrics.write(event);
    onEvent(event);
  };
  try {
    return await coordinate({ ...prepared, settings }, tell, trace, hooks.signal);
  } catch (error) {
    const exitCode = error instanceof UserError ? 2 : 1;
    try {
      metrics.write({ event: "error", message: messageOf(error), exitCode });
    } catch {
      // A full disk may be what went wrong: the first failure is the one to tell.
    }
    throw withLastCheckpoint(error, run);
  } finally {
    metrics.close();
    trace?.close();
  }
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

function coordinate(
  prepared: PreparedRun,
  tell: (event: TrainEvent) => void,
  trace: TraceFile | undefined,
  signal?: AbortSignal,
): Promise<TrainResult> {
  const { settings, run, jobs, pick, tokenizerFiles, dataHash } = prepared;
  const [job] = jobs;
  const { configuration, sequenceLength, firstStep, mesh } = job;
  const control = new Int32Array(job.control);
  const tokensPerStep = settings.batchSize * sequenceLength;
  const started = performance.now();
  let loss = NaN;
  let validationLoss = NaN;
  let path = "";
  let saving: Promise<unknown> = Promise.resolve();
  const ready = new Map<number, Extract<RankMessage, { type: "ready" }>>();

  return new Promise((resolve, reject) => {
    let result: TrainResult | undefined;
    const crew = startRanks(jobs.map((job) => ({ kind: "train", job })), {
      stallTimeout: settings.stallTimeout,
      onMessage(rank, data) {
        switch (data.type) {
          case "ready": {
            ready.set(rank, data);
            if (ready.size < jobs.length) return;
            const all = jobs.map((_, rank) => ready.get(rank)!);
            const largest = all.reduce((a, b) => b.bytes > a.bytes ? b : a);
            const device = [...new Set(all.map(({ device }) => device))].join(", ");
            trace?.nameTracks(device, jobs.length);
            return tell({
              event: "start",
              config: { ...job.settings, out: run },
              run,
              device,
              ...(jobs.length > 1 ? { mesh: nameMesh(mesh) } : {}),
              ...(pick === undefined ? {} : { pick }),
              parameters: parameterCount(configuration),
              vocabularySize: configuration.vocabularySize,
              microBatchSize: largest.microBatchSize,
              bytes: largest.bytes,
              memory: largest.memory,
              firstStep,
            });
          }
          case "step": {
            loss = data.loss;
            const { type: _, milliseconds, ...rest } = data;
            const tokens = (data.step - firstStep) * tokensPerStep;
            const tokensPerSecond = tokensPerStep / (milliseconds / 1e3);
            return tell({ event: "step", ...rest, tokens, tokensPerSecond, milliseconds });
          }
          case "balance":
            return tell({ event: "balance", step: data.step, shares: data.shares });
          case "evaluation":
            validationLoss = data.loss;
            return tell({ event: "evaluation", step: data.step, loss: data.loss });
          case "checkpoint": {
            const trainer = { muster: version, settings, dataHash, sequenceLength, loss, validationLoss };
            const { step } = data;
            saving = saveCheckpoint(
              run,
              { step, configuration, tokenizerFiles, ...job.checkpoint, trainer },
              settings.keep,
            ).then((saved) => {
              path = saved;
              Atomics.add(control, controlSlots.saved, 1);
              Atomics.notify(control, controlSlots.saved);
              tell({ event: "checkpoint", step, path });
            });
            saving.catch(crew.fail);
            return;
          }
          case "trace":
            return trace?.add(rank, data.spans);
          case "done":
            if (rank > 0) return;
            result = { run, step: data.step, loss, validationLoss, seconds: 0, checkpoint: "", stopped: data.stopped };
        }
      },
      onStall: (message) => tell({ event: "stall", message }),
    });
    const stop = () => void Atomics.store(control, controlSlots.stop, 1);
    signal?.addEventListener("abort", stop);
    if (signal?.aborted) stop();
    const finish = async () => {
      try {
        await crew.ended;
        await saving;
        const seconds = (performance.now() - started) / 1e3;
        const { step, stopped } = result!;
        tell({ event: "done", step, loss, validationLoss, seconds, checkpoint: path, stopped });
        resolve({ ...result!, seconds, checkpoint: path });
      } catch (error) {
        // A checkpoint under way may be what the run goes on from; a disk that is stuck must not hold up the end.
        await settledWithin(saving, crew.failedAt + saveMilliseconds - performance.now());
        reject(error);
      } finally {
        signal?.removeEventListener("abort", stop);
      }
    };
    finish();
  });
}
