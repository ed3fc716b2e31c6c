/** The planner: its bytes against those that ranks report, its choices against what is known beforehand. */

import assert from "node:assert/strict";
import { UserError } from "../../errors.ts";
import { describeBytes } from "../../graph/plan.ts";
import { meshesOf, nameMesh } from "../../parallel/mesh.ts";
import { bubbleFormula } from "../../parallel/schedules.ts";
import { collectiveBytes } from "../../train/cost_model.ts";
import type { TrainEvent } from "../../train/events.ts";
import { assumedHardware, shareHardware } from "../../train/hardware.ts";
import { layoutOf } from "../../train/launch.ts";
import { allLayouts, parseLayout } from "../../train/layouts.ts";
import { buildModelGraph } from "../../train/model_graph.ts";
import { planTraining } from "../../train/plan_training.ts";
import { flagsOf, pickLayout, planMesh } from "../../train/planner.ts";
import { settleModel } from "../../train/run_model.ts";
import { completeSettings, type GivenSettings } from "../../train/settings.ts";
import { train } from "../../train/trainer.ts";
import { isCollective } from "../../graph/collective.ts";
import { withFolder } from "../folder.ts";

const small: GivenSettings = { family: "gpt2", layers: 4, heads: 4, width: 64, sequenceLength: 16, batchSize: 12 };

/** A plan for GPUs that are not here. */
const planFor = (ranks: number, given: GivenSettings, more: { memoryBytes?: number; flopsPerSecond?: number } = {}) =>
  planTraining(given, { gpus: { ranks, ...more } });

/** The start of a run of one step. */
async function startOf(folder: string, given: GivenSettings): Promise<Extract<TrainEvent, { event: "start" }>> {
  let start: Extract<TrainEvent, { event: "start" }> | undefined;
  const out = `${folder}/${crypto.randomUUID()}`;
  await train({ data: `${folder}/text.txt`, steps: 1, evalBatches: 1, out, ...given }, {
    onEvent: (event) => event.event === "start" && (start = event),
  });
  return start!;
}

const text = "the whale swam north, and then it swam south again\n".repeat(200);

const inFolder = (body: (folder: string) => Promise<void>) => withFolder({ "text.txt": text }, body);

Deno.test("predicted bytes are those that the ranks allocate, role by role", () =>
  inFolder(async (folder) => {
    const layouts: GivenSettings[] = [
      small,
      { ...small, dp: 2, zero: "1", bucketMb: 0.05, dropout: 0.1 },
      { ...small, tp: 2, sequenceParallel: true, family: "llama", kvHeads: 2 },
      { ...small, dp: 2, pp: 2, pipelineSchedule: "zero-bubble", microBatches: 3 },
      { ...small, dp: 2, zero: "2", balance: "3:1", recompute: "selective", bucketMb: 0.05 },
      { ...small, dp: 3, zero: "3", recompute: "block", cpuOffload: "optimizer", microBatchSize: 2 },
      { ...small, dp: 2, pp: 2, zero: "3", pipelineSchedule: "interleaved", microBatches: 2, recompute: "block" },
      { ...small, dp: 2, tp: 2, family: "llama", kvHeads: 2, zero: "2", cpuOffload: "optimizer" },
      { ...small, dp: 2, batchSize: 7, microBatchSize: 3 },
    ];
    const measured = (await planTraining({ ...small, devices: "0" })).hardware[0];
    for (const given of layouts) {
      const { dp = 1, pp = 1, tp = 1 } = given;
      const hardware = new Array(dp * pp * tp).fill(measured);
      const settings = completeSettings(given);
      const pick = pickLayout({ ...settleModel(settings, 256), settings, hardware });
      const devices = hardware.map(() => "0").join();
      const { bytes, memory, microBatchSize } = await startOf(folder, { ...given, devices });
      assert.deepEqual(
        { bytes: pick.totalBytes, memory: describeBytes(pick), microBatchSize: pick.microBatchSize },
        { bytes, memory, microBatchSize },
        JSON.stringify(given),
      );
    }
  }));

Deno.test("train() without mesh flags takes the pick and says so; with them, or alone, it does not", () =>
  inFolder(async (folder) => {
    const copies = await startOf(folder, { ...small, devices: "0,0" });
    assert.equal(copies.mesh, "dp 2");
    assert.match(copies.pick!, /^dp 2: predicted \d.* a step, the next best, \w+ 2, \d/);
    // What was picked is not kept: a resumed run picks for the ranks that there are.
    const alone = await startOf(folder, { data: undefined, resume: copies.run, devices: "0", steps: 2 });
    assert.deepEqual([alone.mesh, alone.firstStep], [undefined, 1]);
    // One sequence cannot be shared by two copies.
    const stages = await startOf(folder, { ...small, devices: "0,0", batchSize: 1, heads: 1 });
    assert.equal(stages.mesh, "pp 2");
    assert.match(stages.pick!, /^pp 2: the only layout that can train this/);
    assert.equal((await startOf(folder, { ...small, devices: "0,0", tp: 2 })).pick, undefined);
    assert.equal((await startOf(folder, { ...small, devices: "0" })).pick, undefined);
    await assert.rejects(
      startOf(folder, { ...small, devices: "0,0", batchSize: 1, heads: 1, layers: 1 }),
      (error: Error) => {
        assert.ok(error instanceof UserError);
        assert.match(error.message, /^No layout can train this: dp 2: --batch-size 1 .*; pp 2: .*; tp 2: /);
        return true;
      },
    );
  }));

