/** Layout invariance: the same seed, data and batch give the same training on every layout of ranks. */

import assert from "node:assert/strict";
import { openSafetensors } from "../../data/safetensors.ts";
import type { TrainEvent } from "../../train/events.ts";
import type { GivenSettings } from "../../train/settings.ts";
import { train } from "../../train/trainer.ts";
import { lossBounds } from "../../train/verify.ts";
import { withFolder } from "../folder.ts";

const text = Array.from(
  { length: 400 },
  (_, i) => `${i}. the whale swam ${["north", "south", "east"][i % 3]} for ${i % 7} days\n`,
).join("");

const models: Record<string, GivenSettings> = {
  "GPT-2": { family: "gpt2", layers: 4, heads: 4, width: 64 },
  "GPT-2 of 6 blocks": { family: "gpt2", layers: 6, heads: 2, width: 32 },
  // Untied, 4 heads with 2 for keys and values, an odd vocabulary.
  "Llama": { init: new URL("../fixtures/llama_tiny/", import.meta.url).pathname },
  "tied Llama": { family: "llama", layers: 4, heads: 4, kvHeads: 2, width: 64 },
};

interface Layout extends GivenSettings {
  readonly ranks: number;
}

const layouts: [string, string, Layout][] = [
  ["dp 2", "GPT-2", { ranks: 2 }],
  ["dp 3", "Llama", { ranks: 3 }],
  ["dp 4, small buckets", "tied Llama", { ranks: 4, bucketMb: 0.02 }],
  ["dp 2, zero 1", "Llama", { ranks: 2, zero: "1" }],
  ["dp 3, zero 1, small buckets", "GPT-2", { ranks: 3, zero: "1", bucketMb: 0.05 }],
  ["dp 2, micro-batches of 2", "GPT-2", { ranks: 2, microBatchSize: 2, bucketMb: 0.1 }],
  ["dp 2, unequal", "GPT-2", { ranks: 2, balance: "3:1" }],
  ["dp 3, unequal, zero 1, dropout", "Llama", {
    ranks: 3,
    balance: "1:4:2",
    zero: "1",
    microBatchSize: 1,
    dropout: 0.1,
  }],
  ["dp 5, which does not divide the batch", "tied Llama", { ranks: 5 }],
  ["dp 2, pp 2, unequal", "GPT-2", { ranks: 4, pp: 2, balance: "2:1", microBatches: 4 }],
  ["dp 2, zero 2", "GPT-2", { ranks: 2, zero: "2" }],
  ["dp 2, zero 2, small buckets, micro-batches of 2", "tied Llama", {
    ranks: 2,
    zero: "2",
    bucketMb: 0.02,
    microBatchSize: 2,
  }],
  ["dp 2, zero 3", "Llama", { ranks: 2, zero: "3" }],
  ["dp 3, zero 3, micro-batches of 2", "GPT-2", { ranks: 3, zero: "3", microBatchSize: 2, dropout: 0.1 }],
  ["dp 2, tp 2, zero 3, recompute", "tied Llama", { ranks: 4, tp: 2, zero: "3", recompute: "block" }],
  ["dp 2, tp 2, sequence-parallel, zero 2", "Llama", { ranks: 4, tp: 2, zero: "2", sequenceParallel: true }],
  ["dp 2, pp 2, zero 2", "tied Llama", { ranks: 4, pp: 2, zero: "2", microBatches: 3 }],
  ["dp 2, pp 2, zero 3, zero-bubble", "GPT-2", {
    ranks: 4,
    pp: 2,
    zero: "3",
    microBatches: 3,
    pipelineSchedule: "zero-bubble",
    recompute: "selective",
  }],
  ["recompute blocks", "GPT-2", { ranks: 1, recompute: "block", dropout: 0.1 }],
  ["recompute norms", "Llama", { ranks: 1, recompute: "selective" }],
  ["pp 2, tp 2, recompute blocks", "Llama", { ranks: 4, pp: 2, tp: 2, recompute: "block", microBatches: 3 }],
  ["optimizer on the host", "Llama", { ranks: 1, cpuOffload: "optimizer", bucketMb: 0.05 }],
  ["dp 2, zero 3, optimizer on the host", "tied Llama", { ranks: 2, zero: "3", cpuOffload: "optimizer" }],
  ["tp 2", "GPT-2", { ranks: 2, tp: 2 }],
  ["tp 2", "Llama", { ranks: 2, tp: 2 }],
  ["tp 4", "Llama", { ranks: 4, tp: 4 }],
  ["tp 4, dropout", "GPT-2", { ranks: 4, tp: 4, dropout: 0.1 }],
  ["tp 2, sequence-parallel", "tied Llama", { ranks: 2, tp: 2, sequenceParallel: true }],
  ["tp 4, sequence-parallel, dropout", "GPT-2", { ranks: 4, tp: 4, sequenceParallel: true, dropout: 0.1 }],
  ["pp 2, gpipe", "GPT-2", { ranks: 2, pp: 2, pipelineSchedule: "gpipe", microBatches: 4 }],
  ["pp 2, 1f1b", "Llama", { ranks: 2, pp: 2, pipelineSchedule: "1f1b", microBatches: 6 }],
  ["pp 2, interleaved", "tied Llama", { ranks: 2, pp: 2, pipelineSchedule: "interleaved", microBatches: 4 }],
  ["pp 2, zero-bubble", "GPT-2", { ranks: 2, pp: 2, pipelineSchedule: "zero-bubble", microBatches: 6, dropout: 0.1 }],
  ["pp 3, gpipe", "Llama", { ranks: 3, pp: 3, pipelineSchedule: "gpipe", microBatches: 3 }],
  ["pp 3, 1f1b", "tied Llama", { ranks: 3, pp: 3, microBatches: 12 }],
  ["pp 3, interleaved", "GPT-2 of 6 blocks", {
    ranks: 3,
    pp: 3,
    pipelineSchedule: "interleaved",
    microBatches: 6,
  }],
  ["pp 3, zero-bubble", "Llama", { ranks: 3, pp: 3, pipelineSchedule: "zero-bubble", microBatches: 6 }],
  ["pp 2, interleaved", "GPT-2", { ranks: 2, pp: 2, pipelineSchedule: "interleaved", microBatches: 2 }],
  ["dp 2, tp 2", "Llama", { ranks: 4, tp: 2 }],
  ["dp 2, pp 2", "tied Llama", { ranks: 4, pp: 2, microBatches: 3, zero: "1" }],
  ["pp 2, tp 2", "GPT-2", { ranks: 4, pp: 2, tp: 2, sequenceParallel: true, microBatches: 3 }],
  ["dp 2, pp 2, tp 2", "GPT-2", { ranks: 8, pp: 2, tp: 2, microBatches: 3, zero: "1" }],
  ["dp 2, pp 2, tp 2", "Llama", { ranks: 8, pp: 2, tp: 2, microBatches: 2, pipelineSchedule: "zero-bubble" }],
  ["bf16, tp 2, sequence-parallel, dropout", "Llama", {
    ranks: 2,
    precision: "bf16",
    tp: 2,
    sequenceParallel: true,
    dropout: 0.1,
  }],
  ["bf16, dp 2, pp 2, zero 3, zero-bubble, recompute", "GPT-2", {
    ranks: 4,
    precision: "bf16",
    pp: 2,
    zero: "3",
    microBatches: 3,
    pipelineSchedule: "zero-bubble",
    recompute: "block",
  }],
  ["f16, dp 2, tp 2, zero 2, optimizer on the host", "tied Llama", {
    ranks: 4,
    precision: "f16",
    tp: 2,
    zero: "2",
    cpuOffload: "optimizer",
  }],
];

