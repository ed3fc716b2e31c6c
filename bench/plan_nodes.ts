/**
 * `deno task bench:plan [--json]`: predictions of `muster plan --nodes` beside what 2, 4 and 8 hosts do whose links are
 * shaped: network namespaces with `tc tbf`, so for root on Linux. Ends with 1 if one is off by more than 15%.
 *
 * `--what sums` (default): all-reduces by ring and doubling, from the line's rate and the latency that `muster comm-bench`
 * finds. `--what steps`: whole steps of `muster train`. All hosts share the cores of this machine, so that predictions from a
 * device's rates would be of other hosts: work without the links is taken from a run of the same hosts whose links are
 * not shaped, and the plan's times are stretched to it. What is checked is when buckets are ready, how long their sums
 * take, and how much of that shows.
 *
 * `--nodes 2,4,8`, `--rate 100mbit`, `--rounds 3`, `--ring BYTES,…`, `--doubling BYTES,…`, `--train "--width 256 …"` change what is
 * run. The rate must be one at which the cores of this machine are not the limit. Doubling is for buffers of up to 512 KiB:
 * with larger ones 8 hosts drift apart between slices, and took 20 to 30% longer than predicted.
 */

import { parseArgs } from "node:util";
import { allReduceCost, type LinkModel, parseLink } from "../parallel/link_model.ts";
import { exchangeOver, type Phase } from "../train/exchange.ts";
import { planTraining } from "../train/plan_training.ts";
import { parseSettings } from "../train/settings.ts";
import { type Hosts, openHosts } from "./hosts.ts";

/** A prediction beside what was measured. */
interface Row {
  readonly hosts: number;
  readonly what: string;
  readonly predicted: number;
  /** Median, in ms as predicted. */
  readonly measured: number;
  /** Least and most of the rounds, in ms. */
  readonly range: readonly [number, number];
}

const tolerance = 0.15;
const port = 29500;
const { values } = parseArgs({
  options: {
    json: { type: "boolean", default: false },
    what: { type: "string", default: "sums" },
    nodes: { type: "string", default: "2,4,8" },
    rate: { type: "string", default: "100mbit" },
    rounds: { type: "string", default: "3" },
    ring: { type: "string", default: [2 ** 18, 2 ** 20, 2 ** 22, 2 ** 24].join() },
    doubling: { type: "string", default: [2 ** 16, 2 ** 18, 2 ** 19].join() },
    train: {
      type: "string",
      default: "--layers 4 --width 128 --sequence-length 128 --dp 1 --pp 1 --tp 1 --bucket-mb 1 --steps 14",
    },
  },
});
const rounds = Number(values.rounds);
const median = (numbers: readonly number[]) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1];
const path = (name: string) => new URL(name, import.meta.url).pathname;
const env = { MUSTER_SECRET: crypto.randomUUID() };