Deno.test("every mesh of the ranks is planned or refused, and mesh flags leave some out", async () => {
  const { survey, pick } = await planFor(8, { ...small, batchSize: 8, layers: 8 });
  const names = [...survey.planned, ...survey.refused].map(({ mesh }) => nameMesh(mesh)).sort();
  assert.deepEqual(names, meshesOf(8).map(nameMesh).sort());
  assert.deepEqual(survey.refused.map(({ mesh }) => nameMesh(mesh)), ["tp 8"]);
  assert.match(survey.refused[0].reason, /4 heads/);
  assert.equal(pick!.mesh, survey.planned[0].mesh);
  const seconds = survey.planned.map((one) => one.seconds);
  assert.deepEqual(seconds, [...seconds].sort((a, b) => a - b));

  const some = (await planFor(8, { ...small, batchSize: 8, tp: 2 })).survey;
  assert.deepEqual([...some.planned, ...some.refused].map(({ mesh }) => mesh.tensor), [2, 2, 2]);
  await assert.rejects(planFor(4, { ...small, dp: 3 }), /--dp 3 .* does not make up 4 ranks: choose .*--dp 2 --pp 2/);
});

Deno.test("what a bank's gradients weigh is what data parallelism moves", () => {
  const settings = completeSettings({ ...small, dp: 2 });
  const { configuration, sequenceLength } = settleModel(settings, 256);
  const layout = layoutOf(configuration, { data: 2, pipeline: 1, tensor: 1 }, 0, settings, {
    share: 6,
    microBatchSize: 6,
  });
  const { graph, banks } = buildModelGraph({ configuration, sequenceLength, batch: 6, segments: ["train"], layout });
  const groups = new Map([["data", [0, 1]], ["world", [0, 1]], ["tensor", [0]]]);
  const moved = graph.segments.get("train")!.filter(isCollective).map((op) => collectiveBytes(op, groups));
  const bytes = banks.reduce((sum, { length }) => sum + 4 * length, 0);
  assert.equal(moved.reduce((sum, { read }) => sum + read, 0), bytes);
  assert.equal(moved.reduce((sum, { write }) => sum + write, 0), bytes);
});

Deno.test("a pipeline's bubble is near the formula's where its stages are nearly equal", async () => {
  const even: GivenSettings = { ...small, layers: 16, width: 256, sequenceLength: 256, batchSize: 16, pp: 4 };
  for (const microBatches of [4, 8, 16]) {
    const { pick } = await planFor(4, { ...even, microBatches }, { flopsPerSecond: 1e10 });
    const formula = bubbleFormula("1f1b", { stages: 4, microBatches, chunks: 1 });
    assert.ok(Math.abs(pick!.bubble - formula) < 0.05, `${pick!.bubble} beside ${formula}`);
  }
});

Deno.test("memory decides: copies where they fit, else stronger sharding or smaller micro-batches, else other meshes", async () => {
  // One block and one head: neither stages nor shares of blocks.
  const only: GivenSettings = { ...small, layers: 1, heads: 1, width: 128, sequenceLength: 64, microBatchSize: 1 };
  const whole = (await planFor(4, only)).pick!;
  assert.deepEqual(whole.settings, {});
  const sharded = (await planFor(4, { ...only, zero: "1" })).pick!;
  assert.ok(sharded.totalBytes < whole.totalBytes);
  // 0.9 of it can be used.
  const limit = (bytes: number) => Math.ceil((bytes + 1024) / 0.9);
  const tight = (await planFor(4, only, { memoryBytes: limit(sharded.totalBytes) })).pick!;
  assert.equal(tight.settings.zero, "1");
  assert.equal(tight.totalBytes, sharded.totalBytes);
  assert.match(tight.why, /--zero 1/);
  assert.ok(flagsOf(tight).join(" ").endsWith("--zero 1"));
  const none = await planFor(2, only, { memoryBytes: 1e6 });
  assert.equal(none.pick, undefined);
  assert.match(none.survey.refused[0].reason, /^a rank needs .* can use 879 KiB$/);

  const large: GivenSettings = { ...small, sequenceLength: 256, batchSize: 32 };
  const free = (await planFor(2, large)).pick!;
  assert.equal(free.microBatchSize, 16);
  const half = (await planFor(2, { ...large, dp: 2 }, { memoryBytes: limit(free.totalBytes) / 2 })).pick!;
  assert.ok(half.microBatchSize < 16 && half.microBatchSize * half.microBatches === 16);
  assert.ok(half.totalBytes <= 0.9 * limit(free.totalBytes) / 2);

  // A batch that copies cannot share evenly; what is picked can be asked for.
  const odd: GivenSettings = { ...large, batchSize: 7, dp: 2 };
  const uneven = (await planFor(2, odd)).pick!;
  assert.deepEqual([uneven.microBatchSize, flagsOf(uneven)], [4, ["--dp", "2", "--pp", "1", "--tp", "1"]]);
  const little = (await planFor(2, odd, { memoryBytes: limit(uneven.totalBytes) * 0.7 })).pick!;
  assert.deepEqual(little.settings, { microBatchSize: 2 });
  const asked = (await planFor(2, { ...odd, ...little.settings })).pick!;
  assert.deepEqual([asked.totalBytes, asked.microBatches, asked.settings], [little.totalBytes, 2, {}]);
  // With zero 2 copies need as many micro-batches, so that not every size is possible: it is the memory that is missing.
  const { refused } = (await planFor(2, { ...odd, zero: "2" }, { memoryBytes: 1e6 })).survey;
  assert.match(refused[0].reason, /^a rank needs /);

  // GPT-2 of 1.5 billion parameters: 25 GB of weights, gradients and moments.
  const huge: GivenSettings = { model: "gpt2-1558m", batchSize: 8, zero: "0" };
  const spread = await planFor(4, huge, { memoryBytes: 16 * 2 ** 30 });
  assert.ok(spread.pick!.mesh.pipeline > 1, nameMesh(spread.pick!.mesh));
});

