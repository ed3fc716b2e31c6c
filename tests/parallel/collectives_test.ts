/** Collectives without devices, between Workers: the same bits on every rank and from run to run; waits that end. */

import assert from "node:assert/strict";
import { MachineError } from "../../errors.ts";
import { createHash } from "node:crypto";
import { Channel, createChannel } from "../../parallel/channel.ts";
import type { ExecutorSetup } from "../../parallel/executor.ts";
import { finishSum } from "../../parallel/summands.ts";
import { createGroup } from "../../parallel/group_setup.ts";
import { awaitCounter, Group } from "../../parallel/shared_memory.ts";
import { createStatusMemory, RunStatus, StoppedError } from "../../parallel/status.ts";
import type { Call, CollectiveAnswer, CollectiveTask } from "./collectives_worker.ts";

/** Has one Worker carry out each task, all at a time, and returns what they answer. */
async function together(tasks: readonly CollectiveTask[]): Promise<CollectiveAnswer[]> {
  const workers = tasks.map(() => new Worker(new URL("collectives_worker.ts", import.meta.url), { type: "module" }));
  try {
    return await Promise.all(workers.map((worker, i) =>
      new Promise<CollectiveAnswer>((resolve, reject) => {
        worker.onmessage = ({ data }) => resolve(data);
        worker.onerror = (event) => {
          event.preventDefault();
          reject(new Error(event.message));
        };
        worker.postMessage(tasks[i]);
      })
    ));
  } finally {
    for (const worker of workers) worker.terminate();
  }
}

/** What rank brings in a round: values whose sum depends on the order of its terms. */
function broughtBy(rank: number, round: number, length: number): Float32Array {
  return Float32Array.from(
    { length },
    (_, i) => Math.sin(i * 12.9898 + rank * 78.233 + round) * 10 ** ((i + rank) % 7),
  );
}

/** The sum in the order of members, in single precision. */
function summed(ranks: number, round: number, length: number): Float32Array {
  const sum = broughtBy(0, round, length);
  for (let rank = 1; rank < ranks; rank++) {
    const other = broughtBy(rank, round, length);
    for (let i = 0; i < length; i++) sum[i] += other[i];
  }
  return sum;
}

const hash = (values: Float32Array) =>
  createHash("sha256").update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength)).digest("hex");

// Not multiples of 16, shorter than the group, longer than a block of the sum; 50000 is more than an area holds.
const lengths = [1, 3, 17, 100, 4097, 10000, 50000];
const areaElements = 20000;

/** A group of all ranks whose counters are about to wrap around. */
function worldOf(ranks: number, status: SharedArrayBuffer): ExecutorSetup[] {
  const world = createGroup(Array.from({ length: ranks }, (_, rank) => rank), areaElements);
  const counters = new Int32Array(world.memory.buffer, 0, ranks * 16);
  for (let rank = 0; rank < ranks; rank++) counters[rank * 16] = 2 ** 31 - 5;
  return world.members.map((rank) => ({ rank, status, groups: { world, run: world }, channels: {}, hostMemories: {} }));
}

for (const ranks of [1, 2, 3, 4, 5]) {
  Deno.test(`${ranks} ranks: collectives are the same bits on each and from run to run, of any length, in pieces`, async () => {
    const all = Array.from({ length: ranks }, (_, rank) => rank);
    const shares = [5, 4096, 50000];
    const calls = (rank: number): Call[] => [
      ...lengths.map((length, round) => ({
        kind: "allReduce" as const,
        input: broughtBy(rank, round, length),
        length,
      })),
      ...shares.map((length, round) => ({
        kind: "allGather" as const,
        input: broughtBy(rank, round, length),
        length: length * ranks,
      })),
      ...shares.map((length, round) => ({
        kind: "reduceScatter" as const,
        input: broughtBy(rank, round, length * ranks),
        length,
      })),
    ];
    const run = () => {
      const status = createStatusMemory(ranks);
      return together(
        worldOf(ranks, status).map((setup, rank) => ({ kind: "collectives", rank, status, setup, calls: calls(rank) })),
      );
    };
    for (const answers of [await run(), await run()]) {
      for (const [rank, answer] of answers.entries()) {
        assert.ok(answer.kind === "collectives");
        const expected = [
          ...lengths.map((length, round) => summed(ranks, round, length)),
          ...shares.map((length, round) =>
            Float32Array.from(all.flatMap((rank) => [...broughtBy(rank, round, length)]))
          ),
          ...shares.map((length, round) =>
            summed(ranks, round, length * ranks).slice(rank * length, (rank + 1) * length)
          ),
        ];
        expected.forEach((values, i) => assert.equal(hash(answer.results[i]), hash(values), `rank ${rank}, call ${i}`));
      }
    }
  });
}

Deno.test("sums of numbers are in double precision and the same on all ranks", async () => {
  const status = createStatusMemory(3);
  const values = [[1e16, 0.1], [1, 0.2], [-1e16, 0.3]];
  const setups = worldOf(3, status);
  const answers = await together(
    values.map((values, rank) => ({ kind: "numbers", rank, status, setup: setups[rank], values })),
  );
  for (const answer of answers) assert.deepEqual(answer, { kind: "numbers", sums: [1e16 + 1 - 1e16, 0.1 + 0.2 + 0.3] });
});

