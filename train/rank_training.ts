/**
 * The training loop of a rank.
 * @module
 */

import { openDataset } from "../data/dataset.ts";
import { createLoader, type Loader, validationLoader } from "../data/loader.ts";
import { MachineError } from "../errors.ts";
import type { Device } from "../gpu/device.ts";
import { Trace } from "../gpu/trace.ts";
import { describeBytes, makePlan, usableMemory } from "../graph/plan.ts";
import { apportion, rebalance } from "../parallel/balance.ts";
import { coordinatesOf } from "../parallel/mesh.ts";
import { StoppedError } from "../parallel/status.ts";
import { faultAt } from "./faults.ts";
import { layoutOf, scheduleOf } from "./launch.ts";
import { learningRateAt } from "./learning_rate.ts";
import { buildModelGraph } from "./model_graph.ts";
import { type ModelGraphOptions, slotIndex } from "./rank_layout.ts";
import { firstNonFinite } from "./non_finite.ts";
import { checkpoint } from "./rank_checkpoint.ts";
import { withModel } from "./rank_model.ts";
import { controlSlots, type RankJob, type RankMessage } from "./rank_protocol.ts";
import { allow, beat, doing, type Run, shareOf, sumOverRanks, traceWith } from "./rank_run.ts";
import { load } from "./rank_state.ts";
import { traceSteps } from "./trace_file.ts";

/** A step this many times slower than it was when its submits were sized is timed anew: these stay under 200 ms. */
const slowdown = 1.6;

/** Sequences computed at a time: what was asked for, or the largest divisor of the batch whose plan fits the device. */
function chooseMicroBatch(device: Device, job: RankJob, options: Omit<ModelGraphOptions, "batch">): number {
  const { microBatchSize } = job.copies[options.layout!.data.index];
  if (microBatchSize !== undefined) return microBatchSize;
  const { batchSize } = job.settings;
  const { memoryBytes } = device.capabilities;
  for (let size = batchSize; size > 1; size--) {
    if (batchSize % size !== 0) continue;
    const plan = makePlan(buildModelGraph({ ...options, batch: size }).graph, device.capabilities);
    if (memoryBytes === undefined || plan.totalBytes <= usableMemory * memoryBytes) return size;
  }
  return 1;
}

/** Fills the batch arrays with `count` samples from `first` on; places beyond have no target. */
function fill(run: Run, loader: Loader, first: number, count: number): void {
  const { sequenceLength } = run.job;
  for (let i = 0; i < run.microBatch; i++) {
    if (i < count) loader.sample(first + i, run.tokens, run.targets, i * sequenceLength);
    else run.targets.fill(-100, i * sequenceLength, (i + 1) * sequenceLength);
  }
}

/** Mean loss over the validation samples, which the copies of the model share out as they do a batch. */
async function evaluate(run: Run, step: number): Promise<number> {
  doing(run, `the evaluation behind step ${step}`);
  const { samplesPerEpoch } = run.validation;
  const { index } = run.model.model.layout.data;
  const parts = apportion(samplesPerEpoch, run.shares, 0);
  const begin = parts.slice(0, index).reduce((a, b) => a + b, 0);
  run.model.beginStep(1);
  for (let done = 0; done < parts[index]; done += run.microBatch) {
    fill(run, run.validation, begin + done, parts[index] - done);
    await run.model.evaluate(run.tokens, run.targets);
    beat(run);
  }
  const [sum] = sumOverRanks(run, "the sum of losses", [await run.model.lossSum()]);
  return sum / (samplesPerEpoch * run.job.sequenceLength);
}

/** Fills the batch arrays with micro-batch `i` of this rank and uploads them. */
function stage(run: Run, step: number, i: number, slot: number): void {
  const { settings: { batchSize, seed }, sequenceLength } = run.job;
  const { first: firstOfShare, share } = shareOf(run);
  const done = i * run.microBatch;
  const first = firstOfShare + done;
  fill(run, run.training, (step - 1) * batchSize + first, share - done);
  run.model.stage(run.tokens, run.targets, { seed, step, firstRow: first * sequenceLength }, slot);
}

