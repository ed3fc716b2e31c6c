/**
 * `deno task bench:plan [--json]`: predictions of `muster plan --nodes` beside what 2, 4 and 8 hosts do whose links are
 * shaped: network namespaces with `tc tbf`, so for root on Linux. Ends with 1 if one is off by more than 15%.
 *
 * `--what sums` (default): all-reduces by ring and doubling, from the line's rate and the latency that `muster comm-bench`
 * finds. `--what lanes`: buckets of two groups of ranks that share a link, while others are still to come. `--what steps`:
 * whole steps of `muster train`. All hosts share the cores of this machine, so that predictions from a device's rates would
 * be of other hosts: work without the links is taken from a run of the same hosts whose links are
 * not shaped, and the plan's times are stretched to it. What is checked is when buckets are ready, how long their sums
 * take, and how much of that shows.
 *
 * `--nodes 2,4,8`, `--rate 100mbit`, `--rounds 5`, `--ring BYTES,…`, `--doubling BYTES,…`, `"--train=--width 256 …"` change what is
 * run. The rate must be one at which the cores of this machine are not the limit.
 */

import { parseArgs } from "node:util";
import { allReduceCost, type LaneSum, type LinkModel, parseLink, playLanes } from "../parallel/link_model.ts";
import { UserError } from "../errors.ts";
import { exchangeOver, type Phase } from "../train/exchange.ts";
import { planTraining } from "../train/plan_training.ts";
import { parseSettings } from "../train/settings.ts";
import { type Host, whyNoHosts, withHosts } from "../tests/hosts/hosts.ts";

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

type MeasuredAlgorithm = "ring" | "doubling";

const tolerance = 0.15;
const port = 29500;
const { values } = parseArgs({
  options: {
    json: { type: "boolean", default: false },
    what: { type: "string", default: "sums" },
    nodes: { type: "string", default: "2,4,8" },
    rate: { type: "string", default: "100mbit" },
    rounds: { type: "string", default: "5" },
    ring: { type: "string", default: [2 ** 19, 2 ** 20, 2 ** 22, 2 ** 24].join() },
    doubling: { type: "string", default: [2 ** 18, 2 ** 19, 2 ** 20, 2 ** 22].join() },
    train: {
      type: "string",
      default: "--layers 4 --width 128 --sequence-length 256 --dp 1 --pp 1 --tp 1 --bucket-mb 1 --steps 14",
    },
  },
});
const rounds = Number(values.rounds);
const median = (numbers: readonly number[]) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1];
const path = (name: string) => new URL(name, import.meta.url).pathname;
const env = { MUSTER_SECRET: crypto.randomUUID() };

/** Limits the lines of all hosts; undefined: no limit. */
const shape = (hosts: readonly Host[], rate?: string) => hosts.forEach((host) => host.shape({ rate }));

/** Runs a module on the first `count` hosts at once; gives what host 0 prints. */
async function onHosts(
  hosts: readonly Host[],
  count: number,
  module: string,
  argsOf: (i: number) => string[],
): Promise<string> {
  const command = [Deno.execPath(), "run", "-A", "--quiet", path(module)];
  const ended = await Promise.all(
    hosts.slice(0, count).map((host, i) => host.run([...command, ...argsOf(i)], { env }).ended),
  );
  ended.forEach(({ code, stderr }, i) => {
    if (code !== 0) throw new Error(`Host ${i} has failed: ${stderr.trim()}`);
  });
  return ended[0].stdout;
}

const nodeFlags = (hosts: readonly Host[], count: number, i: number) =>
  ["--nodes", count, "--rendezvous", `${hosts[0].address}:${port}`, "--node-rank", i].map(String);

/** The model of these links: their rate, and the latency between the first two hosts. */
async function linkOf(hosts: readonly Host[]): Promise<LinkModel> {
  const flags = (i: number) => ["comm-bench", ...nodeFlags(hosts, 2, i), "--sizes", "4KiB", "--json"];
  const { links: [{ microseconds }] } = JSON.parse(await onHosts(hosts, 2, "../cli.ts", flags));
  return parseLink(`${values.rate},${microseconds}us`);
}

