/**
 * Sums over machines for groups of ranks: ranks ask in shared memory, and the network's thread, which has the links, makes
 * the sums in place, one behind the other in each group, all groups at once.
 * @module
 */

import { areaOf, counterWords, type GroupSetup, requestWords, scratchStart } from "./group_setup.ts";

/** What is asked for: the sum over machines of the beginning of the first member's area of a turn. */
export interface SumRequest {
  readonly turn: number;
  readonly length: number;
  /** Which of the group's buffers it is; step by step the same. */
  readonly bucket: number;
  /** What all its numbers are multiplied by, as f32; on all machines the same. */
  readonly scale: number;
}

/** The word that counts sums that are there. */
export function doneWord({ members }: GroupSetup): number {
  return members.length * counterWords;
}

/** The word that counts sums that were asked for; what each is follows, for as many as can be under way. */
function askedWord(setup: GroupSetup): number {
  return doneWord(setup) + counterWords;
}

function requestWord(setup: GroupSetup, number: number): number {
  return askedWord(setup) + 1 + requestWords * ((number >>> 0) % setup.turns);
}

/** The bits of an f32 as a word, and back. */
const word = new DataView(new ArrayBuffer(4));
function asWord(value: number): number {
  word.setFloat32(0, value);
  return word.getInt32(0);
}
function asFloat(bits: number): number {
  word.setInt32(0, bits);
  return word.getFloat32(0);
}

/** Asks for a sum, under the next number. */
export function ask(words: Int32Array, setup: GroupSetup, number: number, request: SumRequest): void {
  const { turn, length, bucket, scale } = request;
  words.set([turn, length, bucket, asWord(scale)], requestWord(setup, number));
  Atomics.store(words, askedWord(setup), number);
  Atomics.notify(words, askedWord(setup));
}

/** How to sum in place, over all machines: numbers that are multiplied by `scale`. */
export type SumOverMachines = (data: Float32Array, bucket: number, scale: number) => Promise<void>;

/** Longest time between turns of a thread that waits, in ms. */
const aliveMilliseconds = 60_000;

/** Makes the sums that a group asks for until `signal` is aborted. Rejects with what `sum` throws. */
export async function serveSums(setup: GroupSetup, sum: SumOverMachines, signal: AbortSignal): Promise<void> {
  const words = new Int32Array(setup.memory.buffer);
  const areas = Array.from({ length: setup.turns }, (_, turn) => areaOf(setup, 0, turn));
  signal.addEventListener("abort", () => Atomics.notify(words, askedWord(setup)), { once: true });
  // A thread that only waits like this counts as having nothing to do, and would end.
  const alive = setInterval(() => {}, aliveMilliseconds);
  try {
    for (let done = Atomics.load(words, doneWord(setup)); !signal.aborted;) {
      if (Atomics.load(words, askedWord(setup)) === done) {
        const wait = Atomics.waitAsync(words, askedWord(setup), done);
        if (wait.async) await wait.value;
        continue;
      }
      const next = (done + 1) | 0;
      const at = requestWord(setup, next);
      await sum(areas[words[at]].subarray(0, words[at + 1]), words[at + 2], asFloat(words[at + 3]));
      done = next;
      Atomics.store(words, doneWord(setup), done);
      Atomics.notify(words, doneWord(setup));
    }
  } finally {
    clearInterval(alive);
  }
}

/** The memory in which a group's sums are made, and where the network's thread may put what it receives. */
export function summingMemory(setup: GroupSetup): { memory: WebAssembly.Memory; scratchOffset: number } {
  return { memory: setup.memory, scratchOffset: scratchStart(setup) };
}
