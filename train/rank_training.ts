/**
 * The training loop of a rank.
 * @module
 */

import { openDataset } from "../data/dataset.ts";
import { createLoader, validationLoader } from "../data/loader.ts";
import type { Device } from "../gpu/device.ts";
import { openPeak } from "../gpu/peak.ts";
import { Trace } from "../gpu/trace.ts";
import { describeBytes, makePlan, usableMemory } from "../graph/plan.ts";
import { modelFlopsUtilization } from "../model/flops.ts";
import { layoutOf, scheduleOf } from "./launch.ts";
import { learningRateAt } from "./learning_rate.ts";
import { buildModelGraph } from "./model_graph.ts";
import { failNonFinite } from "./non_finite.ts";
import { checkpoint } from "./rank_checkpoint.ts";
import type { ModelGraphOptions } from "./rank_layout.ts";
import { withModel } from "./rank_model.ts";
import { controlSlots, patienceOf, type RankJob, type RankMessage } from "./rank_protocol.ts";
import { beat, doing, type Run, shareOf, sumOverRanks, traceWith } from "./rank_run.ts";
import { compareSpeeds } from "./rank_speed.ts";
import { load, loadScaler } from "./rank_state.ts";
import { evaluate, prepare, trainStep } from "./rank_step.ts";
import { traceSteps } from "./trace_file.ts";

/** A step this many times slower than it was when its submits were sized is timed anew: these stay under 200 ms. */
const slowdown = 1.6;

