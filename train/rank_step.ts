/**
 * What a rank computes in a step: its micro-batches, forth and back, and now and then the validation loss.
 * @module
 */

import type { Loader } from "../data/loader.ts";
import { apportion } from "../parallel/balance.ts";
import { faultAt } from "./faults.ts";
import { slotIndex } from "./rank_layout.ts";
import { beat, doing, type Run, shareOf, sumOverRanks } from "./rank_run.ts";

/** Fills the batch arrays with `count` samples from `first` on; places beyond have no target. */
function fill(run: Run, loader: Loader, first: number, count: number): void {
  const { sequenceLength } = run.job;
  for (let i = 0; i < run.microBatch; i++) {
    if (i < count) loader.sample(first + i, run.tokens, run.targets, i * sequenceLength);
    else run.targets.fill(-100, i * sequenceLength, (i + 1) * sequenceLength);
  }
}

/** Mean loss over the validation samples, which the copies of the model share out as they do a batch. */
export async function evaluate(run: Run, step: number): Promise<number> {
  doing(run, `the evaluation behind step ${step}`);
  const { samplesPerEpoch } = run.validation;
  const index = run.job.copy;
  const parts = apportion(samplesPerEpoch, run.shares, 0);
  const begin = parts.slice(0, index).reduce((a, b) => a + b, 0);
  run.model.beginStep(1);
  for (let done = 0; done < parts[index]; done += run.microBatch) {
    run.prepared = undefined;
    fill(run, run.validation, begin + done, parts[index] - done);
    await run.model.evaluate(run.tokens, run.targets);
    beat(run);
  }
  const [sum] = sumOverRanks(run, "the sum of losses", [await run.model.lossSum()]);
  return sum / (samplesPerEpoch * run.job.sequenceLength);
}

/**
 * Fills the batch arrays with micro-batch `i` of this rank, unless it is there already: called ahead, that is done while
 * the device computes. Returns its first sequence among those of the step.
 */
export function prepare(run: Run, step: number, i: number): number {
  const { first: firstOfShare, share } = shareOf(run);
  const done = i * run.microBatch;
  const first = (step - 1) * run.job.settings.batchSize + firstOfShare + done;
  const count = share - done;
  if (run.prepared?.first !== first || run.prepared.count !== count) {
    fill(run, run.training, first, count);
    run.model.prepare(run.tokens);
    run.prepared = { first, count };
  }
  return firstOfShare + done;
}

/** Prepares micro-batch `i` of this rank and uploads it. */
export function stage(run: Run, step: number, i: number, slot: number): void {
  const { settings: { seed }, sequenceLength } = run.job;
  const first = prepare(run, step, i);
  run.model.stage(run.tokens, run.targets, { seed, step, firstRow: first * sequenceLength }, slot);
}

function faultIn({ job: { rank }, model: { program: { device } } }: Run, step: number, i: number): void {
  if (i === 0) faultAt({ rank, step, at: "step", device });
}

/** All micro-batches of this rank in a step. */
export async function trainStep(run: Run, step: number): Promise<void> {
  const { job, model } = run;
  const { layout } = model.model;
  model.beginStep(job.settings.batchSize * job.sequenceLength);
  if (layout.total > 1) {
    const { actions, slots } = run.schedule!;
    for (const [i, { kind, microBatch, chunk }] of actions.entries()) {
      doing(run, `${kind} of micro-batch ${microBatch + 1}`, step);
      faultIn(run, step, i);
      if (kind === "forward") stage(run, step, microBatch, slotIndex(layout, chunk, slots[i]));
      await model.runPart(kind, chunk, slots[i]);
      beat(run);
    }
    return;
  }
  const { count } = shareOf(run);
  for (let i = 0; i < count; i++) {
    doing(run, `forward and backward of micro-batch ${i + 1}`, step);
    faultIn(run, step, i);
    stage(run, step, i, 0);
    await model.runWhole(i === count - 1);
    if (i < count - 1) prepare(run, step, i + 1);
    beat(run);
  }
}
