/** How ranks ask in shared memory for sums over machines, and get them; without a network. */

import assert from "node:assert/strict";
import { areaOf, createGroup, type GroupSetup } from "../../parallel/group_setup.ts";
import { ask, doneWord, serveSums } from "../../parallel/machine_sums.ts";
import { createStatusMemory, networkRank, RunStatus } from "../../parallel/status.ts";
import type { SumAnswer, SumTask } from "./machine_sums_worker.ts";

const setupOf = (elements: number, rank = 0, size = 2) => createGroup([0], elements, undefined, { rank, size });
const wordsOf = ({ memory }: GroupSetup) => new Int32Array(memory.buffer);
const doneOf = (setup: GroupSetup) => Atomics.load(wordsOf(setup), doneWord(setup));

/** A wait in shared memory keeps no thread alive; the one that has links has them to live for. */
async function alive(body: () => Promise<void>): Promise<void> {
  const timer = setInterval(() => {}, 10);
  try {
    await body();
  } finally {
    clearInterval(timer);
  }
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!condition()) {
    assert.ok(performance.now() < deadline);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

Deno.test("sums are made in place, in the order in which they are asked for, beyond where counters wrap around", () =>
  alive(async () => {
    const setup = setupOf(128);
    const words = wordsOf(setup);
    // Counted as 32-bit numbers: two sums before the highest.
    const start = 2 ** 31 - 3;
    words.fill(start, doneWord(setup), doneWord(setup) + 1);
    for (let turn = 0; turn < setup.turns; turn++) areaOf(setup, 0, turn).fill(turn + 1);
    const controller = new AbortController();
    const made: [bucket: number, length: number, scale: number][] = [];
    let underWay = 0;
    const sum = async (data: Float32Array, bucket: number, scale: number) => {
      assert.equal(++underWay, 1);
      await new Promise((resolve) => setTimeout(resolve, 1));
      made.push([bucket, data.length, scale]);
      data.forEach((value, i) => data[i] = 10 * value);
      underWay--;
    };
    // As many as can be under way are asked for before anybody serves, the rest one by one.
    const numbers = Array.from({ length: 10 }, (_, i) => (start + 1 + i) | 0);
    const place = (i: number) => ({
      turn: (i + 3) % setup.turns,
      length: 128 - i,
      bucket: 100 + i,
      scale: 2 ** (2 * i - 5),
    });
    ask(words, setup, start, { turn: 0, length: 0, bucket: 0, scale: 1 });
    numbers.slice(0, setup.turns).forEach((number, i) => ask(words, setup, number, place(i)));
    const served = serveSums(setup, sum, controller.signal);
    for (let i = setup.turns; i < numbers.length; i++) {
      await until(() => ((doneOf(setup) - numbers[i - setup.turns]) | 0) >= 0);
      ask(words, setup, numbers[i], place(i));
    }
    await until(() => doneOf(setup) === numbers[9]);
    assert.deepEqual(made, numbers.map((_, i) => [place(i).bucket, place(i).length, place(i).scale]));
    // Elements behind what was asked for are as they were.
    for (let turn = 0; turn < setup.turns; turn++) {
      const times = made.filter(([bucket]) => place(bucket - 100).turn === turn);
      const expected = Array.from(
        { length: 128 },
        (_, i) => (turn + 1) * 10 ** times.filter(([, length]) => i < length).length,
      );
      assert.deepEqual([...areaOf(setup, 0, turn)], expected);
    }
    controller.abort();
    await served;
  }));

Deno.test("who serves ends when told to while nothing is asked for, and with what a sum throws", () =>
  alive(async () => {
    const setup = setupOf(64);
    const controller = new AbortController();
    const served = serveSums(setup, () => Promise.reject(new Error("the link broke")), controller.signal);
    setTimeout(() => controller.abort(), 20);
    await served;
    const failing = serveSums(setup, () => Promise.reject(new Error("the link broke")), new AbortController().signal);
    ask(wordsOf(setup), setup, 1, { turn: 1, length: 3, bucket: 0, scale: 1 });
    await assert.rejects(failing, /^Error: the link broke$/);
    assert.equal(doneOf(setup), 0);
  }));

/** Machines of one rank, between which areas are summed here; each one's sums, or why it failed. */
async function machines(calls: readonly (readonly number[])[][], elements: number): Promise<SumAnswer[]> {
  const size = calls.length;
  const setups = calls.map((_, rank) => setupOf(elements, rank, size));
  const controller = new AbortController();
  const waiting: { data: Float32Array; resolve: () => void }[] = [];
  const sum = (data: Float32Array) =>
    new Promise<void>((resolve) => {
      waiting.push({ data, resolve });
      if (waiting.length < size) return;
      const all = waiting.map(({ data }) => data.slice());
      for (const { data } of waiting) data.forEach((_, i) => data[i] = all.reduce((a, b) => Math.fround(a + b[i]), 0));
      waiting.splice(0).forEach(({ resolve }) => resolve());
    });
  const serving = setups.map((setup) => serveSums(setup, sum, controller.signal));
  const answers = await Promise.all(setups.map((setup, i) => {
    const { worker, answer } = startMember({ setup, status: createStatusMemory(1), calls: calls[i], limit: 10_000 });
    worker.onerror = (event) => assert.fail(event.message);
    return answer;
  }));
  controller.abort();
  await Promise.all(serving);
  return answers;
}

function startMember(task: SumTask): { worker: Worker; answer: Promise<SumAnswer> } {
  const worker = new Worker(new URL("machine_sums_worker.ts", import.meta.url), { type: "module" });
  const answer = new Promise<SumAnswer>((resolve) => {
    worker.onmessage = ({ data }: MessageEvent<SumAnswer>) => resolve(data);
  });
  worker.postMessage(task);
  return { worker, answer };
}

Deno.test("numbers are summed over machines to more than f32 holds, with the same bits on all, and in parts", async () => {
  const many = (rank: number) => Array.from({ length: 100 }, (_, i) => (rank + 1) * (i + 1 / 3));
  const own = (rank: number) => [
    [123456789.123, -1 / 3, 0, rank],
    many(rank),
    [rank === 1 ? Infinity : 1, rank === 2 ? NaN : 1, 1e-30, 5],
  ];
  const calls = [0, 1, 2].map(own);
  // 64 elements take 10 numbers of each of three machines.
  const answers = await machines(calls, 64);
  const [first] = answers;
  assert.ok("sums" in first, JSON.stringify(first));
  for (const answer of answers) assert.deepEqual(answer, first);
  first.sums.forEach((sums, call) => {
    assert.equal(sums.length, calls[0][call].length);
    sums.forEach((sum, i) => {
      const expected = calls.reduce((total, machine) => total + machine[call][i], 0);
      if (Number.isFinite(expected)) {
        assert.ok(Math.abs(sum - expected) <= 1e-13 * Math.abs(expected), `${sum} ${expected}`);
      } else assert.ok(Object.is(sum, expected), `${sum} instead of ${expected}`);
    });
  });
});

Deno.test("a rank that waits for other machines ends when the run has failed, or when the network falls silent", async () => {
  const status = createStatusMemory(1);
  const failed = startMember({ setup: setupOf(64), status, calls: [[1]], limit: 60_000 });
  setTimeout(() => new RunStatus(status).fail(), 300);
  assert.deepEqual(await failed.answer, { failure: "MachineError: Another rank failed" });
  const silent = createStatusMemory(1);
  const network = new RunStatus(silent);
  network.doing(networkRank, "sums over all machines");
  // As long as it shows signs of life it is waited for.
  const beats = setInterval(() => network.beat(networkRank), 50);
  const stalled = startMember({ setup: setupOf(64), status: silent, calls: [[1]], limit: 500 });
  let ended = false;
  const answer = stalled.answer.then((answer) => {
    ended = true;
    return answer;
  });
  await new Promise((resolve) => setTimeout(resolve, 1500));
  assert.equal(ended, false);
  clearInterval(beats);
  const said = await answer;
  assert.ok("failure" in said);
  assert.match(
    said.failure,
    /^MachineError: Rank 0 has waited \d\.\d s in .* for the other machines, last seen in sums over all/,
  );
});
