/**
 * What a rank starts from.
 * @module
 */

import { type NamedTensor, openModelFolder, openSafetensors, type TensorReader } from "../data/safetensors.ts";
import { LossScaler, scalingName } from "./loss_scaling.ts";
import type { ModelProgram } from "./model_program.ts";
import { statePrefixes } from "./model_state.ts";
import type { RankJob } from "./rank_protocol.ts";

/** Fills a model with the weights of a folder. */
export function loadWeights(model: ModelProgram, folder: string): void {
  const weights = openModelFolder(folder);
  model.load(weights);
  weights.close();
}

/** Reads tensors that lie in memory. */
function memoryReader(tensors: readonly NamedTensor[]): TensorReader {
  const places = new Map(tensors.map(({ name, data }) => [name, data]));
  return {
    tensors: new Map(tensors.map(({ name, shape }) => [name, { name, dtype: "F32", shape, begin: 0, end: 0 }])),
    readInto(name, target, start = 0) {
      target.set(places.get(name)!.subarray(start, start + target.length));
    },
    close() {},
  };
}

/** The scaler of the loss that a run has, as it was. */
export function loadScaler(
  { settings: { precision, lossScale }, state, resumeFolder }: RankJob,
): LossScaler | undefined {
  if (precision !== "f16") return undefined;
  if (state) {
    const saved = state.optimizer.find(({ name }) => name === scalingName);
    return new LossScaler(lossScale, saved?.data as Float32Array | undefined);
  }
  if (resumeFolder === undefined) return new LossScaler(lossScale);
  const optimizer = openSafetensors(`${resumeFolder}/optimizer.safetensors`);
  const saved = new Float32Array(3);
  const found = optimizer.tensors.has(scalingName);
  if (found) optimizer.readInto(scalingName, saved);
  optimizer.close();
  return new LossScaler(lossScale, found ? saved : undefined);
}

/** Fills a model with initial weights, or with those (and the optimizer state) of a checkpoint. */
export function load(model: ModelProgram, job: RankJob): void {
  if (job.state) {
    const { weights, optimizer } = job.state;
    model.load(memoryReader(weights));
    model.load(memoryReader(optimizer), "firstMoment", statePrefixes.firstMoment);
    model.load(memoryReader(optimizer), "secondMoment", statePrefixes.secondMoment);
    return;
  }
  const folder = job.resumeFolder ?? job.initFolder;
  if (folder === undefined) {
    model.initialize(job.settings.seed);
    return;
  }
  loadWeights(model, folder);
  if (job.resumeFolder === undefined) return;
  const optimizer = openSafetensors(`${job.resumeFolder}/optimizer.safetensors`);
  model.load(optimizer, "firstMoment", statePrefixes.firstMoment);
  model.load(optimizer, "secondMoment", statePrefixes.secondMoment);
  optimizer.close();
}