Deno.test("slices of a group cover every element once, at multiples of 16", () => {
  const status = new RunStatus(createStatusMemory(5));
  for (const size of [1, 2, 3, 5]) {
    const group = new Group(createGroup([...Array(size).keys()], 1024), 0, status, () => 1000);
    for (const length of [0, 1, 15, 16, 100, 1000]) {
      let end = 0;
      for (let i = 0; i < size; i++) {
        const [from, to] = group.slice(i, length);
        assert.equal(from, end);
        assert.ok(to >= from && (from % 16 === 0 || from === length));
        end = to;
      }
      assert.equal(end, length);
    }
  }
});

Deno.test("a group of one sums at once", () => {
  const status = new RunStatus(createStatusMemory(1));
  const group = new Group(createGroup([0], 64), 0, status, () => 1000);
  assert.deepEqual(group.sumNumbers([1, 2]), [1, 2]);
});

Deno.test("a channel keeps order, holds as much as its capacity and then makes the sender wait", async () => {
  const status = createStatusMemory(2);
  const channel = createChannel(0, 1, 8, 3);
  // The counters wrap around within these messages; the capacity does not divide their range.
  const counters = new Int32Array(channel.memory);
  counters[0] = counters[16] = 2 ** 31 - 50;
  const count = 200;
  const [sent, received] = await together([
    { kind: "send", rank: 0, status, channel, count },
    { kind: "receive", rank: 1, status, channel, count, pause: 20 },
  ]);
  assert.ok(sent.kind === "send" && received.kind === "receive");
  assert.deepEqual(received.messages, Array.from({ length: count }, (_, i) => i));
  // The receiver slept at first: no more than the capacity can have been sent by then.
  assert.equal(sent.aheadMost, 3);
});

const words = () => new Int32Array(new SharedArrayBuffer(64));

Deno.test("a wait ends behind its limit with who waits for whom, in what, and what that one was last doing", () => {
  const status = new RunStatus(createStatusMemory(2));
  status.doing(0, "step 3, the optimizer");
  status.entering(0, "all-reduce of the gradient norm");
  status.doing(1, "step 3, backward of micro-batch 2");
  status.entering(1, "all-reduce of bank 0");
  status.leaving(1);
  assert.throws(
    () => awaitCounter(words(), 0, 1, { status, rank: 0, other: 1, limit: () => 300 }),
    (error: Error) => {
      assert.ok(error instanceof MachineError && error.restartable);
      assert.match(
        error.message,
        /^Rank 0 has waited 0\.[3-9] s in all-reduce of the gradient norm for rank 1, last seen in step 3, backward of micro-batch 2, behind all-reduce of bank 0: given up \(--stall-timeout\)$/,
      );
      return true;
    },
  );
  assert.deepEqual(status.waits(2), []);
});

Deno.test("a wait lasts as long as the other, or the one that it waits for, shows signs of life", async () => {
  const status = createStatusMemory(3);
  const counters = new SharedArrayBuffer(128);
  // Rank 2 works for a second; rank 1 waits for it, and rank 0 for rank 1, with a limit of 600 ms each.
  const answers = await together([
    { kind: "wait", rank: 0, status, counters, other: 1, index: 1, limit: 600 },
    { kind: "wait", rank: 1, status, counters, other: 2, index: 2, limit: 600 },
    { kind: "work", rank: 2, status, counters, beats: 10, pause: 150 },
  ]);
  assert.deepEqual(answers.map((answer) => answer.kind === "wait" ? answer.error : ""), ["", "", ""]);
});

Deno.test("ranks that wait for each other in a circle are found out", async () => {
  const status = createStatusMemory(2);
  const counters = new SharedArrayBuffer(128);
  const answers = await together([
    { kind: "wait", rank: 0, status, counters, other: 1, index: 1, limit: 500 },
    { kind: "wait", rank: 1, status, counters, other: 0, index: 0, limit: 500 },
  ]);
  for (const answer of answers) assert.match(answer.kind === "wait" ? answer.error : "", /has waited .* given up/);
});

Deno.test("when the run has failed every wait ends: for a counter, a group, room in a channel and a message", async () => {
  const memory = createStatusMemory(2);
  const status = new RunStatus(memory);
  const limit = () => 60_000;
  const stops = (body: () => void) => {
    const start = performance.now();
    assert.throws(body, (error: Error) => error instanceof StoppedError);
    assert.ok(performance.now() - start < 1000);
  };
  const [late] = await together([{ kind: "fail", rank: 1, status: memory, counters: new SharedArrayBuffer(64) }]);
  assert.equal(late.kind, "fail");
  stops(() => awaitCounter(words(), 0, 1, { status, rank: 0, other: 1, limit }));
  stops(() => new Group(createGroup([0, 1], 64), 0, status, limit).sumNumbers([1]));
  stops(() => finishSum(new Group(createGroup([0, 1], 64), 0, status, limit), 10, () => {}));
  stops(() => new Channel(createChannel(1, 0, 4, 1), 0, status, limit).message());
  const full = new Channel(createChannel(0, 1, 4, 1), 0, status, limit);
  full.room();
  full.sent();
  stops(() => full.room());
});
