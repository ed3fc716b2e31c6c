/**
 * `deno task bench [--json] [matmul] [kernels] [step] [medium]`: this adapter's multiply-add peak, kernels as shares of it,
 * measured in one run and interleaved, medians of several, and the time of a training step (`medium` only if it is named).
 */

import type { Device } from "../gpu/device.ts";
import { openDevice } from "../gpu/open.ts";
import { Graph, type OpDefinition } from "../graph/graph.ts";
import { Program } from "../graph/program.ts";
import { elementCount, type Tensor } from "../graph/tensor.ts";
import { attention } from "../kernels/attention.ts";
import { gelu } from "../kernels/gelu.ts";
import { layernorm } from "../kernels/layernorm.ts";
import { matmul } from "../kernels/matmul.ts";
import { softmax } from "../kernels/softmax.ts";
import { ModelProgram } from "../train/model_program.ts";
import { multiplyAddPeak } from "./peak.ts";
import { batches, initialWeights, optimizer, workloads } from "./workloads.ts";

/** One row of the result. */
interface Row {
  readonly name: string;
  /** Median time, in ms. */
  readonly milliseconds: number;
  readonly gflops: number;
  /** Of the multiply-add peak. */
  readonly share: number;
}

const json = Deno.args.includes("--json");
const wanted = Deno.args.filter((arg) => !arg.startsWith("-"));
const wants = (name: string) => wanted.length === 0 || wanted.includes(name);
/** Timed rounds; every subject is timed once in each. */
const rounds = 7;
/** Work is repeated until a sample takes about this long, in ms. */
const sampleMilliseconds = 60;

/** Something timed: `run` submits it once. */
interface Subject {
  readonly name: string;
  readonly flops: number;
  readonly run: () => void;
  readonly destroy: () => void;
}

async function opSubject(
  device: Device,
  name: string,
  definition: OpDefinition,
  shapes: number[][],
  attributes: unknown,
): Promise<Subject> {
  const graph = new Graph();
  const inputs: Tensor[] = shapes.map((shape, i) => graph.tensor(`x${i}`, shape, "input"));
  graph.segment("run", () => graph.add(definition, inputs, attributes));
  const program = await Program.create(device, graph);
  for (const tensor of inputs) {
    program.write(tensor, Float32Array.from({ length: elementCount(tensor) }, (_, i) => Math.sin(i * 12.9898) * 0.5));
  }
  const flops = program.plan.segments.get("run")!.flatMap(({ dispatches }) => dispatches)
    .reduce((sum, dispatch) => sum + dispatch.flops, 0);
  // The first run compiles, the second is timed dispatch by dispatch.
  program.run("run");
  program.run("run");
  return { name, flops, run: () => void program.run("run"), destroy: () => program.destroy() };
}

const median = (values: number[]) => [...values].sort((a, b) => a - b)[values.length >> 1];

/** Times subjects and the peak in turn, round by round, so that all meet the machine in the same moods. */
function timeAll(device: Device, peak: Subject, subjects: readonly Subject[]): Row[] {
  const all = [peak, ...subjects];
  const times = all.map((): number[] => []);
  const repeats = all.map(({ run }) => {
    device.drain();
    const start = performance.now();
    run();
    device.drain();
    return Math.max(1, Math.round(sampleMilliseconds / (performance.now() - start)));
  });
  for (let round = 0; round < rounds; round++) {
    all.forEach(({ run }, i) => {
      device.drain();
      const start = performance.now();
      for (let j = 0; j < repeats[i]; j++) run();
      device.drain();
      times[i].push((performance.now() - start) / repeats[i]);
    });
  }
  const rate = all.map(({ flops }, i) => flops / median(times[i]) / 1e6);
  return all.map(({ name }, i) => ({
    name,
    milliseconds: median(times[i]),
    gflops: rate[i],
    share: rate[i] / rate[0],
  }));
}

