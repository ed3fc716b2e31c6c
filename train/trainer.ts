/**
 * Training: from settings to a checkpoint. This is the coordinator: it prepares data and model, starts the rank, writes
 * checkpoints and metrics, and watches that something happens.
 * @module
 */

import { openDataset, resolveData } from "../data/dataset.ts";
import { loadTokenizer } from "../data/tokenizer.ts";
import { MachineError, messageOf, UserError } from "../errors.ts";
import { type ModelConfiguration, modelConfiguration, parameterCount, presets } from "../model/configuration.ts";
import { latestCheckpoint, openCheckpoint, saveCheckpoint } from "./checkpoint.ts";
import type { TrainEvent } from "./events.ts";
import { controlSlots, type RankJob, type RankMessage, startRank, unpackFailure } from "./rank.ts";
import { makeRunFolder, MetricsFile, nextRunFolder } from "./run_folder.ts";
import { type CompleteSettings, completeSettings, type GivenSettings } from "./settings.ts";
import { version } from "./version.ts";

/** Without a sign of life from the device for this long, in ms, a run is given up. First steps compile kernels. */
const stallMilliseconds = 10 * 60_000;

/** Hooks of a run. */
export interface TrainHooks {
  /** Told of everything that happens. */
  readonly onEvent?: (event: TrainEvent) => void;
  /** When aborted, the step under way is finished and saved, and the run ends in good order. */
  readonly signal?: AbortSignal;
}

/** How a run ended. */
export interface TrainResult {
  readonly run: string;
  readonly step: number;
  readonly loss: number;
  readonly validationLoss: number;
  readonly seconds: number;
  readonly checkpoint: string;
  readonly stopped: boolean;
}

/** Everything about a run that is settled before a device is touched. */
interface Prepared {
  readonly settings: CompleteSettings;
  readonly run: string;
  readonly job: RankJob;
  readonly tokenizerFiles: Readonly<Record<string, string>>;
  readonly dataHash: string;
}

/** What is saved in `trainer.json` besides the step. */
interface SavedState {
  readonly settings: CompleteSettings;
  readonly dataHash: string;
  readonly sequenceLength: number;
}

/** Settings, data and model of a run. */
async function prepareRun(given: GivenSettings, onEvent: (event: TrainEvent) => void): Promise<Prepared> {
  const onProgress = (message: string) => onEvent({ event: "message", message });
  let saved: SavedState | undefined;
  let resumeFolder: string | undefined;
  let firstStep = 0;
  let configuration: ModelConfiguration | undefined;
  if (given.resume !== undefined) {
    const checkpoint = await openCheckpoint(given.resume);
    checkpoint.close();
    if (!checkpoint.trainer || !checkpoint.optimizer) {
      throw new UserError(`${checkpoint.folder} has no optimizer state to resume: start from its weights with --init`);
    }
    saved = checkpoint.trainer as unknown as SavedState;
    resumeFolder = checkpoint.folder;
    firstStep = checkpoint.trainer.step;
    configuration = checkpoint.configuration;
  }
  const settings = completeSettings(given, saved?.settings ?? {});
  if (settings.devices !== "0") {
    throw new UserError(
      `--devices ${settings.devices}: this version trains on one GPU, --devices 0; see \`muster devices\``,
    );
  }
  if (saved && firstStep >= settings.steps) {
    throw new UserError(`${resumeFolder} is at step ${firstStep} already: give --steps above it to go on`);
  }
  const run = given.out ?? (resumeFolder ? runOf(resumeFolder) : settings.out) ?? nextRunFolder();

  let initFolder: string | undefined;
  if (settings.init !== undefined && !resumeFolder) {
    const checkpoint = await openCheckpoint(settings.init);
    checkpoint.close();
    initFolder = checkpoint.folder;
    configuration = checkpoint.configuration;
  }
  const dataFolder = await resolveData(settings.data, { tokenizer: settings.tokenizer, onProgress });
  const dataset = openDataset(dataFolder);
  dataset.close();
  const { vocabularySize, train } = dataset.description;
  if (saved && saved.dataHash !== train.sha256) {
    throw new UserError(
      `The data ${settings.data} are not those that ${resumeFolder} was trained on: give the same --data, ` +
        `or start anew from its weights with --init ${resumeFolder}`,
    );
  }
  if (configuration) checkModel(configuration, settings, vocabularySize, given.resume ?? settings.init!);
  const sequenceLength = settings.sequenceLength ??
    (saved
      ? saved.sequenceLength
      : Math.min(1024, configuration?.maximumSequenceLength ?? presetLength(settings) ?? 128));
  configuration ??= newConfiguration(settings, vocabularySize, sequenceLength);
  if (sequenceLength > configuration.maximumSequenceLength) {
    throw new UserError(
      `--sequence-length ${sequenceLength} is longer than the model's ${configuration.maximumSequenceLength} positions`,
    );
  }
  if (settings.dropout > 0 && configuration.width % 4 !== 0) {
    throw new UserError(`--dropout needs a --width that is a multiple of 4, not ${configuration.width}`);
  }
  makeRunFolder(run);
  const tokenizer = await loadTokenizer(dataFolder);
  return {
    settings,
    run,
    tokenizerFiles: tokenizer.files(),
    dataHash: train.sha256,
    job: {
      settings,
      configuration,
      sequenceLength,
      dataFolder,
      resumeFolder,
      initFolder,
      firstStep,
      control: new SharedArrayBuffer(64),
    },
  };
}

