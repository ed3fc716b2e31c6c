import assert from "node:assert/strict";
import type { Selection } from "../../gpu/select.ts";
import { sharersOf } from "../../train/make_jobs.ts";

const selection = (index: number, type: "discrete" | "software"): Selection => ({
  device: { index, type } as Selection["device"],
  ways: [],
});

Deno.test("sharersOf(): ranks on one GPU share its peak, software drivers the cores beyond one each", () => {
  const gpus = [0, 0, 1].map((index) => selection(index, "discrete"));
  assert.deepEqual(gpus.map((_, rank) => sharersOf(rank, gpus, 8)), [2, 2, 1]);
  const software = [0, 0, 1, 1].map((index) => selection(index, "software"));
  assert.deepEqual(software.map((_, rank) => sharersOf(rank, software, 8)), [1, 1, 1, 1]);
  assert.deepEqual(software.map((_, rank) => sharersOf(rank, software, 2)), [2, 2, 2, 2]);
  const unlisted: Selection[] = [{ device: undefined, ways: [] }];
  assert.equal(sharersOf(0, unlisted, 2), 1);
});
