/** A rank's share in a checkpoint, of a model that has nothing to save. */

import assert from "node:assert/strict";
import { checkpoint } from "../../train/rank_checkpoint.ts";
import { controlSlots, type RankMessage } from "../../train/rank_protocol.ts";
import type { Run } from "../../train/rank_run.ts";

Deno.test("no checkpoint is begun in the other memory before the coordinator has taken note of the one before", async () => {
  const control = new Int32Array(new SharedArrayBuffer(64));
  const told: RankMessage[] = [];
  let looks = 0;
  const filled: number[] = [];
  const memory = (i: number) => ({
    get weights() {
      filled.push(i);
      return [];
    },
    optimizer: [],
  });
  const run = {
    job: { rank: 0, checkpoints: [memory(0), memory(1)] },
    control,
    commits: 0,
    post: (message: RankMessage) => told.push(message),
    model: { program: {}, model: { banks: [], layout: { data: { index: 1 }, zero: 0 } } },
    executor: {
      status: { doing() {}, beat() {} },
      meet() {},
      alive() {
        // The coordinator hears of the first at the third look.
        if (told.length === 1 && ++looks === 4) Atomics.add(control, controlSlots.saved, 1);
      },
    },
  } as unknown as Run;
  await checkpoint(run, 10, false);
  assert.deepEqual([filled, looks], [[0], 1]);
  await checkpoint(run, 20, false);
  assert.ok(looks >= 4, `${looks} looks`);
  assert.deepEqual(filled, [0, 1]);
});
