/**
 * Settles what a run is before a device is touched: settings, data, model, folder.
 * @module
 */

import { type Dataset, exists, openDataset, resolveData } from "../data/dataset.ts";
import { createLoader, validationLoader } from "../data/loader.ts";
import { loadTokenizer } from "../data/tokenizer.ts";
import { UserError } from "../errors.ts";
import { noDeviceError } from "../gpu/open.ts";
import { listSelections, selectionsFor } from "../gpu/select.ts";
import { openCheckpoint } from "./checkpoint.ts";
import type { TrainEvent } from "./events.ts";
import { coordinatesOf, type Mesh, nameMesh, settleMesh, worldSize } from "../parallel/mesh.ts";
import { nominalHardware, shareHardware } from "./hardware.ts";
import { askedMesh, asksForMesh, layoutOf, makeCheckpointMemory, makeExecutors, parseDevices } from "./launch.ts";
import { pickLayout } from "./planner.ts";
import type { RankJob } from "./rank_protocol.ts";
import { type LoadedModel, settleModel } from "./run_model.ts";
import { makeRunFolder, nextRunFolder } from "./run_folder.ts";
import { type CompleteSettings, completeSettings, type GivenSettings } from "./settings.ts";
import { hiddenRows, shareBatch, unequalCopies } from "./share_batch.ts";

/** Everything about a run that is settled before a device is touched. */
export interface PreparedRun {
  /** To be saved: without what was picked, since a resumed run picks anew. */
  readonly settings: CompleteSettings;
  readonly run: string;
  /** The layout that was picked, and why, where none was asked for. */
  readonly pick: string | undefined;
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
  let loaded: LoadedModel | undefined;
  if (given.resume !== undefined) {
    const checkpoint = await openCheckpoint(given.resume);
    checkpoint.close();
    if (!checkpoint.trainer || !checkpoint.optimizer) {
      throw new UserError(`${checkpoint.folder} has no optimizer state to resume: start from its weights with --init`);
    }
    saved = checkpoint.trainer as unknown as SavedState;
    resumeFolder = checkpoint.folder;
    firstStep = checkpoint.trainer.step;
    loaded = {
      configuration: checkpoint.configuration,
      where: given.resume,
      sequenceLength: saved.sequenceLength,
    };
  }
  // A timeline is of the run that was asked for it: resuming it must not write over the file.
  let settings = completeSettings(given, { ...saved?.settings, trace: undefined });
  const selections = listSelections();
  if (selections.length === 0) throw noDeviceError();
  const devices = parseDevices(settings.devices, selections);
  const isUnequal = (mesh: Mesh) => unequalCopies(mesh, devices, selections);
  const asked = devices.length === 1 || asksForMesh(settings)
    ? settleMesh(devices.length, askedMesh(settings))
    : undefined;
  if (asked) shareBatch(asked, settings, isUnequal(asked));
  if (saved && firstStep >= settings.steps) {
    throw new UserError(`${resumeFolder} is at step ${firstStep} already: give --steps above it to go on`);
  }
  const run = given.out ?? (resumeFolder ? runOf(resumeFolder) : settings.out) ?? nextRunFolder();

  let initFolder: string | undefined;
  if (settings.init !== undefined && !resumeFolder) {
    const checkpoint = await openCheckpoint(settings.init);
    checkpoint.close();
    initFolder = checkpoint.folder;
    loaded = { configuration: checkpoint.configuration, where: settings.init };
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
  const { configuration, sequenceLength } = settleModel(settings, vocabularySize, loaded, given.family);
  const { family, layers, heads, keyValueHeads: kvHeads, width } = configuration;
  settings = { ...settings, family, layers, heads, kvHeads, width, sequenceLength };
  // Each refuses data that is too short.
  createLoader(dataset.train, { sequenceLength, seed: settings.seed });
  validationLoader(dataset.validation, { sequenceLength, count: 1 });
  const pick = asked ? undefined : pickLayout({
    configuration,
    sequenceLength,
    settings,
    hardware: shareHardware(devices.map((index) => ({ index, hardware: nominalHardware(selections[index]) }))),
  });
  const picked = { ...settings, ...pick?.settings };
  const mesh = asked ?? pick!.mesh;
  const { copies, rebalances } = shareBatch(mesh, picked, isUnequal(mesh));
  if (isUnequal(mesh) && settings.balance === "auto" && !rebalances) {
    onProgress(
      "the GPUs of the copies are unequal, but with --pp or --zero 2 or 3 shares do not follow the measured speeds: " +
        "--balance 3:1 gives the first copy three times as much",
    );
  }
  const layouts = Array.from(
    { length: worldSize(mesh) },
    (_, rank) => layoutOf(configuration, mesh, rank, picked, copies[coordinatesOf(mesh, rank).data]),
  );
  const rows = hiddenRows(mesh, picked, copies, sequenceLength);
  makeRunFolder(run);
  const control = new SharedArrayBuffer(64);
  const checkpoint = makeCheckpointMemory(configuration);
  const tokenizer = await loadTokenizer(dataFolder);
  const chosen = selectionsFor(devices, selections);
  return {
    settings,
    run,
    pick: pick && `${nameMesh(pick.mesh)}: ${pick.why}`,
    tokenizerFiles: tokenizer.files(),
    dataHash: train.sha256,
    jobs: makeExecutors(configuration, mesh, picked, layouts, rows).map((executor, rank) => ({
      settings: picked,
      configuration,
      sequenceLength,
      dataFolder,
      resumeFolder,
      initFolder,
      firstStep,
      control,
      rank,
      mesh,
      copies,
      rebalances,
      executor,
      checkpoint,
      selection: chosen[rank],
    })),
  };
}

/** The run that a checkpoint lies in; undefined where it was moved elsewhere. */
export function runOf(checkpointFolder: string): string | undefined {
  return /^(.*)\/checkpoints\/step-\d+\/?$/.exec(checkpointFolder)?.[1];
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
