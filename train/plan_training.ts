/**
 * Planning a run that nobody has started: for the GPUs of this machine, measured, or for others, described.
 * @module
 */

import { openDataset } from "../data/dataset.ts";
import { loadTokenizer } from "../data/tokenizer.ts";
import { UserError } from "../errors.ts";
import { noDeviceError } from "../gpu/open.ts";
import { listSelections } from "../gpu/select.ts";
import type { Precision } from "../graph/tensor.ts";
import type { ModelConfiguration } from "../model/configuration.ts";
import { openCheckpoint } from "./checkpoint.ts";
import { measureDevices } from "./devices.ts";
import { assumedHardware, type Hardware, shareHardware } from "./hardware.ts";
import { parseDevices } from "./launch.ts";
import { type NodesOptions, type NodesPlan, planNodes } from "./plan_nodes.ts";
import { type Pick, pickOf, planMesh, type PlanRequest, type Survey, surveyMeshes } from "./planner.ts";
import { type LoadedModel, settleModel } from "./run_model.ts";
import { type CompleteSettings, completeSettings, type GivenSettings } from "./settings.ts";
import { withKeptTuning } from "./tuning_file.ts";

/** GPUs that are not here: all alike, one rank on each. */
export interface DescribedGpus {
  /** How many. */
  readonly ranks: number;
  /** Of each; no limit if left out. */
  readonly memoryBytes?: number;
  /** Multiply-add rate of each, flop/s (a multiply-add counts two); 10 TFLOP/s if left out. */
  readonly flopsPerSecond?: number;
}

/** How to plan. */
export interface PlanOptions {
  /** Plan for these instead of the GPUs that `devices` names. */
  readonly gpus?: DescribedGpus;
  /** Plan for several machines, each with these GPUs; then `batchSize` is that of all of them together. */
  readonly machines?: NodesOptions;
  /** Token ids, where neither data nor tokenizer are to be looked at. */
  readonly vocabularySize?: number;
  /** Told what takes time. */
  readonly onProgress?: (message: string) => void;
}

/** A plan of a run. */
export interface TrainingPlan {
  /** All settings, as given or by default. */
  readonly settings: CompleteSettings;
  /** The model. */
  readonly configuration: ModelConfiguration;
  /** Tokens of a sequence. */
  readonly sequenceLength: number;
  /** The device of each rank, its share where several ranks are on one. */
  readonly hardware: readonly Hardware[];
  /** Every mesh, planned or refused; of several machines those of each. */
  readonly survey: Survey;
  /** The mesh to take, and why; undefined if none can train the model. */
  readonly pick: Pick | undefined;
  /** Bytes of weights and activations of the largest rank of that mesh, by precision; f16 takes what bf16 takes. */
  readonly stored: readonly { readonly precision: Precision; readonly bytes: number }[];
  /** Predictions for several machines, if asked for. */
  readonly nodes?: NodesPlan;
}

/** Multiply-add rate of a GPU of which nothing is said, flop/s. */
const usualFlops = 1e13;

/** Number of token ids, without reading a corpus. */
async function vocabularyOf(settings: CompleteSettings, loaded: LoadedModel | undefined): Promise<number> {
  if (loaded) return loaded.configuration.vocabularySize;
  try {
    Deno.statSync(`${settings.data}/dataset.json`);
  } catch {
    return (await loadTokenizer(settings.tokenizer)).vocabularySize;
  }
  const dataset = openDataset(settings.data);
  dataset.close();
  return dataset.description.vocabularySize;
}

async function localHardware(
  settings: CompleteSettings,
  width: number,
  onProgress: (message: string) => void,
): Promise<Hardware[]> {
  const selections = listSelections();
  if (selections.length === 0) throw noDeviceError();
  const devices = parseDevices(settings.devices, selections);
  onProgress(`measuring GPU ${[...new Set(devices)].join(", ")}`);
  const tuned = settings.tune === "off" ? selections : withKeptTuning(selections);
  const measured = await measureDevices(tuned, devices, { width, precision: settings.precision });
  return shareHardware(devices.map((index) => ({ index, hardware: measured.get(index)! })));
}

/**
 * Plans a run: what each mesh of the ranks would take in bytes and time, and which to take. Opens the GPUs for a moment,
 * unless others are described. `UserError` for settings that fit no model.
 */
export async function planTraining(given: GivenSettings, options: PlanOptions = {}): Promise<TrainingPlan> {
  const { gpus, machines, onProgress = () => {} } = options;
  const settings = completeSettings(given);
  if (gpus && given.devices !== undefined) {
    throw new UserError("--devices names GPUs of this machine, --ranks others: give one of them");
  }
  let loaded: LoadedModel | undefined;
  if (settings.init !== undefined) {
    const checkpoint = await openCheckpoint(settings.init);
    checkpoint.close();
    loaded = { configuration: checkpoint.configuration, where: settings.init };
  }
  const vocabularySize = options.vocabularySize ?? await vocabularyOf(settings, loaded);
  const { configuration, sequenceLength } = settleModel(settings, vocabularySize, loaded, given.family);
  const hardware = gpus
    ? Array.from({ length: gpus.ranks }, () =>
      assumedHardware({
        name: "GPU as described",
        type: "gpu",
        flopsPerSecond: gpus.flopsPerSecond ?? usualFlops,
        memoryBytes: gpus.memoryBytes,
      }))
    : await localHardware(settings, configuration.width, onProgress);
  const request = { configuration, sequenceLength, settings, hardware };
  if (machines) {
    const nodes = planNodes(request, machines);
    return { ...request, survey: nodes.survey, pick: nodes.pick, stored: [], nodes };
  }
  const survey = surveyMeshes(request);
  const pick = survey.planned.length > 0 ? pickOf(survey) : undefined;
  return { ...request, survey, pick, stored: pick ? storedBytes(request, pick) : [] };
}

function storedBytes(request: PlanRequest, { mesh, settings }: Pick): TrainingPlan["stored"] {
  return (["f32", "bf16"] as const).flatMap((precision) => {
    const planned = planMesh({ ...request, settings: { ...request.settings, ...settings, precision } }, mesh);
    if (!("bytes" in planned)) return [];
    return [{ precision, bytes: planned.bytes.parameter + planned.bytes.activation }];
  });
}
