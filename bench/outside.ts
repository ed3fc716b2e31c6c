/**
 * Time of a step in which the device has nothing to do, for a model of 10 million parameters: two measures.
 * `deno task bench:outside [--json]`
 *
 * Idle: a rank trains in this thread; from the return of a wait, when all that was submitted is done, to the return of
 * the next submit. Against the device: the same step handed over several times without a wait, its time per step.
 */

import { openDevice } from "../gpu/open.ts";
import { makeJobs } from "../train/make_jobs.ts";
import { ModelProgram } from "../train/model_program.ts";
import { prepareRun } from "../train/prepare_run.ts";
import { RunStatus } from "../parallel/status.ts";
import { trainOnRank } from "../train/rank_training.ts";
import { RunState } from "../train/run_state.ts";
import { soleMachine } from "../train/run_world.ts";
import { optimizer } from "./workloads.ts";

type Method = (this: unknown, ...values: unknown[]) => unknown;

/** Calls `behind` when `prototype[name]` has returned. */
function behind(prototype: object, name: string, call: () => void): void {
  const original = Reflect.get(prototype, name) as Method;
  Reflect.set(prototype, name, function (this: unknown, ...values: unknown[]) {
    const result = original.apply(this, values);
    call();
    return result;
  });
}

/** Adds up the time in which every device of this thread has nothing to do, in ms. */
export function watchIdleness(): { milliseconds: number } {
  const idle = { milliseconds: 0 };
  let since: number | undefined = performance.now();
  behind(GPUQueue.prototype, "submit", () => {
    if (since !== undefined) idle.milliseconds += performance.now() - since;
    since = undefined;
  });
  // Both have drained the queue when they return.
  const drained = () => void (since ??= performance.now());
  behind(GPUBuffer.prototype, "mapAsync", drained);
  behind(GPUQueue.prototype, "onSubmittedWorkDone", drained);
  return idle;
}

const median = (values: readonly number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

if (import.meta.main) {
  const folder = Deno.makeTempDirSync();
  const line = (_: unknown, i: number) => `${i}. the whale swam for ${i % 7} days\n`;
  Deno.writeTextFileSync(`${folder}/text.txt`, Array.from({ length: 4000 }, line).join(""));
  const prepared = await prepareRun({
    data: `${folder}/text.txt`,
    out: `${folder}/run`,
    devices: "0",
    family: "gpt2",
    layers: 8,
    heads: 5,
    width: 320,
    sequenceLength: 128,
    batchSize: 4,
    steps: 15,
    evalInterval: 0,
    evalBatches: 1,
    checkpointInterval: 0,
  }, () => {});
  const [job] = makeJobs(prepared, soleMachine(prepared.mesh), new RunState(prepared, 1).jobState(), () => {});
  new RunStatus(job.executor.status).allow(0, 600_000);

  // The device alone: steps one behind the other, in submits as large as in training.
  const device = await openDevice();
  const { configuration, sequenceLength, settings: { batchSize } } = job;
  const model = await ModelProgram.create(device, {
    configuration,
    batch: batchSize,
    sequenceLength,
    segments: ["train"],
  });
  model.initialize(1);
  const tokens = new Uint32Array(batchSize * sequenceLength).map((_, i) => i % 256);
  const step = async (i: number) => {
    model.beginStep(tokens.length);
    await model.train(tokens, new Int32Array(tokens));
    await model.update({ ...optimizer, step: i });
  };
  for (let i = 1; i <= 2; i++) await step(i);
  const alone = async () => {
    device.drain();
    const start = performance.now();
    for (let i = 3; i < 6; i++) await step(i);
    device.drain();
    return (performance.now() - start) / 3;
  };
  const before = [await alone(), await alone()];

  const idle = watchIdleness();
  const ends: number[] = [];
  const idleAt: number[] = [];
  await trainOnRank(job, (message) => {
    if (message.type === "checkpoint") Atomics.add(new Int32Array(job.control), 1, 1);
    if (message.type !== "step") return;
    ends.push(performance.now());
    idleAt.push(idle.milliseconds);
  });
  const differences = (values: readonly number[]) => values.slice(3, -1).map((value, i) => value - values[i + 2]);
  const whole = median(differences(ends));
  const outside = median(differences(idleAt));
  const device1 = median([...before, await alone(), await alone()]);
  await device.destroy();
  Deno.removeSync(folder, { recursive: true });
  const result = {
    device: device.capabilities.name,
    parameters: model.parameters.reduce((sum, { tensor }) => sum + tensor.shape.reduce((a, b) => a * b, 1), 0),
    milliseconds: whole,
    idleMilliseconds: outside,
    idleShare: outside / whole,
    deviceMilliseconds: device1,
    outsideShare: 1 - device1 / whole,
  };
  if (Deno.args.includes("--json")) console.log(JSON.stringify(result));
  else {
    console.log(
      `${result.device}, ${(result.parameters / 1e6).toFixed(1)} million parameters: a step takes ${
        whole.toFixed(1)
      } ms`,
    );
    console.log(`the device has nothing to do for ${outside.toFixed(2)} ms: ${(100 * result.idleShare).toFixed(2)}%`);
    console.log(
      `the device alone takes ${device1.toFixed(1)} ms: ${(100 * result.outsideShare).toFixed(1)}% are outside`,
    );
  }
}
