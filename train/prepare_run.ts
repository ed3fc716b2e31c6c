/**
 * Settles what a run is before a device is touched: settings, data, model, folder.
 * @module
 */

import { type Dataset, exists, openDataset, resolveData } from "../data/dataset.ts";
import { createLoader, validationLoader } from "../data/loader.ts";
import { loadTokenizer } from "../data/tokenizer.ts";
import { UserError } from "../errors.ts";
import { noDeviceError } from "../gpu/open.ts";
import { listSelections, preparedEnvironment, prepareEnvironment } from "../gpu/select.ts";
import { type ModelConfiguration, modelConfiguration, presets } from "../model/configuration.ts";
import { openCheckpoint } from "./checkpoint.ts";
import type { TrainEvent } from "./events.ts";
import { worldSize } from "../parallel/mesh.ts";
import { layoutOf, makeCheckpointMemory, makeExecutors, planLaunch } from "./launch.ts";
import type { RankJob } from "./rank_protocol.ts";
import { makeRunFolder, nextRunFolder } from "./run_folder.ts";
import { type CompleteSettings, completeSettings, type GivenSettings } from "./settings.ts";

/** Everything about a run that is settled before a device is touched. */
export interface PreparedRun {
  readonly settings: CompleteSettings;
  readonly run: string;
  /** One for each rank. */
  readonly jobs: readonly RankJob[];
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
export async function prepareRun(given: GivenSettings, onEvent: (event: TrainEvent) => void): Promise<PreparedRun> {
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
  let settings = completeSettings(given, saved?.settings ?? {});
  const selections = listSelections();
  if (selections.length === 0) throw noDeviceError();
  const { mesh, devices, microBatchSize } = planLaunch(settings, selections);
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
  // The weights know the tokens of their own tokenizer.
  if (initFolder && given.tokenizer === undefined) {
    if (exists(`${initFolder}/tokenizer.json`)) settings = { ...settings, tokenizer: initFolder };
    else if (!exists(`${settings.data}/dataset.json`)) {
      onProgress(`${initFolder} has no tokenizer.json: text is read as bytes; --tokenizer names another`);
    }
  }
  const dataFolder = await resolveData(settings.data, { tokenizer: settings.tokenizer, onProgress });
  const dataset = openDataset(dataFolder);
  dataset.close();
  const { vocabularySize, train } = dataset.description;
  if (dataFolder === settings.data) {
    await checkTokenizer(given.tokenizer, dataset);
    settings = { ...settings, tokenizer: dataset.description.tokenizer };
  }
  if (saved && saved.dataHash !== train.sha256) {
    throw new UserError(
      `The data ${settings.data} are not those that ${resumeFolder} was trained on: give the same --data, ` +
        `or start anew from its weights with --init ${resumeFolder}`,
    );
  }
  if (configuration) checkModel(configuration, settings, given.family, vocabularySize, given.resume ?? settings.init!);
  const sequenceLength = settings.sequenceLength ??
    (saved
      ? saved.sequenceLength
      : Math.min(1024, configuration?.maximumSequenceLength ?? presetLength(settings) ?? 64));
  configuration ??= newConfiguration(settings, vocabularySize, sequenceLength);
  if (sequenceLength > configuration.maximumSequenceLength) {
    throw new UserError(
      `--sequence-length ${sequenceLength} is longer than the model's ${configuration.maximumSequenceLength} positions`,
    );
  }
  const { family, layers, heads, keyValueHeads: kvHeads, width } = configuration;
  settings = { ...settings, family, layers, heads, kvHeads, width, sequenceLength };
  // Each refuses data that is too short.
  createLoader(dataset.train, { sequenceLength, seed: settings.seed });
  validationLoader(dataset.validation, { sequenceLength, count: 1 });
  if (settings.dropout > 0 && configuration.width % 4 !== 0) {
    throw new UserError(`--dropout needs a --width that is a multiple of 4, not ${configuration.width}`);
  }
  for (let rank = 0; rank < worldSize(mesh); rank++) layoutOf(configuration, mesh, rank, settings, microBatchSize);
  const rows = (microBatchSize ?? settings.batchSize) * sequenceLength / (settings.sequenceParallel ? mesh.tensor : 1);
  if (!Number.isInteger(rows)) {
    throw new UserError(
      `--sequence-parallel needs ${mesh.tensor} ranks to share the rows of a micro-batch evenly: choose another ` +
        `--micro-batch-size or --sequence-length`,
    );
  }
  makeRunFolder(run);
  prepareEnvironment(selections);
  const control = new SharedArrayBuffer(64);
  const checkpoint = makeCheckpointMemory(configuration);
  const tokenizer = await loadTokenizer(dataFolder);
  return {
    settings,
    run,
    tokenizerFiles: tokenizer.files(),
    dataHash: train.sha256,
    jobs: makeExecutors(configuration, mesh, settings, rows * configuration.width).map((executor, rank) => ({
      settings,
      configuration,
      sequenceLength,
      dataFolder,
      resumeFolder,
      initFolder,
      firstStep,
      control,
      rank,
      mesh,
      microBatchSize,
      executor,
      checkpoint,
      selection: selections[devices[rank]],
      environment: preparedEnvironment(),
    })),
  };
}

/** The run that a checkpoint lies in; undefined where it was moved elsewhere. */
export function runOf(checkpointFolder: string): string | undefined {
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
    ...(width !== undefined && width !== preset.width ? { width, hiddenWidth: undefined, headSize: undefined } : {}),
    ...(layers !== undefined ? { layers } : {}),
    ...(heads !== undefined ? { heads, keyValueHeads: kvHeads ?? heads } : {}),
    ...(kvHeads !== undefined ? { keyValueHeads: kvHeads } : {}),
    vocabularySize,
    maximumSequenceLength: preset.maximumSequenceLength ?? sequenceLength,
  });
}

/** A model that is loaded must be the one that the settings describe, and know the data's tokens. */
function checkModel(
  model: ModelConfiguration,
  settings: CompleteSettings,
  family: ModelConfiguration["family"] | undefined,
  vocabularySize: number,
  where: string,
): void {
  const preset = presetOf(settings) ?? {};
  const { heads, kvHeads } = settings;
  const asked = {
    family: family ?? preset.family,
    layers: settings.layers ?? preset.layers,
    heads: heads ?? preset.heads,
    keyValueHeads: kvHeads ?? (heads === undefined ? preset.keyValueHeads : undefined),
    width: settings.width ?? preset.width,
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

/** A prepared folder brings its tokenizer: another that was asked for cannot be had. */
async function checkTokenizer(asked: string | undefined, { folder, description }: Dataset): Promise<void> {
  if (asked === undefined || asked === description.tokenizer) return;
  const [own, other] = [await loadTokenizer(folder), await loadTokenizer(asked)];
  if (own.files()["tokenizer.json"] === other.files()["tokenizer.json"]) return;
  throw new UserError(
    `${folder} was prepared with the tokenizer ${description.tokenizer}, not ${asked}: leave --tokenizer out, or ` +
      `prepare the text again`,
  );
}
