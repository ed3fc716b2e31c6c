/**
 * Groups of ranks of one process, which exchange numbers through shared memory.
 *
 * A group has two areas for each member, used in turn. What a member brings goes into its own area; a counter tells the
 * others; each sums its slice over all areas, in the order of members, so that all see the same bits; a second counter
 * tells that the slices are there. No area is written again before all have gone on: they have then counted further.
 * @module
 */

import { describeWait, type RunStatus, stallError } from "./status.ts";
import { type SumAreas, sumAreas } from "./sum_areas.ts";

/** Plain data from which a member makes its `Group`. */
export interface GroupSetup {
  readonly members: readonly number[];
  readonly memory: WebAssembly.Memory;
  /** f32 elements that fit an area. */
  readonly areaElements: number;
}

/** Counters lie in cache lines of their own. */
const counterWords = 16;
/** Waits look up this often, in ms, whether the run has failed. */
const lookMilliseconds = 200;

/** Gives zeroed memory of so many bytes: shared, or of the kind that sums are made in. */
export interface Allocator {
  readonly shared: (bytes: number) => SharedArrayBuffer;
  readonly summed: (bytes: number) => WebAssembly.Memory;
}

const pageBytes = 65536;
/** What 32-bit WebAssembly can address. */
const mostSummedBytes = 65535 * pageBytes;

/** Real memory. */
export const allocator: Allocator = {
  shared: (bytes) => new SharedArrayBuffer(bytes),
  summed(bytes) {
    const pages = Math.ceil(bytes / pageBytes);
    return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  },
};

/** Bytes of a group's memory, for each of its members. */
export function groupBytesPerMember({ areaElements }: Pick<GroupSetup, "areaElements">): number {
  return counterWords * 4 + 2 * areaElements * 4;
}

/** Memory for a group. Areas may be smaller than asked for: what does not fit goes in pieces. */
export function createGroup(members: readonly number[], areaElements: number, { summed } = allocator): GroupSetup {
  const most = Math.floor((mostSummedBytes / members.length - counterWords * 4) / 8 / 64) * 64;
  const elements = Math.min(most, Math.ceil(areaElements / 64) * 64);
  const memory = summed(members.length * groupBytesPerMember({ areaElements: elements }));
  return { members, memory, areaElements: elements };
}

/**
 * Waits until the counter `words[index]`, which `other` moves, has reached `value`. `StoppedError` when the run has failed,
 * `MachineError` when the other, and whoever it waits for itself, has shown no sign of life for longer than the limit.
 */
export function awaitCounter(
  words: Int32Array,
  index: number,
  value: number,
  who: { status: RunStatus; rank: number; other: number; limit: () => number },
): void {
  let current = Atomics.load(words, index);
  // Counters wrap around.
  if (((current - value) | 0) >= 0) return;
  const { status, rank, other } = who;
  const start = performance.now();
  status.waiting(rank, other);
  try {
    do {
      Atomics.wait(words, index, current, lookMilliseconds);
      status.check();
      const silence = status.follow(rank, other);
      if (Math.min(silence, performance.now() - start) > who.limit()) {
        throw stallError(describeWait(status.waits(rank + 1).find((wait) => wait.rank === rank)!));
      }
      current = Atomics.load(words, index);
    } while (((current - value) | 0) < 0);
  } finally {
    status.goesOn(rank);
  }
}

/** What a wait is limited by, in ms; a function, since first steps may take longer. */
export type WaitLimit = () => number;

/** A member's view of a group. */
export class Group {
  readonly size: number;
  /** This rank's place among the members; -1 if it is none. */
  readonly index: number;
  readonly areaElements: number;
  readonly #counters: Int32Array;
  readonly #areas: readonly (readonly Float32Array[])[];
  readonly #sum: SumAreas;
  #arrived = 0;
  #turn = 0;

  constructor(
    readonly setup: GroupSetup,
    readonly rank: number,
    readonly status: RunStatus,
    readonly limit: WaitLimit,
  ) {
    const { members, memory, areaElements } = setup;
    this.size = members.length;
    this.index = members.indexOf(rank);
    this.areaElements = areaElements;
    this.#counters = new Int32Array(memory.buffer, 0, this.size * counterWords);
    this.#sum = sumAreas(memory);
    // A stage in the middle is given the group of the outer ones, too.
    if (this.index >= 0) this.#arrived = Atomics.load(this.#counters, this.index * counterWords);
    const start = this.size * counterWords * 4;
    this.#areas = [0, 1].map((turn) =>
      members.map((_, i) =>
        new Float32Array(memory.buffer, start + (turn * this.size + i) * areaElements * 4, areaElements)
      )
    );
  }

  /** Takes the next pair of areas. */
  next(): void {
    this.#turn ^= 1;
  }

  /** Member `i`'s area of this turn. */
  area(i: number): Float32Array {
    return this.#areas[this.#turn][i];
  }

  /** This member's own area. */
  get own(): Float32Array {
    return this.area(this.index);
  }

  /** Tells the others that this member has come so far, and waits until all have. */
  meet(): void {
    this.#arrived = (this.#arrived + 1) | 0;
    Atomics.store(this.#counters, this.index * counterWords, this.#arrived);
    Atomics.notify(this.#counters, this.index * counterWords);
    const { status, rank, limit } = this;
    for (let i = 0; i < this.size; i++) {
      if (i === this.index) continue;
      awaitCounter(this.#counters, i * counterWords, this.#arrived, {
        status,
        rank,
        other: this.setup.members[i],
        limit,
      });
    }
  }

  /** The sum of elements `from` to `to` of all members' areas, in the order of members, in the same place of the own area. */
  sumOwn(from: number, to: number): Float32Array {
    const sum = this.own.subarray(from, to);
    const first = this.area(0).byteOffset + from * 4;
    this.status.trace?.begin("sums", "sum");
    this.#sum(sum.byteOffset, first, this.areaElements * 4, this.size, sum.byteLength);
    this.status.trace?.end();
    return sum;
  }

  /** Bounds of member `i`'s slice of `length` elements, at multiples of 16. */
  slice(i: number, length: number): [number, number] {
    const bound = (i: number) => i === this.size ? length : Math.floor(length * i / this.size / 16) * 16;
    return [bound(i), bound(i + 1)];
  }

  /** The sum of `values` over all members, on each, in double precision and the order of members. */
  sumNumbers(values: readonly number[]): number[] {
    if (this.size === 1) return [...values];
    this.next();
    const view = (i: number) => new Float64Array(this.area(i).buffer, this.area(i).byteOffset, values.length);
    view(this.index).set(values);
    this.meet();
    const sums = values.map(() => 0);
    for (let i = 0; i < this.size; i++) view(i).forEach((value, j) => sums[j] += value);
    return sums;
  }
}
