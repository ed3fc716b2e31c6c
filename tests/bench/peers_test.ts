/** What bench/peers.ts makes of the peers' outputs, and of goals. */

import assert from "node:assert/strict";
import { compareLosses, goals, names, parseTraining, summarize } from "../../bench/peers/results.ts";

Deno.test("parseTraining() reads a finished training, one that was stopped, and finds none in an error", () => {
  const line = '{"peer":"torch","work":"W1","ms_per_step":41.5,"first_ms":210,"n":19,"peak_rss_MiB":380}';
  const finished = parseTraining(`params 842496\n${line}\nloss 5.5870 5.3515\n`);
  assert.deepEqual(finished && { ...finished, adapter: undefined }, {
    milliseconds: 41.5,
    steps: 19,
    firstMilliseconds: 210,
    losses: ["5.5870", "5.3515"],
    cut: false,
    adapter: undefined,
  });
  const stopped = parseTraining(
    "",
    "warning\nstep 1 10.8584 60000 ms\nstep 2 10.4573 50000 ms\nstep 3 11.4347 52000 ms\n",
  );
  assert.deepEqual([stopped?.milliseconds, stopped?.steps, stopped?.cut], [52000, 2, true]);
  assert.deepEqual(stopped?.losses, ["10.8584", "10.4573", "11.4347"]);
  assert.equal(parseTraining("", "step 1 10.8584 23000 ms\n")?.steps, 0);
  assert.equal(parseTraining("", "error: Module not found"), undefined);
});

Deno.test("compareLosses() counts equal digits over the steps that both have", () => {
  const { steps, equal, difference } = compareLosses(["5.5870", "5.3515", "5.2245"], ["5.5870", "5.3516"]);
  assert.deepEqual([steps, equal], [2, 1]);
  assert.ok(Math.abs(difference - 1e-4) < 1e-9);
  assert.deepEqual(compareLosses([], ["1.0000"]), { steps: 0, equal: 0, difference: 0 });
});

Deno.test("goals() are ratios of the medians of rounds, and unknown where a peer is missing", () => {
  const training = (milliseconds: number) => ({ milliseconds, steps: 9, firstMilliseconds: 1, losses: [], cut: false });
  const peer = (name: string, times: number[], bytes = 0) => summarize(name, times.map(training), bytes);
  const small = goals("small", [
    peer(names.own, [70, 60, 50]),
    peer(names.webgpu, [240, 1000, 200]),
    peer(names.wasm, [60]),
    peer(names.torch, [40]),
  ]);
  assert.deepEqual(small.map(({ value, met }) => [value, met]), [[4, true], [1, false], [1.5, true]]);
  const onlyFirst = summarize(names.webgpu, [{ ...training(60000), steps: 0, cut: true }], 0);
  assert.equal(onlyFirst.milliseconds, undefined, "a step that compiles is no measure");
  const medium = goals("medium", [peer(names.own, [8000], 3 * 2 ** 30 + 1), peer(names.webgpu, [])]);
  assert.deepEqual(medium.map(({ met }) => met), [undefined, false]);
});