/** Most of the way that weights may have gone elsewhere. */
const farthest = { f32: 1e-3, f16: 0.02, bf16: 0.1 };

const inFolder = (body: (folder: string) => Promise<void>) => withFolder({ "text.txt": text }, body);

interface Trained {
  readonly losses: number[];
  readonly validationLoss: number;
  readonly checkpoint: string;
  readonly weights: ReadonlyMap<string, Float32Array>;
}

async function run(folder: string, name: string, { ranks, ...settings }: Layout): Promise<Trained> {
  const events: TrainEvent[] = [];
  const { checkpoint, validationLoss } = await train({
    data: `${folder}/text.txt`,
    out: `${folder}/${name}`,
    sequenceLength: 16,
    batchSize: 12,
    steps: 10,
    evalBatches: 2,
    lrSchedule: "constant",
    warmupSteps: 0,
    learningRate: 1e-3,
    devices: new Array(ranks).fill("0").join(),
    ...settings,
  }, { onEvent: (event) => events.push(event) });
  const losses = events.flatMap((event) => event.event === "step" ? [event.loss] : []);
  return { losses, validationLoss, checkpoint, weights: weightsOf(checkpoint) };
}

function weightsOf(checkpoint: string): ReadonlyMap<string, Float32Array> {
  const reader = openSafetensors(`${checkpoint}/model.safetensors`);
  const weights = new Map([...reader.tensors].map(([name, { shape }]) => {
    const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
    reader.readInto(name, data);
    return [name, data];
  }));
  reader.close();
  return weights;
}

