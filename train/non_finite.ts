/**
 * Finds where NaN or infinity first appeared: the step is run again, op by op, and every result is looked at.
 * @module
 */

import type { ModelProgram } from "./model_program.ts";

/** Index of the first element that is NaN or infinite, or -1. */
function findNonFinite(values: Float32Array): number {
  for (let i = 0; i < values.length; i++) if (!Number.isFinite(values[i])) return i;
  return -1;
}

/** Where NaN or infinity first appeared on a rank. */
export interface Appearance {
  /** Ops until then, on ranks of one layout alike; below 0 before the step. */
  readonly order: number;
  readonly text: string;
}

async function inWeights(model: ModelProgram): Promise<Appearance | undefined> {
  for (const bank of model.model.banks) {
    const { run, flat } = await model.readState(bank, "weights");
    const index = findNonFinite(flat);
    if (index < 0) continue;
    const member = bank.offsets.findLastIndex((offset) => offset <= run.start + index);
    return { order: -1, text: `the weights ${bank.members[member].parameter.name} were not finite before it` };
  }
  return undefined;
}

/**
 * Runs the micro-batches of a step again and says in words which tensor was the first that is not finite, if one was.
 * `stage(i)` uploads micro-batch i and zeroes the sum of losses; gradients are zeroed here.
 */
export async function firstNonFinite(
  model: ModelProgram,
  microBatches: number,
  stage: (index: number) => void,
): Promise<Appearance | undefined> {
  const { program } = model;
  let found = await inWeights(model);
  let order = 0;
  model.clearGradients();
  // To the end even when it is found: other ranks take part in the collectives.
  for (let i = 0; i < microBatches; i++) {
    stage(i);
    await program.step("train", async (op) => {
      program.executor?.alive?.();
      order++;
      for (const tensor of op.outputs) {
        if (tensor.dtype !== "f32" || found) continue;
        const index = findNonFinite(await program.read(tensor));
        if (index < 0) continue;
        const { name, shape } = tensor;
        const text = `it first appeared in ${name}, made by ${op.definition.name}, at element ${index} of [${shape}]`;
        found = { order, text };
      }
    }, { last: i === microBatches - 1 });
  }
  return found;
}