function runOf(checkpointFolder: string): string | undefined {
  return /^(.*)\/checkpoints\/step-\d+\/?$/.exec(checkpointFolder)?.[1];
}

function presetOf(settings: CompleteSettings) {
  if (settings.model === undefined) return undefined;
  const preset = presets[settings.model];
  if (!preset) {
    throw new UserError(`There is no model ${settings.model}: choose one of ${Object.keys(presets).join(", ")}`);
  }
  return preset;
}

function presetLength(settings: CompleteSettings): number | undefined {
  return presetOf(settings)?.maximumSequenceLength;
}

function newConfiguration(
  settings: CompleteSettings,
  vocabularySize: number,
  sequenceLength: number,
): ModelConfiguration {
  const preset = presetOf(settings) ?? {};
  const { layers, heads, kvHeads, width, family } = settings;
  return modelConfiguration({
    family,
    ...preset,
    // A width of its own makes other sizes of the preset meaningless.
    ...(width !== undefined ? { width, hiddenWidth: undefined, headSize: undefined } : {}),
    ...(layers !== undefined ? { layers } : {}),
    ...(heads !== undefined ? { heads, keyValueHeads: kvHeads ?? heads } : {}),
    ...(kvHeads !== undefined ? { keyValueHeads: kvHeads } : {}),
    vocabularySize,
    maximumSequenceLength: Math.max(sequenceLength, preset.maximumSequenceLength ?? 0),
  });
}

/** A model that is loaded must be the one that the settings describe, and know the data's tokens. */
function checkModel(
  model: ModelConfiguration,
  settings: CompleteSettings,
  vocabularySize: number,
  where: string,
): void {
  const asked = {
    layers: settings.layers,
    heads: settings.heads,
    keyValueHeads: settings.kvHeads,
    width: settings.width,
  };
  for (const [name, value] of Object.entries(asked)) {
    const own = model[name as keyof typeof asked];
    if (value !== undefined && value !== own) {
      throw new UserError(
        `The model in ${where} has ${name} ${own}, not ${value}: leave that setting out, or start a new run`,
      );
    }
  }
  if (vocabularySize > model.vocabularySize) {
    throw new UserError(
      `The data has ${vocabularySize} token ids, but the model in ${where} knows ${model.vocabularySize}: ` +
        `prepare the data with the model's tokenizer (--tokenizer ${where})`,
    );
  }
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

function coordinate(prepared: Prepared, tell: (event: TrainEvent) => void, signal?: AbortSignal): Promise<TrainResult> {
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
    const end = () => {
      clearInterval(watch);
      signal?.removeEventListener("abort", stop);
      worker.terminate();
    };
    const fail = (error: unknown) => {
      end();
      // A checkpoint under way is finished first: it may be what the run goes on from.
      saving.then(() => reject(error), () => reject(error));
    };

    worker.onerror = (event) => {
      event.preventDefault();
      fail(new MachineError(`The device's Worker failed: ${event.message}`, { restartable: true }));
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
          return void saving.then(() => {
            end();
            const seconds = (performance.now() - started) / 1e3;
            const { step, stopped } = data;
            tell({ event: "done", step, loss, validationLoss, seconds, checkpoint: path, stopped });
            resolve({ run, step, loss, validationLoss, seconds, checkpoint: path, stopped });
          }, () => {});
        case "failed":
          return fail(unpackFailure(data.failure));
      }
    };
  });
}