/** Runs a module on `count` hosts at once; gives what host 0 prints. */
async function onHosts(hosts: Hosts, count: number, module: string, argsOf: (i: number) => string[]): Promise<string> {
  const outputs = await Promise.all(Array.from({ length: count }, (_, i) =>
    hosts.command(i, Deno.execPath(), {
      args: ["run", "-A", "--quiet", path(module), ...argsOf(i)],
      env,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).output()));
  outputs.forEach(({ success, stderr }, i) => {
    if (!success) throw new Error(`Host ${i} has failed: ${new TextDecoder().decode(stderr).trim()}`);
  });
  return new TextDecoder().decode(outputs[0].stdout);
}

const nodeFlags = (hosts: Hosts, count: number, i: number) =>
  ["--nodes", count, "--rendezvous", `${hosts.address(0)}:${port}`, "--node-rank", i].map(String);

/** The model of these links: their rate, and the latency between the first two hosts. */
async function linkOf(hosts: Hosts): Promise<LinkModel> {
  const flags = (i: number) => ["comm-bench", ...nodeFlags(hosts, 2, i), "--sizes", "4KiB", "--json"];
  const { links: [{ microseconds }] } = JSON.parse(await onHosts(hosts, 2, "../cli.ts", flags));
  return parseLink(`${values.rate},${microseconds}us`);
}

async function benchSums(hosts: Hosts, count: number, link: LinkModel, algorithm: "ring" | "doubling"): Promise<Row[]> {
  const plan = values[algorithm].split(",").map((bytes) => `${bytes}:${rounds}`).join();
  const place = [String(count), `${hosts.address(0)}:${port}`, algorithm, plan];
  const output = await onHosts(hosts, count, "plan_nodes_member.ts", (i) => [String(i), ...place]);
  return output.trim().split("\n").map((line) => {
    const { bytes, seconds }: { bytes: number; seconds: number[] } = JSON.parse(line);
    return {
      hosts: count,
      what: `${algorithm}, ${bytes / 1024} KiB`,
      predicted: 1e3 * allReduceCost(algorithm, count, bytes, link).seconds,
      measured: 1e3 * median(seconds),
      range: [1e3 * Math.min(...seconds), 1e3 * Math.max(...seconds)],
    };
  });
}

/** Times of a run's steps from the fifth on, in ms. */
async function stepsOf(hosts: Hosts, count: number, flags: readonly string[], folder: string): Promise<number[]> {
  const output = await onHosts(hosts, count, "../cli.ts", (i) => [
    "train",
    ...flags,
    ...nodeFlags(hosts, count, i),
    "--out",
    `${folder}/${crypto.randomUUID()}`,
    "--json",
  ]);
  const steps = output.trim().split("\n").map((line) => JSON.parse(line)).filter(({ event }) => event === "step");
  return steps.slice(4).map(({ milliseconds }) => milliseconds);
}

/** Phases that take `factor` times as long. */
const stretched = (phases: readonly Phase[], factor: number): Phase[] =>
  phases.map(({ times, lanes }) => ({
    times,
    lanes: lanes.map(({ seconds, sums }) => ({
      seconds: factor * seconds,
      sums: sums.map((sum) => ({
        ...sum,
        ready: factor * sum.ready,
        uploadSeconds: factor * sum.uploadSeconds,
      })),
    })),
  }));

async function benchSteps(hosts: Hosts, count: number, link: LinkModel): Promise<Row[]> {
  const batchSize = 2 * count;
  const flags = [...values.train.split(" "), "--batch-size", String(batchSize), "--eval-interval", "0"];
  const given = Object.fromEntries(
    Array.from({ length: flags.length / 2 }, (_, i) => [flags[2 * i].slice(2), flags[2 * i + 1]]),
  );
  const settings = parseSettings(given, "flags");
  const compression = "none";
  const { nodes } = await planTraining(settings, { machines: { nodes: count, link, compression } });
  const { phases, seconds } = nodes!.combinations[0].planned;
  const folder = await Deno.makeTempDir();
  try {
    const [free, shaped]: number[][] = [[], []];
    for (let round = 0; round < rounds; round++) {
      await hosts.shape(undefined);
      free.push(...await stepsOf(hosts, count, flags, folder));
      await hosts.shape(values.rate);
      shaped.push(...await stepsOf(hosts, count, flags, folder));
    }
    const alone = median(free);
    const machines = { machines: count, link, compression, algorithm: "auto" } as const;
    const { exposedSeconds } = exchangeOver(stretched(phases, alone / 1e3 / seconds), machines);
    return [{
      hosts: count,
      what: `a step, ${alone.toFixed(0)} ms without shaped links`,
      predicted: alone + 1e3 * exposedSeconds,
      measured: median(shaped),
      range: [Math.min(...shaped), Math.max(...shaped)],
    }];
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const counts = values.nodes.split(",").map(Number);
const hosts = await openHosts(Math.max(...counts));
const rows: Row[] = [];
let link: LinkModel;
try {
  await hosts.shape(values.rate);
  link = await linkOf(hosts);
  for (const count of counts) {
    if (values.what === "steps") rows.push(...await benchSteps(hosts, count, link));
    else {for (const algorithm of ["ring", "doubling"] as const) {
        rows.push(...await benchSums(hosts, count, link, algorithm));
      }}
  }
} finally {
  await hosts.close();
}

const off = ({ predicted, measured }: Row) => predicted / measured - 1;
const good = rows.filter((row) => Math.abs(off(row)) <= tolerance).length;
const load = Deno.loadavg();
if (values.json) {
  console.log(
    JSON.stringify({ deno: Deno.version.deno, cores: navigator.hardwareConcurrency, load, link, rows, good }),
  );
} else {
  const latency = `${(1e6 * link.latencySeconds).toFixed(0)} µs`;
  console.log(`${values.rate}, ${latency}; ${navigator.hardwareConcurrency} cores, load ${load[0].toFixed(1)}`);
  console.log(
    `${"hosts".padEnd(7)}${"what".padEnd(44)}${"predicted ms".padStart(14)}${"measured ms".padStart(14)}   off`,
  );
  for (const row of rows) {
    const { hosts, what, predicted, measured, range: [least, most] } = row;
    const share = `${off(row) > 0 ? "+" : ""}${(100 * off(row)).toFixed(0)}%`;
    console.log(
      `${String(hosts).padEnd(7)}${what.padEnd(44)}${predicted.toFixed(1).padStart(14)}${
        measured.toFixed(1).padStart(14)
      }` +
        `${share.padStart(6)}   (${least.toFixed(1)} to ${most.toFixed(1)})`,
    );
  }
  console.log(`${good} of ${rows.length} predictions are within ${100 * tolerance}%`);
}
if (good < rows.length) Deno.exitCode = 1;
