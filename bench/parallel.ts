/**
 * `deno task bench:parallel [--json] [dp] [pp] [tp] [reduce] [generate]`: several ranks against one, with one core for
 * each software device, so that two devices really are two cores. Runs of both kinds take turns; medians.
 */

import { measureAllReduce } from "./all_reduce.ts";
import { measureGeneration } from "./generate.ts";

const json = Deno.args.includes("--json");
const wanted = Deno.args.filter((arg) => !arg.startsWith("-"));
const wants = (name: string) => wanted.length === 0 || wanted.includes(name);
const entry = new URL("../cli.ts", import.meta.url).pathname;
/** Times that each kind is run. */
const turns = 3;
/** Steps of a run, and how many of them compile and measure. */
const steps = { all: 12, first: 4 };

/** One comparison. */
interface Case {
  readonly name: string;
  readonly model: readonly string[];
  /** Flags of the ranks together. */
  readonly flags: readonly string[];
  /** The speed-up that would be perfect. */
  readonly ideal: number;
}

/** What came of it. */
interface CaseResult {
  readonly name: string;
  readonly aloneMilliseconds: number;
  readonly togetherMilliseconds: number;
  readonly speedup: number;
  /** Of the ideal. */
  readonly efficiency: number;
  /** Share of a step that rank 0 spends in collectives: copies, sums, waits. */
  readonly collectiveShare: number;
}

const gpt = (width: number, layers: number, length: number, batch: number) =>
  `--family gpt2 --layers ${layers} --heads ${
    width / 32
  } --width ${width} --sequence-length ${length} --batch-size ${batch}`
    .split(" ");

const microBatches = 8;
const cases: Record<string, Case> = {
  dp: { name: "dp 2", model: gpt(128, 4, 128, 8), flags: ["--dp", "2"], ideal: 2 },
  pp: {
    name: `pp 2, 1f1b, ${microBatches} micro-batches`,
    model: gpt(256, 8, 128, 8),
    flags: ["--pp", "2", "--micro-batches", String(microBatches)],
    // The bubble of p stages and m micro-batches: (p - 1) / (m + p - 1).
    ideal: 2 * microBatches / (microBatches + 1),
  },
  tp: { name: "tp 2, width 512", model: gpt(512, 4, 128, 8), flags: ["--tp", "2"], ideal: 2 },
};

const median = (values: number[]) => [...values].sort((a, b) => a - b)[values.length >> 1];

/** Trains a few steps in a process of its own and returns the times of the later ones. */
async function train(folder: string, args: readonly string[]): Promise<{ whole: number; collective: number }[]> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-A",
      "--quiet",
      entry,
      "train",
      "--json",
      "--steps",
      String(steps.all),
      "--eval-batches",
      "1",
      "--out",
    ]
      .concat(`${folder}/${crypto.randomUUID()}`, args),
    env: { LP_NUM_THREADS: "1" },
  }).output();
  if (code !== 0) throw new Error(new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout).split("\n").flatMap((line) => {
    const event = JSON.parse(line || "{}");
    return event.event === "step" && event.step > steps.first
      ? [{ whole: event.milliseconds, collective: event.collectiveMilliseconds ?? 0 }]
      : [];
  });
}

async function compare({ name, model, flags, ideal }: Case): Promise<CaseResult> {
  const folder = Deno.makeTempDirSync();
  try {
    const alone: number[] = [];
    const together: { whole: number; collective: number }[] = [];
    for (let turn = 0; turn < turns; turn++) {
      // The same micro-batches on one rank: only the spreading is compared.
      const micro = flags.includes("--pp") ? ["--micro-batch-size", "1"] : [];
      alone.push(...(await train(folder, [...model, "--devices", "0", ...micro])).map(({ whole }) => whole));
      together.push(...await train(folder, [...model, "--devices", "0,0", ...flags]));
    }
    const aloneMilliseconds = median(alone);
    const togetherMilliseconds = median(together.map(({ whole }) => whole));
    const speedup = aloneMilliseconds / togetherMilliseconds;
    return {
      name,
      aloneMilliseconds,
      togetherMilliseconds,
      speedup,
      efficiency: speedup / ideal,
      collectiveShare: median(together.map(({ collective }) => collective)) / togetherMilliseconds,
    };
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

const results: CaseResult[] = [];
for (const [key, each] of Object.entries(cases)) if (wants(key)) results.push(await compare(each));
const reduce = wants("reduce") ? measureAllReduce(64 * 2 ** 20) : undefined;
const generation = wants("generate") ? await measureGeneration() : undefined;
if (json) console.log(JSON.stringify({ deno: Deno.version.deno, results, reduce, generation }));
else {
  console.log(
    `${"".padEnd(32)}${"alone".padStart(9)}${"together".padStart(10)}${
      "speed-up".padStart(10)
    }  of ideal  in collectives`,
  );
  for (const { name, aloneMilliseconds, togetherMilliseconds, speedup, efficiency, collectiveShare } of results) {
    const times = `${aloneMilliseconds.toFixed(0).padStart(6)} ms${togetherMilliseconds.toFixed(0).padStart(7)} ms`;
    console.log(
      `${name.padEnd(32)}${times}${speedup.toFixed(2).padStart(10)}${efficiency.toFixed(2).padStart(10)}` +
        `${(100 * collectiveShare).toFixed(0).padStart(14)}%`,
    );
  }
  if (reduce) {
    const rate = (bytes: number) => `${(bytes / 1e9).toFixed(1)} GB/s`;
    console.log(
      `all-reduce of 64 MiB by 2 ranks in shared memory: ${rate(reduce.bytesPerSecond)}, ` +
        `${reduce.share.toFixed(2)} of a plain copy (${rate(reduce.copyBytesPerSecond)})`,
    );
  }
  if (generation) {
    const { alone, together, speedup, firstTokenMilliseconds } = generation;
    console.log(
      `generation from 8 prompts: ${alone.toFixed(1)} tokens/s alone, ${together.toFixed(1)} on 2 stages ` +
        `(${speedup.toFixed(2)} times), first token of a text after ${firstTokenMilliseconds} ms`,
    );
  }
}
Deno.exit(0);
