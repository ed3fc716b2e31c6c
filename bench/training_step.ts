/**
 * A whole training step: its time, what of the device's peak it makes use of, and what of its time the device is idle.
 * @module
 */

import type { Device } from "../gpu/device.ts";
import { PassTimer } from "../gpu/pass_timer.ts";
import { openPeak } from "../gpu/peak.ts";
import { modelFlopsPerToken, modelFlopsUtilization } from "../model/flops.ts";
import { ModelProgram } from "../train/model_program.ts";
import { median } from "./roofline.ts";
import { batches, initialWeights, optimizer, workloads } from "./workloads.ts";

/** What training a workload took and gave. */
export interface StepResult {
  readonly workload: string;
  readonly milliseconds: number;
  readonly tokensPerSecond: number;
  /** By the model's formulas (`modelFlopsPerToken`). */
  readonly modelFlops: number;
  /** Of the dispatches, as their kernels count: what the device computes. */
  readonly kernelFlops: number;
  /** The model's FLOPs as a share of the multiply-add peak, which is measured between the steps. */
  readonly modelFlopsUtilization: number;
  /** Share of the step's time in which no pass runs; null where the device has no timestamps. */
  readonly outsideGpu: number | null;
  readonly losses: readonly number[];
}

/** The first steps compile and are measured dispatch by dispatch. */
const untimedSteps = 3;

/** Trains a workload as many steps as it says. */
export async function timeTrainingStep(
  device: Device,
  name: keyof typeof workloads,
  progress: (step: number, steps: number) => void = () => {},
): Promise<StepResult> {
  const workload = workloads[name];
  const { configuration, batch, sequenceLength, steps } = workload;
  const model = await ModelProgram.create(device, { configuration, batch, sequenceLength, segments: ["train"] });
  for (const { parameter, tensor } of model.parameters) {
    model.program.write(tensor, initialWeights(workload, parameter.name));
  }
  const peak = await openPeak(device);
  const timer = PassTimer.works(device) ? new PassTimer(device) : undefined;
  const next = batches(workload);
  const taken: { milliseconds: number; peak: number }[] = [];
  const outside: number[] = [];
  const losses: number[] = [];
  const count = batch * sequenceLength;
  for (let step = 1; step <= steps; step++) {
    progress(step, steps);
    const { tokens, targets } = next();
    // In the steps before, dispatches are timed one by one, in passes without number. Every second step has its passes timed, which
    // costs time: 5% of a step of 50 passes on lavapipe.
    const timesPasses = timer !== undefined && step > untimedSteps && step % 2 === 1;
    if (timesPasses) device.passTimer = timer;
    const start = performance.now();
    model.beginStep(count);
    await model.train(tokens, targets);
    await model.update({ ...optimizer, step });
    losses.push(await model.lossSum() / count);
    const milliseconds = performance.now() - start;
    device.passTimer = undefined;
    if (timesPasses) outside.push(1 - await timer.take() / milliseconds);
    const rate = peak.measure();
    if (step > untimedSteps && !timesPasses) taken.push({ milliseconds, peak: rate });
  }
  const kernelFlops = ["train", "update"].flatMap((segment) => [...model.program.plan.segments.get(segment)!])
    .flatMap(({ dispatches }) => dispatches).reduce((sum, { flops }) => sum + flops, 0);
  peak.destroy();
  timer?.destroy();
  model.destroy();
  const milliseconds = median(taken.map(({ milliseconds }) => milliseconds));
  return {
    workload: name,
    milliseconds,
    tokensPerSecond: count / milliseconds * 1e3,
    modelFlops: modelFlopsPerToken(configuration, sequenceLength) * count,
    kernelFlops,
    modelFlopsUtilization: median(
      taken.map(({ milliseconds, peak }) =>
        modelFlopsUtilization(configuration, { sequenceLength, tokens: count, milliseconds }, peak)
      ),
    ),
    outsideGpu: timer ? Math.max(0, median(outside)) : null,
    losses,
  };
}
