/**
 * `muster bench`: the ceilings of a device, every kernel and a training step as shares of them.
 *
 * It is a room of the program, between the command line and the trainer, since the finished executable has it too.
 * @module
 */

import { UserError } from "../errors.ts";
import type { Device } from "../gpu/device.ts";
import { kernelCeilings, measureCeilings, type MeasuredCeilings } from "./ceilings.ts";
import { type KernelCase, kernelCases } from "./kernel_cases.ts";
import { prepareCase, type PreparedCase } from "./kernel_subjects.ts";
import { type Ceilings, type Roofline, roofline } from "./roofline.ts";
import { timeAll, type TimingOptions, usualTiming } from "./timing.ts";
import { type StepResult, timeTrainingStep } from "./training_step.ts";

/** A kernel under the roofline. */
export interface KernelResult extends Roofline {
  readonly name: string;
  readonly op: string;
  readonly milliseconds: number;
  readonly flops: number;
  readonly bytes: number;
  /** As measured in the same rounds. */
  readonly ceilings: Ceilings;
}

/** All that was measured. */
export interface BenchResult {
  readonly device: string;
  readonly subgroupSize: number;
  readonly ceilings: MeasuredCeilings | undefined;
  readonly kernels: readonly KernelResult[];
  readonly steps: readonly StepResult[];
}

/** What is to be measured. */
export interface Selected {
  readonly ceilings: boolean;
  readonly cases: readonly KernelCase[];
  readonly workloads: readonly ("small" | "medium")[];
}

/** How to go about it. */
export interface BenchOptions extends Partial<TimingOptions> {
  /** Told what comes next. */
  readonly onProgress?: (what: string) => void;
  readonly onCeilings?: (ceilings: MeasuredCeilings) => void;
  readonly onKernel?: (kernel: KernelResult) => void;
  readonly onStep?: (step: StepResult) => void;
}

/** Cases are timed in groups that need about so much device memory, each with ceilings of its own. */
const casesAtATime = 6;

/** The words that select something: parts, and ops by name. */
export function selectable(cases: readonly KernelCase[] = kernelCases()): string[] {
  const ops = new Set(cases.map(({ definition }) => definition.name));
  return ["ceilings", "kernels", "step", "medium", ...ops];
}

/** What these words select: all but `medium` without any. */
export function select(words: readonly string[], cases: readonly KernelCase[] = kernelCases()): Selected {
  const known = selectable(cases);
  const wrong = words.find((word) => !known.includes(word));
  if (wrong !== undefined) throw new UserError(`There is nothing to measure by the name ${wrong}: ${known.join(", ")}`);
  const all = words.length === 0;
  return {
    ceilings: all || words.includes("ceilings"),
    cases: all || words.includes("kernels") ? cases : cases.filter(({ definition }) => words.includes(definition.name)),
    workloads: [
      ...(all || words.includes("step") ? ["small" as const] : []),
      ...(words.includes("medium") ? ["medium" as const] : []),
    ],
  };
}

async function timeCases(
  device: Device,
  cases: readonly KernelCase[],
  timing: TimingOptions,
  { onProgress = () => {} }: BenchOptions,
): Promise<KernelResult[]> {
  const prepared: PreparedCase[] = [];
  const own = await kernelCeilings(device);
  try {
    for (const test of cases) {
      onProgress(`compiling ${test.name}`);
      prepared.push(await prepareCase(device, test));
    }
    onProgress(`timing ${cases[0].name} and others`);
    const subjects = prepared.flatMap(({ subjects }) => subjects);
    const times = await timeAll(device, [...own.subjects, ...subjects], timing);
    const ceilings = own.ceilings(times);
    return subjects.map(({ name, op, flops, bytes }, i) => {
      const milliseconds = times[own.subjects.length + i];
      return { name, op, milliseconds, flops, bytes, ceilings, ...roofline({ flops, bytes, milliseconds }, ceilings) };
    });
  } finally {
    prepared.forEach(({ destroy }) => destroy());
    own.destroy();
  }
}

/** Measures what is selected. */
export async function bench(device: Device, selected: Selected, options: BenchOptions = {}): Promise<BenchResult> {
  const { onProgress = () => {}, onCeilings = () => {}, onKernel = () => {}, onStep = () => {} } = options;
  const timing = { ...usualTiming, ...options };
  let ceilings: MeasuredCeilings | undefined;
  if (selected.ceilings) {
    onProgress("ceilings");
    onCeilings(ceilings = await measureCeilings(device, timing));
  }
  const kernels: KernelResult[] = [];
  for (let first = 0; first < selected.cases.length; first += casesAtATime) {
    const measured = await timeCases(device, selected.cases.slice(first, first + casesAtATime), timing, options);
    measured.forEach(onKernel);
    kernels.push(...measured);
  }
  const steps: StepResult[] = [];
  for (const workload of selected.workloads) {
    const step = await timeTrainingStep(device, workload, (step, count) => {
      onProgress(`training the ${workload} GPT, step ${step} of ${count}`);
    });
    onStep(step);
    steps.push(step);
  }
  const { name, subgroupSize } = device.capabilities;
  return { device: name, subgroupSize, ceilings, kernels, steps };
}
