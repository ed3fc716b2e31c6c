/**
 * The training loop of a rank.
 * @module
 */

import { type Dataset, openDataset } from "../data/dataset.ts";
import { createLoader, type Loader, validationLoader } from "../data/loader.ts";
import { MachineError } from "../errors.ts";
import type { Device } from "../gpu/device.ts";
import { openDevice } from "../gpu/open.ts";
import { describeBytes, makePlan, usableMemory } from "../graph/plan.ts";
import { SharedMemoryExecutor } from "../parallel/executor.ts";
import { apportion, rebalance } from "../parallel/balance.ts";
import { coordinatesOf } from "../parallel/mesh.ts";
import { layoutOf, scheduleOf } from "./launch.ts";
import { microBatchCount } from "./share_batch.ts";
import { learningRateAt } from "./learning_rate.ts";
import { buildModelGraph, type ModelGraphOptions } from "./model_graph.ts";
import { slotIndex } from "./rank_layout.ts";
import { ModelProgram } from "./model_program.ts";
import { statePrefixes } from "./model_state.ts";
import { firstNonFinite } from "./non_finite.ts";
import { load } from "./rank_state.ts";
import { controlSlots, type RankJob, type RankMessage } from "./rank_protocol.ts";

/** Time allowed for a checkpoint to reach the disk before the next is taken, in ms. */
const saveMilliseconds = 30 * 60_000;
/** Un-awaited mappings are let go this often, in ms. */
const settleMilliseconds = 2000;
/** Time that ranks wait for each other while kernels are compiled and timed, in ms. */
const firstStepsMilliseconds = 10 * 60_000;
/** A step this many times slower than it was when its submits were sized is timed anew. */
const slowdown = 3;

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

/** What the loop works with. */
interface Run {
  readonly job: RankJob;
  readonly executor: SharedMemoryExecutor;
  /** Sequences of a step that each copy of the model takes, in order. */
  shares: readonly number[];
  /** What this rank's stage of a pipeline does. */
  readonly schedule: ReturnType<typeof scheduleOf> | undefined;
  readonly model: ModelProgram;
  readonly control: Int32Array;
  readonly microBatch: number;
  readonly training: Loader;
  readonly validation: Loader;
  readonly tokens: Uint32Array;
  readonly targets: Int32Array;
  readonly post: (message: RankMessage) => void;
  /** Told when the first steps, which compile and measure, are done. */
  readonly onSteady: () => void;
}

/** Sequences of a step that this rank's copy of the model takes, and the first of them. */
function shareOf({ shares, model }: Run): { first: number; share: number; count: number } {
  const { index } = model.model.layout.data;
  const first = shares.slice(0, index).reduce((a, b) => a + b, 0);
  const share = shares[index];
  return { first, share, count: microBatchCount({ share, microBatchSize: model.model.options.batch }) };
}

function beat(run: Run): void {
  Atomics.add(run.control, controlSlots.heartbeat, 1);
}

/** Fills the batch arrays with `count` samples from `first` on; places beyond have no target. */
function fill(run: Run, loader: Loader, first: number, count: number): void {
  const { sequenceLength } = run.job;
  for (let i = 0; i < run.microBatch; i++) {
    if (i < count) loader.sample(first + i, run.tokens, run.targets, i * sequenceLength);
    else run.targets.fill(-100, i * sequenceLength, (i + 1) * sequenceLength);
  }
}

/** The sum over all ranks of a number that the ranks of a tensor-parallel group have alike. */
function sumOverRanks({ executor, job: { mesh } }: Run, ...values: number[]): number[] {
  return executor.group("world").sumNumbers(values).map((sum) => sum / mesh.tensor);
}

/** Mean loss over the validation samples, which the copies of the model share out as they do a batch. */
async function evaluate(run: Run): Promise<number> {
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
  const [sum] = sumOverRanks(run, await run.model.lossSum());
  return sum / (samplesPerEpoch * run.job.sequenceLength);
}

