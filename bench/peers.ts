/**
 * `deno task bench:peers [--medium] [--json] [--peers FOLDER]`: training steps of Muster beside jax-js (WebGPU and WebAssembly) and
 * PyTorch on the same GPT with the same weights and batches: time, peak memory, losses. Programs take turns, medians over
 * `--rounds`; all meet the same adapter. The peers are programs of their own, `run.sh PEER W1|W2 STEPS` in a folder that `--peers` or
 * `PEERS` names; what is not there, fails, or does not end within `--limit` seconds is told. `--only Muster,PyTorch` narrows it.
 */

import { parseArgs } from "node:util";
import { prepareThreads } from "../gpu/driver_threads.ts";
import { prepareVectorWidth } from "../gpu/vector_width.ts";
import {
  compareLosses,
  goals,
  names,
  parseTraining,
  type PeerResult,
  summarize,
  type Training,
} from "./peers/results.ts";

const { values } = parseArgs({
  options: {
    json: { type: "boolean", default: false },
    medium: { type: "boolean", default: false },
    peers: { type: "string", default: Deno.env.get("PEERS") },
    rounds: { type: "string" },
    limit: { type: "string" },
    only: { type: "string", default: Object.values(names).join() },
  },
});
const workload = values.medium ? "medium" : "small";
/** Of the medium GPT jax-js takes a minute a step. */
const rounds = Number(values.rounds ?? (values.medium ? 1 : 3));
const limitSeconds = Number(values.limit ?? (values.medium ? 180 : 120));
const steps = values.medium ? 8 : 21;
const folder = values.peers;
const temporary = await Deno.makeTempDir();

/** Processes below one, itself included, and their greatest memory so far in bytes; on Linux. */
function family(pid: number): { pids: number[]; bytes: number } {
  try {
    const children = Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`).trim().split(" ").filter(Boolean);
    const peak = /VmHWM:\s*(\d+)/.exec(Deno.readTextFileSync(`/proc/${pid}/status`));
    const below = children.map((child) => family(Number(child)));
    return {
      pids: [pid, ...below.flatMap(({ pids }) => pids)],
      bytes: Math.max(Number(peak?.[1] ?? 0) * 1024, ...below.map(({ bytes }) => bytes)),
    };
  } catch {
    return { pids: [], bytes: 0 }; // It has ended, or this is not Linux.
  }
}

/** Runs a program to its end or the limit, and watches its memory. */
async function run(command: string, args: string[], cwd?: string) {
  const child = new Deno.Command(command, {
    args,
    ...cwd === undefined ? {} : { cwd },
    env: {
      PATH: `${Deno.execPath().replace(/\/[^/]*$/, "")}:${Deno.env.get("PATH") ?? ""}`,
      BENCH_LOCK: `${temporary}/lock`,
      V: "1",
    },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  let bytes = 0;
  let cut = false;
  const watch = setInterval(() => void (bytes = Math.max(bytes, family(child.pid).bytes)), 100);
  const limit = setTimeout(() => {
    cut = true;
    for (const pid of family(child.pid).pids.reverse()) Deno.kill(pid, "SIGKILL");
  }, limitSeconds * 1000);
  const { stdout, stderr } = await child.output();
  clearInterval(watch);
  clearTimeout(limit);
  const text = (data: Uint8Array) => new TextDecoder().decode(data);
  return { stdout: text(stdout), stderr: text(stderr), bytes, cut };
}

const own = new URL("peers/muster_gpt.ts", import.meta.url).pathname;
const work = values.medium ? "W2" : "W1";
const script = (peer: string) => () => run("sh", ["run.sh", peer, work, String(steps)], folder);
const programs: Record<string, () => ReturnType<typeof run>> = {
  [names.own]: () => run(Deno.execPath(), ["run", "-A", "--quiet", own, workload, String(steps)]),
  [names.webgpu]: script("jaxjs"),
  [names.wasm]: script("jaxwasm"),
  [names.torch]: script("torch"),
};
const wanted = values.only.split(",").filter((name) => name in programs);

/** Why the peers cannot be asked at all. */
function missing(): string | undefined {
  if (folder === undefined) return "no folder of peers: --peers FOLDER";
  try {
    return Deno.statSync(`${folder}/run.sh`).isFile ? undefined : `${folder}/run.sh is no file`;
  } catch {
    return `${folder}/run.sh is not there`;
  }
}

const found = new Map(wanted.map((name) => [name, { trainings: [] as Training[], bytes: 0, reason: "" }]));
// The peers' processes are to meet the adapter as Muster has it.
prepareVectorWidth();
prepareThreads();
const absent = missing();
for (let round = 0; round < rounds; round++) {
  for (const [name, result] of found) {
    if (name !== names.own && absent !== undefined) result.reason = absent;
    if (result.reason && result.trainings.length === 0) continue;
    const { stdout, stderr, bytes, cut } = await programs[name]();
    result.bytes = Math.max(result.bytes, bytes);
    const training = parseTraining(stdout, stderr);
    if (training) result.trainings.push(training);
    if (cut) result.reason = `stopped after ${limitSeconds} s`;
    else if (!training || training.cut) {
      const lines = stderr.trim().split("\n").filter((line) => !/^step \d/.test(line));
      result.reason = `it failed: ${
        (lines.find((line) => /error/i.test(line)) ?? lines[lines.length - 1] ?? "").trim().slice(0, 200)
      }`;
    }
  }
}
await Deno.remove(temporary, { recursive: true });

const results: PeerResult[] = [...found].map(([name, { trainings, bytes, reason }]) =>
  summarize(name, trainings, bytes, reason || undefined)
);
const muster = results.find(({ name }) => name === names.own);
const losses = muster?.rounds[0]?.losses ?? [];
const compared = results.filter((result) => result !== muster && result.rounds.length > 0)
  .map(({ name, rounds }) => ({ name, ...compareLosses(losses, rounds[0].losses) }));
const reached = goals(workload, results);
const adapter = muster?.rounds[0]?.adapter;
if (values.json) {
  console.log(
    JSON.stringify({ workload, adapter, deno: Deno.version.deno, results, losses: compared, goals: reached }),
  );
} else {
  console.log(`${workload} GPT on ${adapter ?? "no adapter"}, Deno ${Deno.version.deno}, ${rounds} rounds\n`);
  console.log(
    `${"".padEnd(20)}${"ms a step".padStart(10)}${"of Muster".padStart(11)}${"peak MiB".padStart(10)}  rounds`,
  );
  for (const { name, milliseconds, rounds, peakBytes, reason } of results) {
    const ratio = milliseconds && muster?.milliseconds ? (milliseconds / muster.milliseconds).toFixed(2) : "";
    const figures = milliseconds === undefined
      ? ""
      : `${milliseconds.toFixed(milliseconds < 10 ? 2 : 0).padStart(10)}${ratio.padStart(11)}${
        (peakBytes / 2 ** 20).toFixed(0).padStart(10)
      }  ${rounds.map(({ milliseconds }) => milliseconds.toFixed(0)).join(" ")}`;
    console.log(`${name.padEnd(20)}${figures}${reason ? `  ${reason}` : ""}`);
  }
  console.log(`\nlosses of Muster: ${losses.join(" ")}`);
  for (const { name, steps, equal, difference } of compared) {
    console.log(`${name}: ${equal} of ${steps} the same to all digits, largest difference ${difference.toFixed(4)}`);
  }
  console.log("");
  for (const { text, value, met } of reached) {
    console.log(`${met === undefined ? "unknown" : met ? "met    " : "missed "}  ${text}: ${value?.toFixed(2) ?? "?"}`);
  }
}