Deno.test("copies are faster than shares of blocks, and faster GPUs take less time", async () => {
  const given: GivenSettings = { ...small, layers: 8, heads: 8, width: 512, sequenceLength: 256, batchSize: 32 };
  const seconds = async (flopsPerSecond: number, flags: GivenSettings) =>
    (await planFor(2, { ...given, ...flags }, { flopsPerSecond })).pick!.seconds;
  assert.ok(await seconds(1e13, { dp: 2 }) < await seconds(1e13, { tp: 2 }));
  assert.ok(await seconds(2e13, { dp: 2 }) < await seconds(1e13, { dp: 2 }));
});

Deno.test("the slowest and smallest of unequal GPUs counts", () => {
  const gpu = (name: string, flopsPerSecond: number, memoryBytes: number) =>
    assumedHardware({ name, type: "gpu", flopsPerSecond, memoryBytes });
  const [fast, slow, little] = [gpu("a", 4e13, 2 ** 33), gpu("b", 1e12, 2 ** 33), gpu("c", 4e13, 2 ** 20)];
  const settings = completeSettings({ ...small, sequenceLength: 256, dp: 2 });
  const request = { ...settleModel(settings, 256), settings };
  const mesh = { data: 2, pipeline: 1, tensor: 1 };
  const secondsOf = (...hardware: typeof fast[]) => {
    const planned = planMesh({ ...request, hardware }, mesh);
    assert.ok("seconds" in planned);
    return planned.seconds;
  };
  assert.equal(secondsOf(slow, fast), secondsOf(slow, slow));
  assert.ok(secondsOf(fast, fast) < secondsOf(fast, slow) / 2);
  assert.ok("reason" in planMesh({ ...request, hardware: [fast, little] }, mesh));
  // Two ranks on one GPU have half of it each.
  const [shared, , alone] = shareHardware([0, 0, 1].map((index) => ({ index, hardware: fast })));
  assert.equal(shared.capabilities.memoryBytes, 2 ** 32);
  assert.equal(shared.productFlops, alone.productFlops / 2);
});

Deno.test("pickLayout() plans gpt2-1558m for 8 GPUs in seconds", () => {
  const settings = completeSettings({ model: "gpt2-1558m", batchSize: 32 });
  const gpu = assumedHardware({ name: "x", type: "gpu", flopsPerSecond: 2e13, memoryBytes: 24 * 2 ** 30 });
  const start = performance.now();
  pickLayout({ ...settleModel(settings, 50257), settings, hardware: new Array(8).fill(gpu) });
  assert.ok(performance.now() - start < 20_000, `${performance.now() - start} ms`);
});

Deno.test("layouts are read and named in one way", () => {
  for (const layout of [...allLayouts(1), ...allLayouts(4), ...allLayouts(6)]) {
    assert.deepEqual(parseLayout(layout.name === "one rank" ? "dp 1" : layout.name), layout);
  }
  const names = allLayouts(2).map(({ name }) => name);
  for (const name of ["dp 2", "dp 2 zero 1", "pp 2 zero-bubble", "pp 2 1f1b", "tp 2", "tp 2 sequence-parallel"]) {
    assert.ok(names.includes(name), name);
  }
  assert.equal(new Set(names).size, names.length);
  assert.equal(parseLayout(" tp 2  dp 2 zero 1").name, "dp 2 tp 2 zero 1");
  for (
    const [text, message] of [["", /no layout/], ["dp", /no layout/], ["dp two", /--dp/], [
      "3 dp",
      /no layout/,
    ]] as const
  ) {
    assert.throws(() => parseLayout(text), (error: Error) => error instanceof UserError && message.test(error.message));
  }
});
