/** Faults of ranks, in real processes: each ends the run soon, with one message by name, and leaves a checkpoint to go on from. */

import assert from "node:assert/strict";
import { openCheckpoint } from "../../train/checkpoint.ts";
import type { TrainEvent } from "../../train/events.ts";
import { readMetrics } from "../../train/run_folder.ts";
import { train as trainHere } from "../../train/trainer.ts";
import { withFolder } from "../folder.ts";

const entry = new URL("../../cli.ts", import.meta.url).pathname;
const stallSeconds = 5;
/** Allowed from detection to the end of the process, and for the clocks and cores of the machine that runs this. */
const endSeconds = 5;
const marginSeconds = 3;

const text = Array.from({ length: 300 }, (_, i) => `${i}. the whale swam for ${i % 7} days\n`).join("");
const settings = Object.entries({
  data: "text.txt",
  layers: 2,
  heads: 2,
  width: 32,
  "sequence-length": 16,
  "batch-size": 4,
  "eval-batches": 1,
  "checkpoint-interval": 2,
}).flatMap(([name, value]) => [`--${name}`, String(value)]);

interface Ended {
  readonly code: number;
  readonly events: readonly TrainEvent[];
  readonly stderr: string;
  /** From the last event of a step to the end. */
  readonly seconds: number;
  /** Processes that were started and are still there. */
  readonly left: readonly number[];
}

