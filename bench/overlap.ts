/**
 * `deno task bench:overlap [--json]`: which part of the time that gradients travel between two machines is hidden behind backward:
 * a model of 10 million parameters on two hosts in network namespaces whose links carry 1 Gbit/s (root on Linux). Read off
 * the timeline of the first host, steps 3 and later: hidden is what ranks do not wait for of what the network takes.
 *
 * `--rate 1gbit`, `--steps 12`, `"--train=--bucket-mb 8 …"` change what is run.
 */

import { parseArgs } from "node:util";
import { UserError } from "../errors.ts";
import { whyNoHosts, withHosts } from "../tests/hosts/hosts.ts";

/** A span of a timeline, times in µs. */
interface Span {
  readonly ph: string;
  readonly name: string;
  readonly cat?: string;
  readonly tid: number;
  readonly ts: number;
  readonly dur: number;
}

const { values } = parseArgs({
  options: {
    json: { type: "boolean", default: false },
    rate: { type: "string", default: "1gbit" },
    steps: { type: "string", default: "12" },
    train: { type: "string", default: "" },
  },
});
const model = "--layers 8 --width 320 --heads 8 --sequence-length 128 --batch-size 8 --micro-batch-size 4";
const flags = `${model} --eval-interval 0 --eval-batches 1 --commit-steps 0 --steps ${values.steps} ${values.train}`;
const median = (numbers: readonly number[]) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1];

const why = whyNoHosts();
if (why) throw new UserError(`Hosts cannot be made here: this ${why}`);
const folder = await Deno.makeTempDir();
const rows: { step: string; milliseconds: number; network: number; waited: number; hidden: number }[] = [];
await withHosts({ count: 2, rate: values.rate }, async (hosts) => {
  const ended = await Promise.all(hosts.map((host, i) => {
    const place = ["--nodes", "2", "--rendezvous", `${hosts[0].address}:29500`, "--node-rank", String(i)];
    const own = ["--out", `${folder}/${i}`, "--trace", `${folder}/trace.json`, "--json"];
    const env = { MUSTER_SECRET: "a secret of two hosts of a bench", LP_NUM_THREADS: "1" };
    return host.muster(["train", ...flags.trim().split(/ +/), ...place, ...own], { env }).ended;
  }));
  for (const { code, stderr } of ended) if (code !== 0) throw new Error(stderr);
});
const spans: Span[] = JSON.parse(Deno.readTextFileSync(`${folder}/trace.json`)).filter(({ ph }: Span) => ph === "X");
await Deno.remove(folder, { recursive: true });
for (const step of spans.filter(({ cat, tid }) => cat === "step" && tid === 0).slice(2)) {
  const within = spans.filter(({ ts }) => ts >= step.ts && ts < step.ts + step.dur);
  const total = (of: (span: Span) => boolean) => within.filter(of).reduce((sum, { dur }) => sum + dur / 1e3, 0);
  const network = total(({ name }) => name.startsWith("all-reduce of bucket"));
  const waited = total(({ name, tid }) => tid === 0 && name === "waits for the other machines");
  rows.push({ step: step.name, milliseconds: step.dur / 1e3, network, waited, hidden: 1 - waited / network });
}
const hidden = median(rows.map(({ hidden }) => hidden));
if (values.json) {
  console.log(JSON.stringify({ deno: Deno.version.deno, load: Deno.loadavg(), rate: values.rate, rows, hidden }));
} else {
  for (const { step, milliseconds, network, waited, hidden } of rows) {
    const [all, sums, shown] = [milliseconds, network, waited].map((time) => `${time.toFixed(0)} ms`.padStart(8));
    console.log(`${step.padEnd(8)}${all}, network ${sums}, waited for ${shown}, hidden ${(100 * hidden).toFixed(0)}%`);
  }
  console.log(`${(100 * hidden).toFixed(0)}% of the network's time is hidden (median of ${rows.length} steps)`);
}