/** Sequences computed at a time: what was asked for, or the largest divisor of the batch whose plan fits the device. */
function chooseMicroBatch(device: Device, job: RankJob, options: Omit<ModelGraphOptions, "batch">): number {
  const { microBatchSize } = job.copies[job.copy];
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

/** Skips a step whose gradients are too large for f16; false if the norm is not finite and that is no remedy. */
function settleScale({ model, executor, scaler }: Run, gradNorm: number): boolean {
  const finite = Number.isFinite(gradNorm);
  if (!scaler) return finite;
  if (finite) scaler.good();
  else if (!scaler.overflowed()) return false;
  model.lossScale = executor.scale = scaler.scale;
  return true;
}

/** Trains until the last step or until asked to stop. */
async function loop(run: Run): Promise<{ step: number; stopped: boolean; regroups: boolean }> {
  const { job, model, scaler, post } = run;
  const { settings, firstStep, sequenceLength } = job;
  // Time of a micro-batch in the first step whose submits were sized, and steps until there is one.
  let reference: number | undefined;
  let untimed = 0;
  let step = firstStep;
  let stopped = false;
  let regroups = false;
  let trace = settings.trace === undefined ? undefined : new Trace();
  traceWith(run, trace);
  while (step < settings.steps && !stopped && !regroups) {
    step++;
    const start = performance.now();
    const inCollectives = run.executor.milliseconds;
    trace?.next(0, `step ${step}`, "step");
    const { lossScale } = model;
    await trainStep(run, step);
    const learningRate = learningRateAt(step, settings);
    doing(run, "the optimizer", step);
    const { beta1, beta2, epsilon, weightDecay, clip } = settings;
    // Steps that were skipped are none to the moments.
    const updates = step - (scaler?.skipped ?? 0);
    await model.update({ learningRate, beta1, beta2, epsilon, weightDecay, clip, step: updates });
    prepare(run, step + 1, 0);
    doing(run, "reading the gradient norm and the loss", step);
    const gradNorm = await model.gradientNorm();
    // Each machine's rank 0 tells of a wish to stop or to join, so that all ranks hear of it in the same step.
    const asked = job.rank === 0 && Atomics.load(run.control, controlSlots.stop) !== 0 ? job.mesh.tensor : 0;
    const arrived = job.rank === 0 && Atomics.load(run.control, controlSlots.newcomers) !== 0 ? job.mesh.tensor : 0;
    // Each rank brings its share of what its device was measured to do.
    const ownPeak = job.mesh.tensor * run.peak.flopsPerSecond / job.sharers;
    const [lossSum, stopping, joining, peak] = sumOverRanks(run, "the sum of losses", [
      await model.lossSum(),
      asked,
      arrived,
      ownPeak,
    ]);
    const tokens = settings.batchSize * sequenceLength;
    const loss = lossSum / tokens;
    if (!Number.isFinite(loss) || !settleScale(run, gradNorm)) await failNonFinite(run, step, loss, gradNorm);
    const milliseconds = performance.now() - start;
    const shared = run.executor.milliseconds - inCollectives;
    const utilization = modelFlopsUtilization(job.configuration, { sequenceLength, tokens, milliseconds }, peak);
    const told = {
      type: "step",
      step,
      loss,
      gradNorm,
      learningRate,
      milliseconds,
      modelFlopsUtilization: utilization,
      ...(scaler ? { lossScale, skipped: scaler.skipped } : {}),
    } as const;
    post(model.model.layout.world > 1 ? { ...told, collectiveMilliseconds: shared } : told);
    beat(run);
    stopped = stopping > 0;

    // The second step is timed dispatch by dispatch; one slower than that which followed them says that the device has slowed down.
    if (step > firstStep + 2) {
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
      compareSpeeds(run, step, own);
    }
    const last = stopped || step === settings.steps;
    regroups = joining > 0 && !last;
    if (last || (settings.evalInterval > 0 && step % settings.evalInterval === 0)) {
      post({ type: "evaluation", step, loss: await evaluate(run, step) });
    }
    if (last || regroups) Atomics.store(run.control, controlSlots.parted, 1);
    const due = (interval: number) => interval > 0 && step % interval === 0;
    const save = last || due(settings.checkpointInterval);
    const several = job.world.machine.size > 1;
    if (save || regroups || (several && due(settings.commitSteps))) await checkpoint(run, step, save);
    if (trace) post({ type: "trace", spans: trace.take() });
    if (step - firstStep === traceSteps) traceWith(run, trace = undefined);
    if (await model.program.device.settleNowAndThen()) run.peak.measure();
  }
  return { step, stopped: stopped && step < settings.steps, regroups };
}

/** Trains as the job says, telling by `post`; the last message comes when the device has been let go. */
export async function trainOnRank(job: RankJob, post: (message: RankMessage) => void): Promise<void> {
  const { settings, configuration, sequenceLength, mesh, rank } = job;
  // What all ranks know alike, rank 0 tells.
  const tell = (message: RankMessage) => {
    const own = ["opened", "planned", "trace", "done", "failing"].includes(message.type);
    if (own || rank === 0) post(message);
  };
  const copy = job.copies[job.copy];
  const data = openDataset(job.dataFolder);
  try {
    const ended = await withModel(job, tell, {
      options(device) {
        const layout = layoutOf(configuration, mesh, rank, settings, copy, job.world.machine.size);
        const segments = ["train", "evaluate"] as const;
        const options = { configuration, sequenceLength, segments, dropout: settings.dropout, layout };
        return { ...options, batch: chooseMicroBatch(device, job, options) };
      },
      planned: ({ capabilities }, { batch }, plan) =>
        tell({
          type: "planned",
          device: capabilities.name,
          microBatchSize: batch,
          bytes: plan.totalBytes,
          memory: describeBytes(plan),
        }),
      load: (model) => load(model, job),
      async run(model, executor) {
        const { options: { batch }, layout: { total } } = model.model;
        executor.status.allow(rank, patienceOf(settings).usual);
        const count = settings.evalBatches * settings.batchSize;
        const scaler = loadScaler(job);
        model.lossScale = executor.scale = scaler?.scale ?? 1;
        const peak = await openPeak(model.program.device);
        const ended = await loop({
          job,
          executor,
          shares: job.copies.map(({ share }) => share),
          schedule: total > 1 ? scheduleOf(mesh, rank, settings, copy) : undefined,
          model,
          scaler,
          control: new Int32Array(job.control),
          microBatch: batch,
          training: createLoader(data.train, { sequenceLength, seed: settings.seed }),
          validation: validationLoader(data.validation, { sequenceLength, count }),
          tokens: new Uint32Array(batch * sequenceLength),
          targets: new Int32Array(batch * sequenceLength),
          prepared: undefined,
          post: tell,
          commits: 0,
          slowLooks: [],
          peak,
        });
        peak.destroy();
        return ended;
      },
    });
    tell({ type: "done", ...ended });
  } finally {
    data.close();
  }
}
