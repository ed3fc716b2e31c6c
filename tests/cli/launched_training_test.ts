import assert from "node:assert/strict";
import type { TrainEvent } from "../../train/events.ts";
import { withFolder } from "../folder.ts";
import {
  execute,
  lacking,
  lackingOpenMpi,
  muster,
  podsOf,
  quoted,
  rootForMpi,
  testWhere,
  withHosts,
  withSlurm,
  writeSecret,
} from "./launched.ts";

const deploy = new URL("../../deploy/", import.meta.url).pathname;
const noSlurm = lacking(["slurmctld", "slurmd", "srun", "munged", "unshare", "ip", "pgrep"], true);
const noHosts = lacking(["unshare", "ip"], true);

/** Largest difference of a loss from that of one rank: sums are made in another order. */
const tolerance = 1e-4;
const steps = 8;
/** Far more steps than pass before a test interferes. */
const many = 5000;

const text = Array.from({ length: 300 }, (_, i) => `${i}. the whale swam for ${i % 7} days\n`).join("");
const flags = Object.entries({
  data: "text.txt",
  layers: 1,
  heads: 2,
  width: 32,
  "sequence-length": 16,
  "batch-size": 6,
  "eval-interval": 0,
  "eval-batches": 1,
  "checkpoint-interval": 0,
  "lr-schedule": "constant",
  "commit-steps": 5,
  "peer-timeout": 3,
  "rendezvous-timeout": 20,
}).flatMap(([name, value]) => [`--${name}`, String(value)]);

/** The words of a training of so many steps. */
function training(count: number, ...more: string[]): string[] {
  return muster("train", ...flags, "--steps", String(count), ...more);
}

type Of<K extends TrainEvent["event"]> = Extract<TrainEvent, { event: K }>;

/** The events of a kind in what a process printed. */
function eventsOf<K extends TrainEvent["event"]>(stdout: string, kind: K): Of<K>[] {
  const lines = stdout.split("\n").filter((line) => line.startsWith("{") && line.endsWith("}"));
  return lines.map((line) => JSON.parse(line) as TrainEvent).filter((event): event is Of<K> => event.event === kind);
}

/** Asserts that the processes took these steps together, from `first` on, with the losses of one rank. */
function assertTrained(
  outputs: readonly string[],
  reference: readonly number[],
  { first = 1, nodes = outputs.length }: { readonly first?: number; readonly nodes?: number } = {},
): void {
  for (const stdout of outputs) {
    assert.equal(eventsOf(stdout, "world")[0]?.nodes, nodes, stdout);
    const losses = eventsOf(stdout, "step").map(({ loss }) => loss);
    assert.deepEqual(losses, eventsOf(outputs[0], "step").map(({ loss }) => loss));
    assert.equal(losses.length, reference.length - first + 1);
    for (const [i, loss] of losses.entries()) {
      const expected = reference[first - 1 + i];
      assert.ok(Math.abs(loss - expected) < tolerance, `step ${first + i}: ${loss}, not ${expected}`);
    }
  }
  assert.deepEqual(outputs.flatMap((stdout) => eventsOf(stdout, "checkpoint")).length, 1);
}

/** What node 0 wrote down: Slurm cuts long lines, so events of several tasks in one file are no JSON. */
function metrics(run: string): string {
  return Deno.readTextFileSync(`${run}/metrics.jsonl`);
}

/** Calls `body` with a folder in which there is a text, and runs commands in it. */
async function inFolder(
  body: (
    folder: string,
    run: (words: readonly string[], env?: Record<string, string>) => ReturnType<typeof execute>,
  ) => Promise<void>,
): Promise<void> {
  await withFolder({ "text.txt": text }, async (folder) => {
    writeSecret(`${folder}/secret`);
    const common = { MUSTER_CACHE: `${folder}/cache`, LP_NUM_THREADS: "1" };
    await body(
      folder,
      (words, env) => execute(["sh", "-c", 'cd "$0" && exec "$@"', folder, ...words], { ...common, ...env }),
    );
  });
}

let known: number[] | undefined;

/** The losses of one rank, which the first to ask computes. */
async function reference(run: (words: readonly string[]) => ReturnType<typeof execute>): Promise<number[]> {
  if (known) return known;
  const { code, stdout, stderr } = await run(training(steps, "--json", "--out", "one"));
  assert.equal(code, 0, stderr);
  return known = eventsOf(stdout, "step").map(({ loss }) => loss);
}

