/**
 * What a rank starts from.
 * @module
 */

import { openModelFolder, openSafetensors } from "../data/safetensors.ts";
import type { ModelProgram } from "./model_program.ts";
import { statePrefixes } from "./model_state.ts";
import type { RankJob } from "./rank_protocol.ts";

/** Fills a model with the weights of a folder. */
export function loadWeights(model: ModelProgram, folder: string): void {
  const weights = openModelFolder(folder);
  model.load(weights);
  weights.close();
}

/** Fills a model with initial weights, or with those (and the optimizer state) of a checkpoint. */
export function load(model: ModelProgram, job: RankJob): void {
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