/** Distance of two weights as a share of the way that training went. */
function distance(a: Trained, b: Trained, start: ReadonlyMap<string, Float32Array>): number {
  let apart = 0;
  let way = 0;
  for (const [name, data] of b.weights) {
    const [other, from] = [a.weights.get(name)!, start.get(name)!];
    for (let i = 0; i < data.length; i++) {
      apart += (other[i] - data[i]) ** 2;
      way += (data[i] - from[i]) ** 2;
    }
  }
  return Math.sqrt(apart / way);
}

Deno.test("every layout trains as one rank does", async (t) => {
  await inFolder(async (folder) => {
    const references = new Map<string, Trained>();
    const starts = new Map<string, ReadonlyMap<string, Float32Array>>();
    let count = 0;
    for (const [name, model, layout] of layouts) {
      await t.step(`${model}: ${name}`, async () => {
        const { dropout = 0, precision = "f32" } = layout;
        const key = `${model} ${dropout} ${precision}`;
        const own = { ...models[model], dropout, precision };
        const bound = lossBounds[precision];
        if (!references.has(key)) {
          references.set(key, await run(folder, `reference${count++}`, { ranks: 1, ...own }));
          const still = { ranks: 1, steps: 1, learningRate: 1e-10, ...own };
          if (!starts.has(model)) starts.set(model, (await run(folder, `start${count++}`, still)).weights);
        }
        const reference = references.get(key)!;
        const found = await run(folder, `run${count++}`, { ...own, ...layout });
        found.losses.forEach((loss, i) => {
          const error = Math.abs(loss / reference.losses[i] - 1);
          assert.ok(error < bound, `step ${i + 1}: ${loss} instead of ${reference.losses[i]}`);
        });
        assert.equal(found.losses.length, 10);
        assert.ok(Math.abs(found.validationLoss / reference.validationLoss - 1) < bound);
        const apart = distance(found, reference, starts.get(model)!);
        assert.ok(apart < farthest[precision], `the weights went ${apart} of the way elsewhere`);
      });
    }
  });
});

/** Layouts of the first and of the later steps. */
const changes: [string, Layout, Layout][] = [
  ["dp 2, pp 2, zero 1 → tp 2", { ranks: 4, pp: 2, microBatches: 3, zero: "1" }, { ranks: 2, tp: 2 }],
  ["dp 2, zero 3, optimizer on the host → one rank", { ranks: 2, zero: "3", cpuOffload: "optimizer" }, { ranks: 1 }],
  ["one rank → dp 3, zero 2", { ranks: 1 }, { ranks: 3, zero: "2", microBatchSize: 2 }],
];

Deno.test("a checkpoint saved under one layout resumes under another with the same losses", (t) =>
  inFolder(async (folder) => {
    const whole = await run(folder, "whole", { ranks: 1, ...models["GPT-2"] });
    for (const [name, before, after] of changes) {
      await t.step(name, async () => {
        const first = await run(folder, `${name} first`, { ...before, ...models["GPT-2"], steps: 5 });
        const plain = { pp: 1, tp: 1, zero: "0", cpuOffload: "none", microBatches: undefined } as const;
        const second = await run(folder, `${name} second`, { ...plain, ...after, resume: first.checkpoint });
        [...first.losses, ...second.losses].forEach((loss, i) =>
          assert.ok(Math.abs(loss / whole.losses[i] - 1) < 1e-4, `step ${i + 1}: ${loss} instead of ${whole.losses[i]}`)
        );
        assert.equal(first.losses.length + second.losses.length, 10);
      });
    }
  }));

Deno.test("one layout gives the same bits twice", () =>
  inFolder(async (folder) => {
    const layout = { ranks: 4, tp: 2, zero: "1" as const, ...models["tied Llama"], steps: 4 };
    for (const precision of ["f32", "bf16"] as const) {
      const [first, second] = [
        await run(folder, "a", { ...layout, precision }),
        await run(folder, "b", { ...layout, precision }),
      ];
      assert.deepEqual(first.losses, second.losses);
      for (const [name, data] of first.weights) assert.deepEqual(second.weights.get(name), data);
    }
  }));