function faultIn({ job: { rank }, model: { program: { device } } }: Run, step: number, i: number): void {
  if (i === 0) faultAt({ rank, step, at: "step", device });
}

/** All micro-batches of this rank in a step. */
async function trainStep(run: Run, step: number): Promise<void> {
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
    beat(run);
  }
}

async function failNonFinite(run: Run, step: number, loss: number, gradNorm: number): Promise<never> {
  doing(run, `the search for what was not finite in step ${step}`);
  const what = Number.isFinite(loss) ? `the gradient norm is ${gradNorm}` : `the loss is ${loss}`;
  const { settings: { batchSize }, sequenceLength, rank } = run.job;
  const { total, world } = run.model.model.layout;
  let where = "run it with --pp 1 to learn where it first appeared";
  // A pipeline's stages would have to go through the schedule again together: they are told apart by --pp 1.
  if (total === 1) {
    const found = await firstNonFinite(run.model, shareOf(run).count, (i) => {
      run.model.beginStep(batchSize * sequenceLength);
      stage(run, step, i, 0);
    });
    const told = Array.from({ length: world }, (_, other) => other === rank ? found?.order ?? Infinity : 0);
    const orders = run.executor.sumNumbers("the comparison of what was found", told);
    // What others found may only have come from there.
    if (orders.indexOf(Math.min(...orders)) !== rank) throw new StoppedError("Another rank tells");
    if (found) where = world > 1 ? `on rank ${rank} ${found.text}` : found.text;
    else if (Number.isFinite(loss) && gradNorm === Infinity) {
      where = "the gradients are finite, the sum of their squares is not";
    } else where = "run again, the step gave finite numbers: the device may be faulty";
  }
  throw new MachineError(
    `Training stopped at step ${step}: ${what}; ${where}. The weights were left as they were before the step: ` +
      `lower --learning-rate, or look at the data`,
  );
}

/** Steps between looks at how fast each copy is; the first look comes when the first steps are over. */
const balanceInterval = 16;

/** Shares a batch out anew if copies are unequally fast: `own` is the time that this rank computed in the last step, in ms. */
function balance(run: Run, step: number, own: number): void {
  const { job: { mesh, rank, firstStep }, executor, shares } = run;
  if ((step - firstStep) % balanceInterval !== 4) return;
  const { data, tensor } = coordinatesOf(mesh, rank);
  const told = shares.map((_, copy) => copy === data && tensor === 0 ? own : 0);
  run.shares = rebalance(shares, executor.sumNumbers("the times of the copies", told));
  if (run.shares !== shares) run.post({ type: "balance", step, shares: run.shares });
}

