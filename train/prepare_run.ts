/**
 * Settles what a run is before a device is touched: settings, data, model, folder.
 * @module
 */

import { type Dataset, exists, openDataset, resolveData } from "../data/dataset.ts";
import { createLoader, validationLoader } from "../data/loader.ts";
import { loadTokenizer } from "../data/tokenizer.ts";
import { UserError } from "../errors.ts";
import { shareOfDevices } from "../network/launcher.ts";
import { noDeviceError } from "../gpu/open.ts";
import { listSelections, type Selection, selectionsFor } from "../gpu/select.ts";
import { openCheckpoint } from "./checkpoint.ts";
import type { TrainEvent } from "./events.ts";
import type { ModelConfiguration } from "../model/configuration.ts";
import { type Mesh, nameMesh, settleMesh } from "../parallel/mesh.ts";
import { nominalHardware, shareHardware } from "./hardware.ts";
import { askedMesh, asksForMesh, parseDevices } from "./launch.ts";
import { type NodePlace, readNodePlace } from "./node_place.ts";
import { pickLayout } from "./planner.ts";
import { type LoadedModel, settleModel } from "./run_model.ts";
import { nextRunFolder } from "./run_folder.ts";
import { type CompleteSettings, completeSettings, type GivenSettings, inheritedSettings } from "./settings.ts";
import { shareBatch, unequalCopies } from "./share_batch.ts";
import { type NotedTuning, readNoted } from "./tuning_file.ts";

/** Everything about a run that is settled before a device is touched, and other machines are met. */
export interface PreparedRun {
  /** To be saved: without what was picked, since a resumed run picks anew. */
  readonly settings: CompleteSettings;
  /** Where this machine is among several. */
  readonly place: NodePlace | undefined;
  /** With what was picked. */
  readonly picked: CompleteSettings;
  readonly run: string;
  /** The layout that was picked, and why, where none was asked for. */
  readonly pick: string | undefined;
  readonly configuration: ModelConfiguration;
  readonly sequenceLength: number;
  readonly mesh: Mesh;
  /** Of each rank. */
  readonly selections: readonly Selection[];
  /** What the run has noted of tunings; at first those that it goes on from. */
  readonly tunings: readonly NotedTuning[];
  /** True if the devices of this machine's copies of the model differ. */
  readonly unequal: boolean;
  readonly dataFolder: string;
  readonly dataHash: string;
  readonly tokenizerFiles: Readonly<Record<string, string>>;
  readonly resumeFolder: string | undefined;
  readonly initFolder: string | undefined;
  /** Steps done before. */
  readonly firstStep: number;
}

/** What is saved in `trainer.json` besides the step. */
interface SavedState {
  readonly settings: CompleteSettings;
  readonly dataHash: string;
  readonly sequenceLength: number;
  readonly tunings?: unknown;
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
  let settings = completeSettings(given, saved ? inheritedSettings(saved.settings) : {});
  const place = await readNodePlace(settings);
  if (place) checkShares(place, settings);
  const selections = listSelections();
  if (selections.length === 0) throw noDeviceError();
  const devices = ownDevices(settings.devices, selections, place, onProgress);
  const isUnequal = (mesh: Mesh) => unequalCopies(mesh, devices, selections);
  const asked = devices.length === 1 || asksForMesh(settings)
    ? settleMesh(devices.length, askedMesh(settings))
    : undefined;
  // How many copies share a batch over machines is not known yet.
  if (asked && !place) shareBatch(asked, settings, isUnequal(asked));
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
    settings: { ...settings, batchSize: Math.ceil(settings.batchSize / (place?.nodes ?? 1)) },
    hardware: shareHardware(devices.map((index) => ({ index, hardware: nominalHardware(selections[index]) }))),
  });
  const picked = { ...settings, ...pick?.settings };
  const mesh = asked ?? pick!.mesh;
  const tokenizer = await loadTokenizer(dataFolder);
  return {
    settings,
    place,
    picked,
    run,
    pick: pick && `${nameMesh(pick.mesh)}: ${pick.why}`,
    configuration,
    sequenceLength,
    mesh,
    selections: selectionsFor(devices, selections),
    tunings: readNoted(saved?.tunings),
    unequal: isUnequal(mesh),
    dataFolder,
    dataHash: train.sha256,
    tokenizerFiles: tokenizer.files(),
    resumeFolder,
    initFolder,
    firstStep,
  };
}

/** Throws `UserError` if the batch could not be shared any more when machines come or go. */
function checkShares({ nodes }: NodePlace, { balance, batchSize, minNodes = nodes }: CompleteSettings): void {
  if (batchSize < nodes) {
    throw new UserError(`--batch-size ${batchSize} is less than one sequence for each of --nodes ${nodes}`);
  }
  if (balance.includes(":") && minNodes < nodes) {
    throw new UserError(
      `--balance ${balance} is for as many copies as there are from the beginning to the end: with --min-nodes ${minNodes} ` +
        `of ${nodes} use auto or even`,
    );
  }
}

/** The devices of this process: of all those of its machine its share, where a launcher has started several there. */
function ownDevices(
  asked: string,
  selections: readonly Selection[],
  place: NodePlace | undefined,
  report: (message: string) => void,
): number[] {
  const devices = parseDevices(asked, selections);
  if (asked !== "all" || !place || place.localSize === 1) return devices;
  const { localRank, localSize } = place;
  const own = shareOfDevices(devices.length, localRank, localSize).map((index) => devices[index]);
  if (devices.length < localSize) {
    report(
      `${localSize} processes of this machine share ${devices.length} GPU${
        devices.length === 1 ? "" : "s"
      }; process ${localRank} uses GPU ${own.join()}`,
    );
  }
  return own;
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
