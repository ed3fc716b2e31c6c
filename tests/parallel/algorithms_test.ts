/** Which way an all-reduce goes, and how that is settled. */

import assert from "node:assert/strict";
import { UserError } from "../../errors.ts";
import {
  algorithmFor,
  type AlgorithmTimes,
  type AllReduceAlgorithm,
  chooseBounds,
  measureAlgorithms,
  readAlgorithm,
} from "../../parallel/algorithms.ts";
import { type AlgorithmChoice, ProcessGroup } from "../../parallel/process_group.ts";
import { localMesh } from "./loopback_mesh.ts";
import { failures, together } from "./process_groups.ts";

/** Times in µs of each size, 4 KiB and on: doubling, halving, ring. */
function timesOf(rows: readonly [number, number, number][]): AlgorithmTimes[] {
  return rows.map(([doubling, halving, ring], i) => ({
    bytes: 4096 * 4 ** i,
    microseconds: { doubling, halving, ring },
  }));
}

Deno.test("algorithmFor() goes by the bounds unless one way is wanted", () => {
  const bounds = { doublingBytes: 100, halvingBytes: 200 };
  const ways = [0, 100, 101, 200, 201].map((bytes) => algorithmFor("auto", bounds, bytes));
  assert.deepEqual(ways, ["doubling", "doubling", "halving", "halving", "ring"]);
  // Halving has no room below doubling's bound.
  assert.equal(algorithmFor("auto", { doublingBytes: 100, halvingBytes: 0 }, 101), "ring");
  assert.equal(algorithmFor("auto", { doublingBytes: 100, halvingBytes: 0 }, 100), "doubling");
  for (const way of ["doubling", "halving", "ring"] as const) assert.equal(algorithmFor(way, bounds, 150), way);
});

Deno.test("readAlgorithm() takes the known names and lists them when given another", () => {
  assert.equal(readAlgorithm("halving"), "halving");
  assert.throws(
    () => readAlgorithm("tree"),
    (error) =>
      error instanceof UserError &&
      error.message === 'An all-reduce goes by auto, doubling, halving, ring, not by "tree"',
  );
});

Deno.test("chooseBounds() takes the fastest way of each size, and is not led astray by one bad time", () => {
  const KiB = 1024;
  assert.deepEqual(chooseBounds(timesOf([[1, 2, 3], [2, 3, 4], [5, 4, 6], [20, 12, 11], [80, 50, 40]])), {
    doublingBytes: 32 * KiB,
    halvingBytes: 128 * KiB,
  });
  // Never halving, never doubling, always doubling.
  assert.deepEqual(chooseBounds(timesOf([[1, 2, 3], [4, 4.5, 3]])), { doublingBytes: 8 * KiB, halvingBytes: 8 * KiB });
  assert.deepEqual(chooseBounds(timesOf([[3, 2, 1], [3, 2, 1]])), { doublingBytes: 0, halvingBytes: 0 });
  assert.deepEqual(chooseBounds(timesOf([[1, 2, 3], [1, 2, 3]])), { doublingBytes: 32 * KiB, halvingBytes: 32 * KiB });
  // At the second size something disturbed doubling a little, at the fourth the ring.
  assert.deepEqual(
    chooseBounds(timesOf([[10, 20, 30], [25, 24, 40], [30, 60, 60], [200, 190, 110], [800, 500, 400]])),
    {
      doublingBytes: 128 * KiB,
      halvingBytes: 128 * KiB,
    },
  );
});

Deno.test("measureAlgorithms() counts the slowest member's time and stops with large sizes when links are slow", async () => {
  // A member of two whose other is 10 ms late with everything else than halving, on a link of 1 MB/s.
  const calls: [number, AllReduceAlgorithm][] = [];
  const times = await measureAlgorithms({
    rank: 0,
    size: 2,
    barrier: () => Promise.resolve(),
    async allReduce(data, algorithm) {
      calls.push([data.byteLength, algorithm]);
      if (data.byteLength >= 4096) await new Promise((resolve) => setTimeout(resolve, data.byteLength / 1000));
      else {for (const [i, way] of ["doubling", "halving", "ring"].entries()) {
          data[2 * i + 1] = way === "halving" ? 0 : 0.5;
        }}
    },
  });
  // 4 KiB takes three rounds and one before; they are over the budget of a second.
  assert.deepEqual(times.map(({ bytes }) => bytes), [4096]);
  assert.equal(calls.filter(([bytes, way]) => bytes === 4096 && way === "ring").length, 4);
  const { doubling, halving, ring } = times[0].microseconds;
  assert.deepEqual([doubling, ring], [500_000, 500_000]);
  assert.ok(halving >= 4000 && halving < 400_000, `${halving}`);
});

Deno.test("tune() gives all members the same choice within seconds, and goes by it afterwards", async () => {
  for (const size of [1, 2, 3]) {
    const choices: AlgorithmChoice[] = [];
    const start = performance.now();
    await together(size, async (group) => {
      choices.push(await group.tune());
      const data = new Float32Array(70_000).fill(1);
      await group.allReduce(data);
      assert.ok(data.every((value) => value === size));
    });
    assert.ok(performance.now() - start < 15_000);
    assert.equal(choices.length, size);
    for (const choice of choices) assert.deepEqual(choice, choices[0]);
    const { bounds, times } = choices[0];
    if (size === 1) {
      assert.deepEqual(times, []);
      continue;
    }
    assert.deepEqual(bounds, chooseBounds(times));
    assert.ok(times.length >= 1 && times[0].bytes === 4096);
    for (const { microseconds } of times) {
      assert.ok(Object.values(microseconds).every((time) => time > 1 && time < 1e7));
    }
  }
});

Deno.test("A member lost while the ways are measured ends it on all others within the limit", async () => {
  const size = 3;
  const meshes = await localMesh(size);
  const groups = meshes.map((links, rank) => new ProcessGroup({ rank, size, links, timeoutSeconds: 5 }));
  const lost = groups[2].tune().catch(() => {});
  const errors = failures([groups[0].tune(), groups[1].tune()]);
  await new Promise((resolve) => setTimeout(resolve, 30));
  groups[2].close();
  for (const error of await errors) assert.match(error.message, /node \d .*The process group has ended/);
  await lost;
});