testWhere(
  noSlurm,
  "srun -N2 -n2 muster train trains as one rank does, and its mixed output is readable",
  () =>
    inFolder(async (folder, run) => {
      const expected = await reference(run);
      const common = ["--secret-file", "secret"];
      const script = [
        `srun -N2 -n2 -o json.%t ${quoted(training(steps, ...common, "--json", "--out", "json"))}`,
        `srun -N2 -n2 ${quoted(training(steps, ...common, "--out", "words"))} >log 2>&1`,
      ].join(" && ");
      const { code, stderr } = await run(withSlurm(2, ["sh", "-c", script]));
      assert.equal(code, 0, stderr);
      assertTrained([0, 1].map((task) => Deno.readTextFileSync(`${folder}/json.${task}`)), expected);
      const log = Deno.readTextFileSync(`${folder}/log`);
      const count = (pattern: RegExp) => [...log.matchAll(pattern)].length;
      assert.match(log, /^nodes +this is node 0 of 2, with node 1 \(one, /m);
      assert.match(log, /^nodes +this is node 1 of 2, with node 0 \(one, n1:/m);
      for (const once of [/^model /gm, /^config /gm, /^step 1\/8 +loss/gm, /^step 8\/8 +validation/gm, /^saved /gm]) {
        assert.equal(count(once), 1, `${once}: ${log}`);
      }
      assert.equal(count(/^device +node 1: /gm), 1, log);
      assert.equal(count(/^done at step 8 in /gm), 2, log);
    }),
);

testWhere(
  noSlurm,
  "deploy/slurm.sbatch trains; requeued or cancelled it saves, and what starts again resumes",
  () =>
    inFolder(async (folder, run) => {
      const expected = await reference(run);
      // In place of the program of a release, and of the data of its own that the script names.
      Deno.writeTextFileSync(`${folder}/muster`, `#!/bin/sh\nexec ${quoted(muster())} "$@"\n`);
      Deno.chmodSync(`${folder}/muster`, 0o755);
      const submit = (name: string, count: number) =>
        `RUN=${name} sbatch --quiet -o ${name}.log --gpus-per-node=0 --cpus-per-task=2 --time=5 ${deploy}slurm.sbatch ` +
        quoted([...flags, "--steps", String(count)]);
      const until = (pattern: string, file: string) =>
        `until grep -q '${pattern}' ${file} 2>/dev/null; do sleep 0.1; done`;
      const script = [
        submit("run", steps),
        submit("requeued", many),
        until('"step":10,', "requeued/metrics.jsonl"),
        "scontrol requeue 2",
        // Slurm would wait two minutes before it starts it again.
        `until grep -q '"firstStep":[1-9]' requeued/metrics.jsonl; do
        scontrol update JobId=2 StartTime=now 2>/dev/null
        sleep 0.1
      done`,
        "scancel --signal=TERM 2",
        "while squeue --noheader | grep -q .; do sleep 0.1; done",
      ].join("\n");
      const env = { SECRET_FILE: `${folder}/made`, MUSTER: `${folder}/muster` };
      const { code, stderr } = await run(withSlurm(2, ["sh", "-c", script]), env);
      const log = (name: string) => Deno.readTextFileSync(`${folder}/${name}.log`);
      assert.equal(code, 0, `${stderr}${log("run")}`);
      assertTrained([metrics(`${folder}/run`)], expected, { nodes: 2 });
      assert.equal([...log("run").matchAll(/^done at step 8 in /gm)].length, 2, log("run"));
      const requeued = metrics(`${folder}/requeued`);
      const [first, second] = eventsOf(requeued, "done");
      assert.ok(first.stopped && second.stopped && second.step >= first.step, log("requeued"));
      assert.deepEqual(eventsOf(requeued, "start").map(({ firstStep }) => firstStep), [0, first.step]);
      assert.ok(Deno.statSync(`${folder}/${second.checkpoint}/trainer.json`).isFile);
      // All tasks have stopped in good order, twice.
      assert.equal([...log("requeued").matchAll(/^stopped at step /gm)].length, 4, log("requeued"));
    }),
);

testWhere(
  noSlurm,
  "a task of srun that is killed does not end the others; with --min-nodes 3 they save and say so",
  () =>
    inFolder(async (folder, run) => {
      const script = (least: number) => {
        const words = training(
          many,
          "--secret-file",
          "secret",
          "--json",
          "--min-nodes",
          String(least),
          "--out",
          `run${least}`,
        );
        const task = `echo $$ >pid.$SLURM_PROCID; exec ${quoted([...words, "--rendezvous-timeout", "2"])}`;
        return `srun -N3 -n3 -o ${least}.%t --kill-on-bad-exit=0 sh -c ${quoted([task])} &
      srun=$!
      until grep -q '"step":20,' ${least}.1 2>/dev/null; do sleep 0.05; done
      ${least === 3 ? "kill -9 $(pgrep -P $(cat pid.1))" : ""}
      kill -9 $(cat pid.1)
      ${
          least === 3
            ? ""
            : `until grep -q '"nodes":2' ${least}.0 2>/dev/null && tail -n 1 ${least}.2 | grep -q '"step":[0-9]*[1-9][05],'; do
        sleep 0.05
      done
      scancel --signal=TERM 1.0`
        }
      ! wait $srun`;
      };
      const { code, stderr } = await run(withSlurm(3, ["sh", "-c", `${script(1)} && ${script(3)}`]));
      assert.equal(code, 0, stderr);
      for (const task of [0, 2]) {
        const out = (least: number) => Deno.readTextFileSync(`${folder}/${least}.${task}`);
        assert.deepEqual(eventsOf(out(1), "world").map(({ nodes }) => nodes), [3, 2]);
        const [{ message, step: back }] = eventsOf(out(1), "lost");
        assert.match(message, /^Lost node 1 \(one, 10\.77\.0\.\d:\d+\)/);
        const [done] = eventsOf(out(1), "done");
        assert.ok(done.stopped && done.step > back, out(1));
        assert.equal(done.checkpoint !== "", task === 0);
        const [error] = eventsOf(out(3), "error");
        assert.match(
          error.message,
          /^2 of 3 machines met again within 2 s.*the last checkpoint is run3\/.*--resume run3/,
        );
        assert.equal(error.exitCode, 1);
      }
    }),
);

testWhere(
  lackingOpenMpi(),
  "mpirun -np 3 muster train shares the GPU, says so, and trains as one rank does",
  () =>
    inFolder(async (folder, run) => {
      const expected = await reference(run);
      const mpirun = ["mpirun", "--oversubscribe", "-np", "3"];
      const { code, stderr } = await run([...mpirun, ...training(steps, "--out", "run")], rootForMpi);
      assert.equal(code, 0, stderr);
      assertTrained([metrics(`${folder}/run`)], expected, { nodes: 3 });
      for (const rank of [0, 1, 2]) {
        assert.ok(stderr.includes(`3 processes of this machine share 1 GPU; process ${rank} uses GPU 0\n`), stderr);
      }
    }),
);

testWhere(
  noHosts,
  "pods of deploy/kubernetes.yaml train with its flags, and applied again they resume",
  () =>
    inFolder(async (folder, run) => {
      const expected = await reference(run);
      const { names, env, args } = podsOf(Deno.readTextFileSync(`${deploy}kubernetes.yaml`));
      const given = (i: number) =>
        args.map((arg) =>
          arg.replace("/etc/muster/secret", "secret").replace("/runs/", "runs/").replace(
            "$(POD_IP)",
            `10.77.0.${i + 1}`,
          )
        );
      const apply = (count: number, output: string) =>
        names.map((_, i) => {
          const words = quoted(muster(...given(i), ...flags, "--steps", String(count), "--json"));
          return `JOB_COMPLETION_INDEX=${i} ${words} >${output}.${i} & p${i}=$!\n`;
        }).join("") + names.map((_, i) => `wait $p${i} || exit 1\n`).join("");
      const script = apply(steps / 2, "first") + apply(steps, "second");
      const { code, stderr } = await run(withHosts(names, ["sh", "-c", script]), env);
      assert.equal(code, 0, stderr);
      const outputs = (name: string) => names.map((_, i) => Deno.readTextFileSync(`${folder}/${name}.${i}`));
      assertTrained(outputs("first"), expected.slice(0, steps / 2));
      assertTrained(outputs("second"), expected, { first: steps / 2 + 1 });
    }),
);
