/**
 * The training loop of a rank.
 * @module
 */

import { openSafetensors } from "../data/safetensors.ts";
import { type Dataset, openDataset } from "../data/dataset.ts";
import { createLoader, type Loader, validationLoader } from "../data/loader.ts";
import { openModelFolder } from "../data/safetensors.ts";
import { MachineError, UserError } from "../errors.ts";
import type { Device } from "../gpu/device.ts";
import { openDevice } from "../gpu/open.ts";
import { assertFits, describeBytes, makePlan, usableMemory } from "../graph/plan.ts";
import { learningRateAt } from "./learning_rate.ts";
import { buildModelGraph, type ModelGraphOptions } from "./model_graph.ts";
import { ModelProgram, statePrefixes } from "./model_program.ts";
import { firstNonFinite } from "./non_finite.ts";
import { controlSlots, type RankJob, type RankMessage } from "./rank_protocol.ts";

/** Time allowed for a checkpoint to reach the disk before the next is taken, in ms. */
const saveMilliseconds = 30 * 60_000;
/** Un-awaited mappings are let go this often, in ms. */
const settleMilliseconds = 2000;
/** A step this many times slower than it was when its submits were sized is timed anew. */
const slowdown = 3;

/** Sequences computed at a time: what was asked for, or the largest divisor of the batch whose plan fits the device. */
function chooseMicroBatch(device: Device, job: RankJob, options: Omit<ModelGraphOptions, "batch">): number {
  const { batchSize, microBatchSize } = job.settings;
  if (microBatchSize !== undefined) {
    if (batchSize % microBatchSize !== 0) {
      throw new UserError(`--micro-batch-size ${microBatchSize} does not divide --batch-size ${batchSize}`);
    }
    return microBatchSize;
  }
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
  readonly model: ModelProgram;
  readonly control: Int32Array;
  readonly microBatch: number;
  readonly training: Loader;
  readonly validation: Loader;
  readonly tokens: Uint32Array;
  readonly targets: Int32Array;
  readonly post: (message: RankMessage) => void;
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

/** Mean loss over the validation samples. */
async function evaluate(run: Run): Promise<number> {
  const { samplesPerEpoch } = run.validation;
  run.model.beginStep(1);
  for (let first = 0; first < samplesPerEpoch; first += run.microBatch) {
    fill(run, run.validation, first, samplesPerEpoch - first);
    await run.model.evaluate(run.tokens, run.targets);
    beat(run);
  }
  return await run.model.lossSum() / (samplesPerEpoch * run.job.sequenceLength);
}

/** Sends weights and optimizer state away; waits until the checkpoint before is on the disk. */
async function checkpoint(run: Run, step: number, sent: number): Promise<void> {
  for (let saved = Atomics.load(run.control, controlSlots.saved); saved < sent;) {
    if (Atomics.wait(run.control, controlSlots.saved, saved, saveMilliseconds) === "timed-out") {
      throw new MachineError(
        `The checkpoint before step ${step} was not written within 30 minutes: is the disk stuck?`,
      );
    }
    saved = Atomics.load(run.control, controlSlots.saved);
  }
  const weights = await run.model.save("weights");
  const optimizer = [
    ...await run.model.save("firstMoment", statePrefixes.firstMoment),
    ...await run.model.save("secondMoment", statePrefixes.secondMoment),
  ];
  run.post({ type: "checkpoint", step, weights, optimizer });
  beat(run);
}

/** All micro-batches of a step. */
async function trainStep(run: Run, step: number): Promise<void> {
  const { settings: { batchSize, seed }, sequenceLength } = run.job;
  run.model.beginStep(batchSize * sequenceLength);
  for (let done = 0; done < batchSize; done += run.microBatch) {
    fill(run, run.training, (step - 1) * batchSize + done, run.microBatch);
    await run.model.train(run.tokens, run.targets, { seed, step, firstRow: done * sequenceLength });
    beat(run);
  }
}

async function failNonFinite(run: Run, step: number, loss: number, gradNorm: number): Promise<never> {
  const what = Number.isFinite(loss) ? `the gradient norm is ${gradNorm}` : `the loss is ${loss}`;
  const { settings: { batchSize, seed }, sequenceLength } = run.job;
  const where = await firstNonFinite(run.model, batchSize / run.microBatch, (i) => {
    fill(run, run.training, (step - 1) * batchSize + i * run.microBatch, run.microBatch);
    run.model.beginStep(batchSize * sequenceLength);
    run.model.stage(run.tokens, run.targets, { seed, step, firstRow: i * run.microBatch * sequenceLength });
  });
  throw new MachineError(
    `Training stopped at step ${step}: ${what}; ${where}. The weights were left as they were before the step: ` +
      `lower --learning-rate, or look at the data`,
  );
}

/** Trains until the last step or until asked to stop. */
async function loop(run: Run): Promise<{ step: number; stopped: boolean }> {
  const { job: { settings, firstStep, sequenceLength }, model, post } = run;
  let sent = 0;
  let settled = performance.now();
  let usual = Infinity;
  let step = firstStep;
  let stopped = false;
  while (step < settings.steps && !stopped) {
    step++;
    const start = performance.now();
    await trainStep(run, step);
    const learningRate = learningRateAt(step, settings);
    const { beta1, beta2, epsilon, weightDecay, clip } = settings;
    await model.update({ learningRate, beta1, beta2, epsilon, weightDecay, clip, step });
    const gradNorm = await model.gradientNorm();
    const loss = await model.lossSum() / (settings.batchSize * sequenceLength);
    if (!Number.isFinite(loss) || !Number.isFinite(gradNorm)) await failNonFinite(run, step, loss, gradNorm);
    const milliseconds = performance.now() - start;
    post({ type: "step", step, loss, gradNorm, learningRate, milliseconds });
    beat(run);
    stopped = Atomics.load(run.control, controlSlots.stop) !== 0;

    // The first two steps compile and are timed; a step much slower than the third says that the device has slowed down.
    if (step > firstStep + 2) {
      if (milliseconds > slowdown * usual) model.program.recalibrate("train");
      usual = Math.min(usual, milliseconds);
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

function load(model: ModelProgram, job: RankJob): void {
  const folder = job.resumeFolder ?? job.initFolder;
  if (folder === undefined) {
    model.initialize(job.settings.seed);
    return;
  }
  const weights = openModelFolder(folder);
  model.load(weights);
  weights.close();
  if (job.resumeFolder === undefined) return;
  const optimizer = openSafetensors(`${job.resumeFolder}/optimizer.safetensors`);
  model.load(optimizer, "firstMoment", statePrefixes.firstMoment);
  model.load(optimizer, "secondMoment", statePrefixes.secondMoment);
  optimizer.close();
}

/** Trains as the job says, telling by `post`; the last message comes when the device has been let go. */
export async function trainOnRank(job: RankJob, post: (message: RankMessage) => void): Promise<void> {
  const { step, stopped } = await trainOnDevice(job, post);
  post({ type: "done", step, stopped });
}

async function trainOnDevice(
  job: RankJob,
  post: (message: RankMessage) => void,
): Promise<{ step: number; stopped: boolean }> {
  const { settings, configuration, sequenceLength } = job;
  let data: Dataset | undefined;
  let device: Device | undefined;
  let model: ModelProgram | undefined;
  try {
    data = openDataset(job.dataFolder);
    const training = createLoader(data.train, { sequenceLength, seed: settings.seed });
    const count = settings.evalBatches * settings.batchSize;
    const validation = validationLoader(data.validation, { sequenceLength, count });
    device = await openDevice();
    const options = {
      configuration,
      sequenceLength,
      segments: ["train", "evaluate"] as const,
      dropout: settings.dropout,
    };
    const microBatch = chooseMicroBatch(device, job, options);
    model = await ModelProgram.create(device, { ...options, batch: microBatch });
    assertFits(model.program.plan, device.capabilities.memoryBytes);
    load(model, job);
    post({
      type: "ready",
      device: device.capabilities.name,
      microBatchSize: microBatch,
      bytes: model.program.plan.totalBytes,
      memory: describeBytes(model.program.plan),
    });
    return await loop({
      job,
      model,
      control: new Int32Array(job.control),
      microBatch,
      training,
      validation,
      tokens: new Uint32Array(microBatch * sequenceLength),
      targets: new Int32Array(microBatch * sequenceLength),
      post,
    });
  } finally {
    data?.close();
    model?.destroy();
    await device?.destroy();
  }
}
