/** No work twice: after the second step nothing is made that could have been kept. */

import assert from "node:assert/strict";
import { RunStatus } from "../../parallel/status.ts";
import { makeJobs } from "../../train/make_jobs.ts";
import { prepareRun } from "../../train/prepare_run.ts";
import type { RankJob, RankMessage } from "../../train/rank_protocol.ts";
import { RunState } from "../../train/run_state.ts";
import { soleMachine } from "../../train/run_world.ts";
import type { GivenSettings } from "../../train/settings.ts";
import { withFolder } from "../folder.ts";
import type { Counted, CountingTask } from "./counting_rank.ts";

const text = Array.from({ length: 4000 }, (_, i) => `${i}. the whale swam for ${i % 7} days\n`).join("");
/** Between the ends of these steps. */
const [from, to] = [2, 12];

type Told = RankMessage | { readonly type: "counted"; readonly counted: Counted };

/** Starts a rank; `opened` when the next may be started. */
function start(job: RankJob, wastes: boolean) {
  const opened = Promise.withResolvers<void>();
  const ended = Promise.withResolvers<Counted>();
  const worker = new Worker(import.meta.resolve("./counting_rank.ts"), { type: "module" });
  worker.onmessage = ({ data }: MessageEvent<Told>) => {
    if (data.type === "opened") opened.resolve();
    if (data.type === "counted") ended.resolve(data.counted);
    if (data.type === "failing") ended.reject(new Error(data.failure.message));
    if (data.type === "checkpoint") {
      // As the coordinator does when it has taken note of it.
      const control = new Int32Array(job.control);
      Atomics.add(control, 1, 1);
      Atomics.notify(control, 1);
    }
  };
  const task: CountingTask = { job, from, to, wastes };
  worker.postMessage(task);
  return { opened: opened.promise, ended: ended.promise };
}

function count(given: GivenSettings, wastes = false): Promise<{ counts: Counted[]; parameters: number }> {
  let result: { counts: Counted[]; parameters: number };
  return withFolder({ "text.txt": text }, async (folder) => {
    const settings = {
      data: `${folder}/text.txt`,
      out: `${folder}/run`,
      family: "gpt2",
      layers: 2,
      heads: 2,
      width: 64,
      sequenceLength: 64,
      batchSize: 8,
      steps: to + 1,
      evalInterval: 0,
      evalBatches: 1,
      checkpointInterval: 0,
      ...given,
    } as const;
    const prepared = await prepareRun(settings, () => {});
    const jobs = makeJobs(prepared, soleMachine(prepared.mesh), new RunState(prepared, 1).jobState(), () => {});
    const status = new RunStatus(jobs[0].executor.status);
    for (const { rank } of jobs) status.allow(rank, 60_000);
    const ranks = [];
    for (const job of jobs) {
      const rank = start(job, wastes);
      await rank.opened;
      ranks.push(rank);
    }
    const counts = await Promise.all(ranks.map(({ ended }) => ended));
    const parameters = jobs[0].checkpoints[0].weights.reduce((sum, { data }) => sum + data.length, 0);
    result = { counts, parameters };
  }).then(() => result);
}

const layouts: readonly (readonly [name: string, settings: GivenSettings])[] = [
  ["one rank", { devices: "0" }],
  ["one rank, micro-batches, dropout, Llama", { devices: "0", microBatchSize: 2, dropout: 0.1, family: "llama" }],
  ["two data-parallel ranks", { devices: "0,0", dp: 2, bucketMb: 0.1 }],
];

for (const [name, settings] of layouts) {
  Deno.test(`no GPU object and no array above 1 KiB is made after the second step: ${name}`, async () => {
    const { counts, parameters } = await count(settings);
    const ranks = counts.length;
    // Tokens, targets, their order and runs; then, of several ranks, the summed gradients.
    const gradients = ranks > 1 ? 4 * parameters : 0;
    const batch = 4 * 4 * 64 * 8 / ranks;
    for (const { objects, large, mappedBytes, uploadedBytes, heapBytes } of counts) {
      assert.deepEqual(objects, {});
      assert.deepEqual(large, []);
      // Deno copies what a mapped buffer holds: the norm, the loss, and each gradient once; banks are padded a little.
      const mapped = mappedBytes / (to - from) - 8;
      assert.ok(mapped >= gradients && mapped <= 1.02 * gradients, `${mapped} bytes are read back`);
      const uploaded = uploadedBytes / (to - from) - batch;
      assert.ok(uploaded >= gradients && uploaded <= 1.02 * gradients + 256, `${uploaded} bytes are uploaded besides`);
      // Encoders, promises and closures of some 60 dispatches.
      assert.ok(heapBytes / (to - from) < 256 * 1024, `${heapBytes / (to - from)} bytes of small objects a step`);
    }
  });
}

Deno.test("what is made on the hot path on purpose is counted", async () => {
  const { counts: [{ large }] } = await count({ devices: "0" }, true);
  const wanted = [
    /^Float32Array of 4000 bytes/,
    /^Float32Array of 3996/,
    /^ArrayBuffer of 4096/,
    /^\d+ objects at.* > waste/,
  ];
  for (const what of wanted) assert.ok(large.some((found) => what.test(found)), `${what} in ${large.join("\n")}`);
});