/** All ranks fill the checkpoint's memory, once the checkpoint before is on the disk; rank 0 tells. */
async function checkpoint(run: Run, step: number, sent: number): Promise<void> {
  for (let saved = Atomics.load(run.control, controlSlots.saved); saved < sent;) {
    if (Atomics.wait(run.control, controlSlots.saved, saved, saveMilliseconds) === "timed-out") {
      throw new MachineError(
        `The checkpoint before step ${step} was not written within 30 minutes: is the disk stuck?`,
      );
    }
    saved = Atomics.load(run.control, controlSlots.saved);
  }
  const { weights, optimizer } = run.job.checkpoint;
  const places = new Map([...weights, ...optimizer].map(({ name, data }) => [name, data as Float32Array]));
  const { model } = run;
  // Copies of the model have the same weights, and unless it is shared out the same optimizer state.
  const { data, zero } = model.model.layout;
  if (data.index === 0 || zero === 3) await model.saveInto("weights", (name) => places.get(name)!);
  if (data.index === 0 || zero > 0) {
    await model.saveInto("firstMoment", (name) => places.get(statePrefixes.firstMoment + name)!);
    await model.saveInto("secondMoment", (name) => places.get(statePrefixes.secondMoment + name)!);
  }
  sumOverRanks(run, 0);
  run.post({ type: "checkpoint", step });
  beat(run);
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

/** All micro-batches of this rank in a step. */
async function trainStep(run: Run, step: number): Promise<void> {
  const { job, model } = run;
  const { layout } = model.model;
  model.beginStep(job.settings.batchSize * job.sequenceLength);
  if (layout.total > 1) {
    const { actions, slots } = run.schedule!;
    for (const [i, { kind, microBatch, chunk }] of actions.entries()) {
      if (kind === "forward") stage(run, step, microBatch, slotIndex(layout, chunk, slots[i]));
      await model.runPart(kind, chunk, slots[i]);
      beat(run);
    }
    return;
  }
  const { count } = shareOf(run);
  for (let i = 0; i < count; i++) {
    stage(run, step, i, 0);
    await model.runWhole(i === count - 1);
    beat(run);
  }
}

async function failNonFinite(run: Run, step: number, loss: number, gradNorm: number): Promise<never> {
  const what = Number.isFinite(loss) ? `the gradient norm is ${gradNorm}` : `the loss is ${loss}`;
  const { settings: { batchSize }, sequenceLength } = run.job;
  const { layout } = run.model.model;
  // A pipeline's stages would have to go through the schedule again together: they are told apart by --pp 1.
  const where = layout.total > 1
    ? "run it with --pp 1 to learn where it first appeared"
    : await firstNonFinite(run.model, shareOf(run).count, (i) => {
      run.model.beginStep(batchSize * sequenceLength);
      stage(run, step, i, 0);
    });
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
  run.shares = rebalance(shares, executor.group("world").sumNumbers(told));
  if (run.shares !== shares) run.post({ type: "balance", step, shares: run.shares });
}

/** Trains until the last step or until asked to stop. */
async function loop(run: Run): Promise<{ step: number; stopped: boolean }> {
  const { job, model, post } = run;
  const { settings, firstStep, sequenceLength } = job;
  let sent = 0;
  let settled = performance.now();
  let usual = Infinity;
  let step = firstStep;
  let stopped = false;
  while (step < settings.steps && !stopped) {
    step++;
    const start = performance.now();
    const inCollectives = run.executor.milliseconds;
    await trainStep(run, step);
    const learningRate = learningRateAt(step, settings);
    const { beta1, beta2, epsilon, weightDecay, clip } = settings;
    await model.update({ learningRate, beta1, beta2, epsilon, weightDecay, clip, step });
    const gradNorm = await model.gradientNorm();
    // Rank 0 alone decides on stopping, so that all stop at the same step.
    const asked = job.rank === 0 && Atomics.load(run.control, controlSlots.stop) !== 0 ? job.mesh.tensor : 0;
    const [lossSum, stopping] = sumOverRanks(run, await model.lossSum(), asked);
    const loss = lossSum / (settings.batchSize * sequenceLength);
    if (!Number.isFinite(loss) || !Number.isFinite(gradNorm)) await failNonFinite(run, step, loss, gradNorm);
    const milliseconds = performance.now() - start;
    const shared = run.executor.milliseconds - inCollectives;
    const told = { type: "step", step, loss, gradNorm, learningRate, milliseconds } as const;
    post(model.model.layout.world > 1 ? { ...told, collectiveMilliseconds: shared } : told);
    beat(run);
    stopped = stopping > 0;

    // The first two steps compile and are timed; a step much slower than the third says that the device has slowed down.
    if (step > firstStep + 2) {
      run.onSteady();
      // Time spent with other ranks says nothing of this one's device.
      const own = milliseconds - shared;
      if (own > slowdown * usual) model.program.recalibrate();
      usual = Math.min(usual, own);
      if (job.rebalances) balance(run, step, own);
    }
    const last = stopped || step === settings.steps;
    if (last || (settings.evalInterval > 0 && step % settings.evalInterval === 0)) {
      post({ type: "evaluation", step, loss: await evaluate(run) });
    }
    if (last || (settings.checkpointInterval > 0 && step % settings.checkpointInterval === 0)) {
      await checkpoint(run, step, sent++);
    }
    if (performance.now() - settled > settleMilliseconds) {
      await model.program.device.settle();
      settled = performance.now();
    }
  }
  return { step, stopped: stopped && step < settings.steps };
}

/** Trains as the job says, telling by `post`; the last message comes when the device has been let go. */
export async function trainOnRank(job: RankJob, post: (message: RankMessage) => void): Promise<void> {
  // What all ranks know alike, rank 0 tells.
  const tell = (message: RankMessage) => {
    const own = message.type === "opened" || message.type === "ready" || message.type === "done";
    if (own || job.rank === 0) post(message);
  };
  const { step, stopped } = await trainOnDevice(job, tell);
  tell({ type: "done", step, stopped });
}

async function trainOnDevice(
  job: RankJob,
  post: (message: RankMessage) => void,
): Promise<{ step: number; stopped: boolean }> {
  const { settings, configuration, sequenceLength, mesh, rank } = job;
  let data: Dataset | undefined;
  let device: Device | undefined;
  let model: ModelProgram | undefined;
  try {
    data = openDataset(job.dataFolder);
    const training = createLoader(data.train, { sequenceLength, seed: settings.seed });
    const count = settings.evalBatches * settings.batchSize;
    const validation = validationLoader(data.validation, { sequenceLength, count });
    device = await openDevice({ selection: job.selection, environment: job.environment });
    post({ type: "opened" });
    const control = new Int32Array(job.control);
    // While kernels are compiled and timed, others wait longer.
    let steady = false;
    const limit = () =>
      steady ? settings.stallTimeout * 1e3 : Math.max(firstStepsMilliseconds, settings.stallTimeout * 1e3);
    const executor = new SharedMemoryExecutor(job.executor, limit);
    const copy = job.copies[coordinatesOf(mesh, rank).data];
    const layout = layoutOf(configuration, mesh, rank, settings, copy);
    const options = {
      configuration,
      sequenceLength,
      segments: ["train", "evaluate"] as const,
      dropout: settings.dropout,
      layout,
    };
    const microBatch = chooseMicroBatch(device, job, options);
    model = await ModelProgram.create(device, { ...options, batch: microBatch }, executor);
    load(model, job);
    // What ranks share in host memory is there from here on.
    executor.group("world").sumNumbers([0]);
    post({
      type: "ready",
      device: device.capabilities.name,
      microBatchSize: microBatch,
      bytes: model.program.plan.totalBytes,
      memory: describeBytes(model.program.plan),
    });
    return await loop({
      job,
      executor,
      shares: job.copies.map(({ share }) => share),
      schedule: mesh.pipeline > 1 ? scheduleOf(mesh, rank, settings, copy) : undefined,
      model,
      control,
      microBatch,
      training,
      validation,
      tokens: new Uint32Array(microBatch * sequenceLength),
      targets: new Int32Array(microBatch * sequenceLength),
      post,
      onSteady: () => steady = true,
    });
  } finally {
    data?.close();
    model?.destroy();
    await device?.destroy();
  }
}
