/**
 * Finds where NaN or infinity first appeared: the step is run again, op by op, and every result is looked at.
 * @module
 */

import { fixedScale } from "./loss_scaling.ts";
import { MachineError } from "../errors.ts";
import { StoppedError } from "../parallel/status.ts";
import type { ModelProgram } from "./model_program.ts";
import { doing, type Run, shareOf } from "./rank_run.ts";
import { stage } from "./rank_step.ts";
import { machineOf, ranksOf } from "./run_world.ts";

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
async function firstNonFinite(
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
        if (tensor.dtype === "u32" || tensor.dtype === "i32" || found) continue;
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

/** Ends the run: says where the first number that was not finite came from, as far as that can be told. */
export async function failNonFinite(run: Run, step: number, loss: number, gradNorm: number): Promise<never> {
  doing(run, `the search for what was not finite in step ${step}`);
  const what = Number.isFinite(loss) ? `the gradient norm is ${gradNorm}` : `the loss is ${loss}`;
  const { settings: { batchSize, lossScale }, sequenceLength, rank } = run.job;
  const { total, world } = run.model.model.layout;
  let where = "run it with --pp 1 to learn where it first appeared";
  // A pipeline's stages would have to go through the schedule again together: they are told apart by --pp 1.
  if (total === 1) {
    const found = await firstNonFinite(run.model, shareOf(run).count, (i) => {
      run.model.beginStep(batchSize * sequenceLength);
      stage(run, step, i, 0);
    });
    const { count, first } = ranksOf(run.job.world);
    const own = first + rank;
    const told = Array.from({ length: count }, (_, other) => other === own ? found?.order ?? Infinity : 0);
    const orders = run.executor.sumNumbers("the comparison of what was found", told);
    const [order] = orders.toSorted((a, b) => a - b);
    const teller = orders.indexOf(order);
    // What others found may only have come from there. Each machine has a rank that tells.
    if (rank !== (teller >= first && teller < first + world ? teller - first : 0)) {
      throw new StoppedError("Another rank tells");
    }
    const { names } = run.job.world;
    if (teller !== own && order < Infinity) where = `it began on ${names[machineOf(run.job.world, teller)]}`;
    else if (found) where = count > 1 ? `on rank ${rank} ${found.text}` : found.text;
    else if (Number.isFinite(loss) && gradNorm === Infinity) {
      where = "the gradients are finite, the sum of their squares is not";
    } else where = "run again, the step gave finite numbers: the device may be faulty";
  }
  const smaller = run.scaler ? ", or keep activations in bf16 (--precision bf16)" : "";
  const usual = fixedScale(lossScale) === undefined || !Number.isFinite(loss);
  const remedy = usual
    ? "lower --learning-rate, or look at the data"
    : "leave --loss-scale to itself (dynamic), or lower it";
  throw new MachineError(
    `Training stopped at step ${step}: ${what}; ${where}. The weights were left as they were before the step: ` +
      `${remedy}${smaller}`,
  );
}