// Attributes differ by op; the op checks them.
const any = (definition: unknown) => definition as OpDefinition;

const device = await openDevice();
const peak = await multiplyAddPeak(device);
const subjects: Subject[] = [];
if (wants("matmul")) {
  for (const [M, K, N] of [[1024, 768, 768], [1024, 128, 384], [1024, 512, 128]]) {
    for (const layout of ["NN", "NT", "TN"] as const) {
      const shapes = [layout === "TN" ? [K, M] : [M, K], layout === "NT" ? [N, K] : [K, N]];
      subjects.push(await opSubject(device, `matmul ${layout} ${M}x${K}x${N}`, any(matmul), shapes, { layout }));
    }
  }
}
if (wants("kernels")) {
  const heads = { heads: 4, keyValueHeads: 4, headSize: 32, sequenceLength: 128 };
  subjects.push(
    await opSubject(device, "attention 8x4x128x32", any(attention), [[1024, 384]], heads),
    await opSubject(device, "layernorm 1024x768", any(layernorm), [[1024, 768], [768], [768]], { epsilon: 1e-5 }),
    await opSubject(device, "softmax 1024x768", any(softmax), [[1024, 768]], {}),
    await opSubject(device, "gelu 1024x3072", any(gelu), [[1024, 3072]], {}),
  );
}
const rows = timeAll(device, peak, subjects);
subjects.forEach((subject) => subject.destroy());
peak.destroy();

/** What training one workload took and gave. */
interface StepResult {
  readonly workload: string;
  readonly milliseconds: number;
  readonly tokensPerSecond: number;
  readonly losses: readonly number[];
}

async function trainingStep(name: keyof typeof workloads): Promise<StepResult> {
  const workload = workloads[name];
  const { configuration, batch, sequenceLength } = workload;
  const model = await ModelProgram.create(device, { configuration, batch, sequenceLength, segments: ["train"] });
  for (const { parameter, tensor } of model.parameters) {
    model.program.write(tensor, initialWeights(workload, parameter.name));
  }
  const next = batches(workload);
  const times: number[] = [];
  const losses: number[] = [];
  const count = batch * sequenceLength;
  for (let i = 1; i <= workload.steps; i++) {
    const { tokens, targets } = next();
    const start = performance.now();
    model.beginStep(count);
    await model.train(tokens, targets);
    await model.update({ ...optimizer, step: i });
    losses.push(await model.lossSum() / count);
    times.push(performance.now() - start);
  }
  model.destroy();
  // The first steps compile and are measured dispatch by dispatch.
  const milliseconds = median(times.slice(3));
  return { workload: name, milliseconds, tokensPerSecond: count / milliseconds * 1e3, losses };
}

const steps: StepResult[] = [];
if (wants("step")) steps.push(await trainingStep("small"));
if (wanted.includes("medium")) steps.push(await trainingStep("medium"));
if (json) {
  console.log(JSON.stringify({ device: device.capabilities.name, deno: Deno.version.deno, rows, steps }));
} else {
  console.log(`${device.capabilities.name}, Deno ${Deno.version.deno}\n`);
  console.log(`${"".padEnd(26)}${"ms".padStart(9)}${"GFLOP/s".padStart(10)}${"of peak".padStart(10)}`);
  for (const { name, milliseconds, gflops, share } of rows) {
    const line = `${name.padEnd(26)}${milliseconds.toFixed(2).padStart(9)}${gflops.toFixed(1).padStart(10)}`;
    console.log(`${line}${share.toFixed(2).padStart(10)}`);
  }
  for (const { workload, milliseconds, tokensPerSecond, losses } of steps) {
    const ends = `loss ${losses[0].toFixed(4)} → ${losses[losses.length - 1].toFixed(4)}`;
    console.log(
      `\nstep of the ${workload} GPT: ${milliseconds.toFixed(0)} ms, ${tokensPerSecond.toFixed(0)} tokens/s; ${ends}`,
    );
  }
}
await device.destroy();