/** Times at which the buckets of lanes have come: for each round, those of one lane behind those of another. */
async function timeLanes(hosts: readonly Host[], count: number, algorithm: MeasuredAlgorithm, lanes: LaneSum[][]) {
  const plan = [count, hosts[0].address, port, algorithm, rounds, JSON.stringify(lanes)].map(String);
  const output = await onHosts(hosts, count, "plan_nodes_member.ts", (i) => [String(i), ...plan]);
  return output.trim().split("\n").map((line): number[] => JSON.parse(line));
}

function rowOf(hosts: number, what: string, predicted: number, seconds: readonly number[]): Row {
  const range = [1e3 * Math.min(...seconds), 1e3 * Math.max(...seconds)] as const;
  return { hosts, what, predicted: 1e3 * predicted, measured: 1e3 * median(seconds), range };
}

/** Single all-reduces. */
async function benchSums(hosts: readonly Host[], count: number, link: LinkModel): Promise<Row[]> {
  const rows: Row[] = [];
  for (const algorithm of ["ring", "doubling"] as const) {
    for (const bytes of values[algorithm].split(",").map(Number)) {
      const times = await timeLanes(hosts, count, algorithm, [[{ ready: 0, bytes }]]);
      const { seconds } = allReduceCost(algorithm, count, bytes, link);
      rows.push(rowOf(count, `${algorithm}, ${bytes / 1024} KiB`, seconds, times.flat()));
    }
  }
  return rows;
}

/**
 * Buckets of two groups of ranks that become ready in the course of a backward pass, here of a timer: the first few hide
 * behind it, the others queue up.
 */
async function benchLanes(hosts: readonly Host[], count: number, link: LinkModel): Promise<Row[]> {
  const bytes = 2 ** 20;
  /** What a bucket takes alone. */
  const { seconds } = allReduceCost("ring", count, bytes, link);
  const bucket = (turn: number, size = 1): LaneSum => ({ ready: turn * seconds, bytes: size * bytes });
  const lanes = [[bucket(0), bucket(1), bucket(4), bucket(4.5, 2)], [bucket(0.5, 2), bucket(4), bucket(5), bucket(5)]];
  const { ends } = playLanes(lanes, (bytes) => allReduceCost("ring", count, bytes, link));
  const times = await timeLanes(hosts, count, "ring", lanes);
  return ends.flat().map((end, i) =>
    rowOf(
      count,
      `bucket ${i % lanes[0].length + 1} of lane ${Math.floor(i / lanes[0].length) + 1} has come`,
      end,
      times.map((round) => round[i]),
    )
  );
}

/** Times of a run's steps from the fifth on, in ms. */
async function stepsOf(
  hosts: readonly Host[],
  count: number,
  flags: readonly string[],
  folder: string,
): Promise<number[]> {
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

async function benchSteps(hosts: readonly Host[], count: number, link: LinkModel): Promise<Row[]> {
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
      shape(hosts);
      free.push(...await stepsOf(hosts, count, flags, folder));
      shape(hosts, values.rate);
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
const why = whyNoHosts();
if (why) throw new UserError(`Hosts cannot be made here: this ${why}`);
const rows: Row[] = [];
let link: LinkModel | undefined;
await withHosts({ count: Math.max(...counts) }, async (hosts) => {
  shape(hosts, values.rate);
  link = await linkOf(hosts);
  for (const count of counts) {
    const bench = { sums: benchSums, lanes: benchLanes, steps: benchSteps }[values.what];
    if (bench === undefined) throw new UserError(`--what ${values.what} must be sums, lanes or steps`);
    rows.push(...await bench(hosts, count, link));
  }
});

const off = ({ predicted, measured }: Row) => predicted / measured - 1;
const good = rows.filter((row) => Math.abs(off(row)) <= tolerance).length;
const load = Deno.loadavg();
if (values.json) {
  console.log(
    JSON.stringify({ deno: Deno.version.deno, cores: navigator.hardwareConcurrency, load, link, rows, good }),
  );
} else {
  const latency = `${(1e6 * link!.latencySeconds).toFixed(0)} µs`;
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