/** Trains until the last step or until asked to stop. */
async function loop(run: Run): Promise<{ step: number; stopped: boolean }> {
  const { job, model, post } = run;
  const { settings, firstStep, sequenceLength } = job;
  let sent = 0;
  // Time of a micro-batch in the first step whose submits were sized, and steps until there is one.
  let reference: number | undefined;
  let untimed = 0;
  let evaluated = false;
  let step = firstStep;
  let stopped = false;
  let trace = settings.trace === undefined ? undefined : new Trace();
  traceWith(run, trace);
  while (step < settings.steps && !stopped) {
    step++;
    const start = performance.now();
    const inCollectives = run.executor.milliseconds;
    trace?.next(0, `step ${step}`, "step");
    await trainStep(run, step);
    const learningRate = learningRateAt(step, settings);
    doing(run, "the optimizer", step);
    const { beta1, beta2, epsilon, weightDecay, clip } = settings;
    await model.update({ learningRate, beta1, beta2, epsilon, weightDecay, clip, step });
    doing(run, "reading the gradient norm and the loss", step);
    const gradNorm = await model.gradientNorm();
    // Rank 0 alone decides on stopping, so that all stop at the same step.
    const asked = job.rank === 0 && Atomics.load(run.control, controlSlots.stop) !== 0 ? job.mesh.tensor : 0;
    const [lossSum, stopping] = sumOverRanks(run, "the sum of losses", [await model.lossSum(), asked]);
    const loss = lossSum / (settings.batchSize * sequenceLength);
    if (!Number.isFinite(loss) || !Number.isFinite(gradNorm)) await failNonFinite(run, step, loss, gradNorm);
    const milliseconds = performance.now() - start;
    const shared = run.executor.milliseconds - inCollectives;
    const told = { type: "step", step, loss, gradNorm, learningRate, milliseconds } as const;
    post(model.model.layout.world > 1 ? { ...told, collectiveMilliseconds: shared } : told);
    beat(run);
    stopped = stopping > 0;

    // The first two steps compile and are timed; one slower than that which followed them says that the device has slowed down.
    const steady = step > firstStep + 2;
    if (steady) {
      allow(run, "usual");
      // Time spent with other ranks says nothing of this one's device.
      const own = milliseconds - shared;
      if (--untimed < 0) {
        // Shares may change, the time of a micro-batch does not.
        const each = own / shareOf(run).count;
        reference ??= each;
        if (each > slowdown * reference) {
          model.program.recalibrate();
          [reference, untimed] = [undefined, 1];
        }
      }
      if (job.rebalances) balance(run, step, own);
    }
    const last = stopped || step === settings.steps;
    if (last || (settings.evalInterval > 0 && step % settings.evalInterval === 0)) {
      if (!evaluated) allow(run, "first");
      post({ type: "evaluation", step, loss: await evaluate(run, step) });
      evaluated = true;
      if (steady) allow(run, "usual");
    }
    if (last || (settings.checkpointInterval > 0 && step % settings.checkpointInterval === 0)) {
      await checkpoint(run, step, sent++);
    }
    if (trace) post({ type: "trace", spans: trace.take() });
    if (step - firstStep === traceSteps) traceWith(run, trace = undefined);
    await model.program.device.settleNowAndThen();
  }
  return { step, stopped: stopped && step < settings.steps };
}

/** Trains as the job says, telling by `post`; the last message comes when the device has been let go. */
export async function trainOnRank(job: RankJob, post: (message: RankMessage) => void): Promise<void> {
  const { settings, configuration, sequenceLength, mesh, rank } = job;
  // What all ranks know alike, rank 0 tells.
  const tell = (message: RankMessage) => {
    const own = ["opened", "ready", "trace", "done", "failing"].includes(message.type);
    if (own || rank === 0) post(message);
  };
  const copy = job.copies[coordinatesOf(mesh, rank).data];
  const data = openDataset(job.dataFolder);
  try {
    const ended = await withModel(job, tell, {
      options(device) {
        const layout = layoutOf(configuration, mesh, rank, settings, copy);
        const segments = ["train", "evaluate"] as const;
        const options = { configuration, sequenceLength, segments, dropout: settings.dropout, layout };
        return { ...options, batch: chooseMicroBatch(device, job, options) };
      },
      load: (model) => load(model, job),
      run(model, executor) {
        const { options: { batch }, layout: { total } } = model.model;
        const { device, plan } = model.program;
        tell({
          type: "ready",
          device: device.capabilities.name,
          microBatchSize: batch,
          bytes: plan.totalBytes,
          memory: describeBytes(plan),
        });
        const count = settings.evalBatches * settings.batchSize;
        return loop({
          job,
          executor,
          shares: job.copies.map(({ share }) => share),
          schedule: total > 1 ? scheduleOf(mesh, rank, settings, copy) : undefined,
          model,
          control: new Int32Array(job.control),
          microBatch: batch,
          training: createLoader(data.train, { sequenceLength, seed: settings.seed }),
          validation: validationLoader(data.validation, { sequenceLength, count }),
          tokens: new Uint32Array(batch * sequenceLength),
          targets: new Int32Array(batch * sequenceLength),
          post: tell,
        });
      },
    });
    tell({ type: "done", ...ended });
  } finally {
    data.close();
  }
}
