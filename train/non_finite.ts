/**
 * Finds where NaN or infinity first appeared: the step is run again, op by op, and every result is looked at.
 * @module
 */

import type { Op } from "../graph/graph.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { ModelProgram } from "./model_program.ts";

/** Index of the first element that is NaN or infinite, or -1. */
function findNonFinite(values: Float32Array): number {
  for (let i = 0; i < values.length; i++) if (!Number.isFinite(values[i])) return i;
  return -1;
}

/**
 * Runs the micro-batches of a step again and says in words which tensor was the first that is not finite.
 * `stage(i)` uploads micro-batch i and zeroes the sum of losses; gradients are zeroed here.
 */
export async function firstNonFinite(
  model: ModelProgram,
  microBatches: number,
  stage: (index: number) => void,
): Promise<string> {
  const { program } = model;
  for (const bank of model.model.banks) {
    const { run, flat } = await model.readState(bank, "weights");
    const index = findNonFinite(flat);
    if (index < 0) continue;
    const member = bank.offsets.findLastIndex((offset) => offset <= run.start + index);
    return `the weights ${bank.members[member].parameter.name} were not finite before it`;
  }
  model.clearGradients();
  for (let i = 0; i < microBatches; i++) {
    stage(i);
    let found: { op: Op; tensor: Tensor; index: number } | undefined;
    // To the end even when it is found: other ranks may take part in what follows.
    await program.step("train", async (op) => {
      program.executor?.alive?.();
      if (found) return;
      for (const tensor of op.outputs) {
        if (tensor.dtype !== "f32" || found) continue;
        const index = findNonFinite(await program.read(tensor));
        if (index >= 0) found = { op, tensor, index };
      }
    }, { last: i === microBatches - 1 });
    if (found) {
      const { op, tensor, index } = found;
      return `it first appeared in ${tensor.name}, made by ${op.definition.name}, at element ${index} of [${tensor.shape}]`;
    }
  }
  return "run again, the step gave finite numbers: the device may be faulty";
}