function childrenOf(pid: number): number[] {
  try {
    const children = Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`).split(" ").filter(Boolean).map(Number);
    return [...children, ...children.flatMap(childrenOf)];
  } catch {
    return []; // It has ended, or this is not Linux.
  }
}

async function train(folder: string, args: readonly string[], env: Record<string, string> = {}): Promise<Ended> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", entry, "train", "--json", ...args],
    cwd: folder,
    env: { MUSTER_CACHE: `${folder}/cache`, NO_COLOR: "1", ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const errors = new Response(child.stderr).text();
  let output = "";
  let last = performance.now();
  let started: number[] = [];
  for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
    output += chunk;
    if (chunk.includes('"event":"step"')) {
      last = performance.now();
      started = childrenOf(child.pid);
    }
  }
  const { code } = await child.status;
  return {
    code,
    events: output.trim().split("\n").filter(Boolean).map((line) => JSON.parse(line)),
    stderr: await errors,
    seconds: (performance.now() - last) / 1e3,
    left: started.filter(runs),
  };
}

/** True while a process runs; one that has ended may still be listed until it is waited for. */
function runs(pid: number): boolean {
  try {
    return !/^State:\s*Z/m.test(Deno.readTextFileSync(`/proc/${pid}/status`));
  } catch {
    return false;
  }
}

interface Case {
  readonly layout: readonly string[];
  readonly fault: string;
  readonly message: RegExp;
  /** Until the fault is noticed, in seconds. */
  readonly noticed: number;
  /** Whether to go on from the checkpoint. */
  readonly resume?: true;
}

const dp = ["--devices", "0,0"];
const tp = ["--devices", "0,0", "--tp", "2"];
const pp = ["--devices", "0,0", "--pp", "2"];
const asked = /^Rank 1 failed in step 4, forward.* of micro-batch 1: MUSTER_FAULT asked for this; /;
const micro = String.raw`step 4, forward and backward of micro-batch 1`;

const fatal: readonly Case[] = [
  { layout: dp, fault: "rank=1,step=4,kind=throw", message: asked, noticed: 0 },
  { layout: pp, fault: "rank=1,step=4,kind=throw", message: asked, noticed: 0, resume: true },
  {
    layout: dp,
    fault: "rank=1,step=4,kind=lose",
    message: new RegExp(`^Rank 1 failed in ${micro}, in all-reduce of .*: The GPU .* failed: the device was lost`),
    noticed: 0,
    resume: true,
  },
  {
    layout: pp,
    fault: "rank=0,step=4,kind=lose",
    message: /^Rank 0 failed in step 4, forward of micro-batch 1, in send of activations 1: The GPU .* was lost/,
    noticed: 0,
  },
  {
    layout: ["--devices", "0"],
    fault: "rank=0,step=4,kind=lose",
    message: /^The GPU .* failed: the device was lost/,
    noticed: 0,
  },
  {
    layout: dp,
    fault: "rank=1,step=4,kind=hang",
    message: new RegExp(
      `^Rank 0 has waited \\d\\.\\d s in all-reduce of .* for rank 1, last seen in ${micro}: given up \\(--stall-timeout\\); `,
    ),
    noticed: stallSeconds,
  },
  {
    layout: tp,
    fault: "rank=0,step=4,kind=hang",
    message: /^Rank 1 has waited \d\.\d s in all-reduce of embedding for rank 0, last seen in step 4, forward/,
    noticed: stallSeconds,
    resume: true,
  },
  {
    layout: pp,
    fault: "rank=0,step=4,kind=hang",
    message:
      /^Rank 1 has waited \d\.\d s in receive of activations 1 for rank 0, last seen in step 4, forward of micro/,
    noticed: stallSeconds,
  },
  {
    layout: ["--devices", "0"],
    fault: "rank=0,step=4,kind=hang",
    message: new RegExp(`^Rank 0 has shown no sign of life for \\d\\.\\d s, last seen in ${micro}: given up`),
    noticed: stallSeconds,
  },
  {
    layout: dp,
    fault: "rank=1,step=4,at=checkpoint,kind=hang",
    message:
      /^Rank 0 has waited \d\.\d s in the meeting before a checkpoint for rank 1, last seen in the checkpoint of step 4/,
    noticed: stallSeconds,
  },
  {
    layout: dp,
    fault: "rank=1,step=4,kind=exit",
    message: /^Rank 0 has waited \d\.\d s in all-reduce of .* for rank 1/,
    noticed: stallSeconds,
  },
];

/** At most so many processes at a time: their ranks share the cores. */
const atATime = 4;

async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = Deno.makeTempDirSync();
  Deno.writeTextFileSync(`${folder}/text.txt`, text);
  try {
    await body(folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

/** Waits for all, also when one fails. */
async function all(promises: readonly Promise<void>[]): Promise<void> {
  for (const ended of await Promise.allSettled(promises)) if (ended.status === "rejected") throw ended.reason;
}

/** Prepares the data and has the driver compile, so that what follows is not in each other's way. */
async function warmUp(folder: string): Promise<void> {
  const { code, stderr } = await train(folder, [...settings, "--steps", "1", "--out", "warm"]);
  assert.equal(code, 0, stderr);
}

async function failsWell(
  folder: string,
  out: string,
  { layout, fault, message, noticed, resume }: Case,
): Promise<void> {
  const limits = ["--steps", "8", "--stall-timeout", String(stallSeconds), "--out", out];
  const ended = await train(folder, [...settings, ...layout, ...limits], { MUSTER_FAULT: fault });
  const about = `${layout.join(" ")} ${fault}: ${ended.stderr}`;
  assert.equal(ended.code, 1, about);
  assert.deepEqual(ended.left, [], about);
  assert.ok(ended.seconds < noticed + endSeconds + marginSeconds, `${ended.seconds} s after ${about}`);

  // One message, the same on both streams and in the run's folder.
  const errors = ended.events.flatMap((event) => event.event === "error" ? [event.message] : []);
  assert.equal(errors.length, 1, about);
  assert.match(errors[0], message);
  const lines = ended.stderr.split("\n").filter((line) => line.startsWith("muster:"));
  assert.deepEqual(lines, [`muster: ${errors[0]}`], about);
  const told = readMetrics(`${folder}/${out}`).pop();
  assert.ok(told?.event === "error" && errors[0].startsWith(told.message), about);

  assert.match(errors[0], new RegExp(`the last checkpoint is ${out}/checkpoints/step-00000002: .*--resume ${out}`));
  const checkpoint = await openCheckpoint(`${folder}/${out}`);
  checkpoint.close();
  assert.equal(checkpoint.trainer?.step, 2);
  if (!resume) return;
  const resumed = await train(folder, ["--resume", out, "--steps", "4"]);
  assert.equal(resumed.code, 0, `${about}: ${resumed.stderr}`);
  assert.deepEqual(resumed.events.flatMap((event) => event.event === "step" ? [event.step] : []), [3, 4]);
}

Deno.test("a rank that throws, hangs, ends or loses its device ends the run, by name, with its checkpoint whole", () =>
  inFolder(async (folder) => {
    await warmUp(folder);
    const left = [...fatal.entries()];
    const worker = async () => {
      for (let next = left.shift(); next; next = left.shift()) await failsWell(folder, `run${next[0]}`, next[1]);
    };
    await all(Array.from({ length: atATime }, worker));
  }));

Deno.test("a stall is reported by name after five seconds, and a run that goes on again finishes", () =>
  inFolder(async (folder) => {
    await warmUp(folder);
    const cases: [string, readonly string[], RegExp][] = [
      ["dp", dp, new RegExp(`^rank 0 has waited [56]\\.\\d s in all-reduce of .* for rank 1, last seen in ${micro}$`)],
      [
        "pp",
        pp,
        /^rank 0 has waited [56]\.\d s in receive of gradients 1 for rank 1, last seen in step 4, forward of micro/,
      ],
      ["alone", [], new RegExp(`^rank 0 has shown no sign of life for [56]\\.\\d s, last seen in ${micro}$`)],
    ];
    await all(cases.map(async ([out, layout, message]) => {
      const fault = `rank=${layout.length > 0 ? 1 : 0},step=4,kind=slow:7`;
      const args = [...settings, ...layout, "--steps", "5", "--out", out];
      const { code, events, stderr } = await train(folder, args, { MUSTER_FAULT: fault });
      assert.equal(code, 0, stderr);
      const stalls = events.flatMap((event) => event.event === "stall" ? [event.message] : []);
      assert.equal(stalls.length, 1, stalls.join("\n"));
      assert.match(stalls[0], message);
      const done = events[events.length - 1];
      assert.ok(done.event === "done" && done.step === 5);
    }));
  }));

Deno.test("a rank that fails before its device is open ends those that are at work already", () =>
  inFolder(async (folder) => {
    const args = [...settings, ...dp, "--steps", "8", "--out", "run"];
    const { code, stderr } = await train(folder, args, { MUSTER_FAULT: "rank=1,step=0,kind=throw" });
    assert.equal(code, 1, stderr);
    assert.match(
      stderr,
      /^muster: Rank 1 failed in opening its device: MUSTER_FAULT .*; no checkpoint was saved yet$/m,
    );
  }));

Deno.test("verify tells of a layout in which a rank hangs, and ends", () =>
  inFolder(async (folder) => {
    const { code, stdout } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--quiet", entry, "verify", "--layouts", "dp 2", "--stall-timeout", "1"],
      cwd: folder,
      env: { MUSTER_FAULT: "rank=1,step=4,kind=hang" },
      stdin: "null",
      stderr: "null",
    }).output();
    assert.match(
      new TextDecoder().decode(stdout),
      /\ndp 2 +FAILED +Rank 0 has waited 1\.\d s in .* for rank 1, last seen in step 4.*\n0 passed, 1 failed\n$/,
    );
    assert.equal(code, 1);
  }));

Deno.test("a fault of the coordinator itself ends the ranks too, and is what is thrown", () =>
  withFolder({ "text.txt": text }, async (folder) => {
    const start = performance.now();
    const given = { data: `${folder}/text.txt`, layers: 1, heads: 2, width: 32, sequenceLength: 16, batchSize: 4 };
    const steps: number[] = [];
    const onEvent = (event: TrainEvent) => {
      if (event.event === "step") steps.push(event.step);
      if (event.event === "step" && event.step === 2) throw new Error("the listener failed");
    };
    await assert.rejects(
      trainHere({ ...given, devices: "0,0", steps: 10_000, out: `${folder}/run` }, { onEvent }),
      /^Error: the listener failed; no checkpoint was saved yet$/,
    );
    assert.deepEqual(steps, [1, 2]);
    assert.ok(performance.now() - start < 60_000);
  }));

Deno.test({
  name: "when the watching process is killed, the one that trains saves its step and ends",
  ignore: Deno.build.os !== "linux",
  fn: () =>
    inFolder(async (folder) => {
      const args = ["train", "--json", ...settings, "--steps", "1000000", "--out", "run"];
      const child = new Deno.Command(Deno.execPath(), {
        args: ["run", "-A", "--quiet", entry, ...args],
        cwd: folder,
        env: { MUSTER_CACHE: `${folder}/cache` },
        stdin: "null",
        stdout: "piped",
        stderr: "null",
      }).spawn();
      let output = "";
      let trainer = 0;
      // Ends when nobody has this end of the pipe any more.
      for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
        output += chunk;
        if (trainer || !output.includes('"event":"step","step":3')) continue;
        [trainer] = childrenOf(child.pid);
        child.kill("SIGKILL");
      }
      await child.status;
      const last = JSON.parse(output.trim().split("\n").pop()!);
      assert.ok(last.event === "done" && last.stopped, output.slice(-300));
      await new Promise((resolve) => setTimeout(resolve, 500));
      assert.ok(trainer > 0 && !runs(trainer));
      (await openCheckpoint(`${folder}/run`)).close();
    }),
});
