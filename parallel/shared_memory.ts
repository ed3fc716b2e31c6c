/**
 * Groups of ranks of one process, which exchange numbers through shared memory.
 *
 * A group has several areas for each member, used in turn. What a member brings goes into its own area; a counter tells the
 * others; each sums its slice over all areas, in the order of members, so that all see the same bits, into the first
 * member's area; a second counter tells that the slices are there. No area is written again before all have gone on: they
 * have then counted further.
 *
 * Where other machines take part, the first member then asks the network's thread for the sum over all machines, which is
 * made in place (`machine_sums.ts`). Several such sums may be under way.
 * @module
 */

import { areaOf, counterWords, type GroupSetup, type MachinePlace, machineWords } from "./group_setup.ts";
import { ask, doneWord } from "./machine_sums.ts";
import { describeWait, networkRank, type RunStatus, stallError } from "./status.ts";
import { type SumAreas, sumAreas } from "./sum_areas.ts";

/** Waits look up this often, in ms, whether the run has failed. */
const lookMilliseconds = 200;
/** Between two looks this long, in ms, the process itself stood still: for so long nobody could be waited for. */
const stillMilliseconds = 10 * lookMilliseconds;

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
  let start = performance.now();
  let looked = start;
  status.waiting(rank, other);
  try {
    do {
      Atomics.wait(words, index, current, lookMilliseconds);
      status.check();
      const now = performance.now();
      if (now - looked > stillMilliseconds) start = now;
      looked = now;
      const silence = status.follow(rank, other);
      if (Math.min(silence, now - start) > who.limit()) {
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
  #asked = 0;
  /** Areas taken so far. */
  #taken = 0;

  constructor(
    readonly setup: GroupSetup,
    readonly rank: number,
    readonly status: RunStatus,
    readonly limit: WaitLimit,
  ) {
    const { members, memory, areaElements, turns } = setup;
    this.size = members.length;
    this.index = members.indexOf(rank);
    this.areaElements = areaElements;
    this.#counters = new Int32Array(memory.buffer, 0, this.size * counterWords + machineWords);
    this.#sum = sumAreas(memory);
    // A stage in the middle is given the group of the outer ones, too.
    if (this.index >= 0) this.#arrived = Atomics.load(this.#counters, this.index * counterWords);
    this.#areas = Array.from({ length: turns }, (_, turn) => members.map((_, i) => areaOf(setup, i, turn)));
  }

  /** Takes the next areas, and returns how often that was done: the number of an exchange. */
  next(): number {
    return ++this.#taken;
  }

  /** The number of the exchange that was begun last. */
  get exchange(): number {
    return this.#taken;
  }

  /** Member `i`'s area of an exchange. */
  area(i: number, exchange: number = this.#taken): Float32Array {
    return this.#areas[exchange % this.setup.turns][i];
  }

  /** This member's own area of the exchange that was begun last. */
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

  /** Sums elements `from` to `to` of all members' areas, in the order of members, into the first member's. */
  sum(from: number, to: number, exchange: number): void {
    if (this.size === 1 || from === to) return;
    const sum = this.area(0, exchange).subarray(from, to);
    this.status.trace?.begin("sums", "sum");
    this.#sum(sum.byteOffset, sum.byteOffset, this.areaElements * 4, this.size, sum.byteLength);
    this.status.trace?.end();
  }

  /**
   * Asks for the sum over all machines of `length` elements in the first member's area, once all have met; its number. What
   * rounding loses of a bucket's numbers, which are multiplied by `scale`, is added to the next of that bucket.
   */
  askMachines(exchange: number, length: number, bucket = 0, scale = 1): number {
    const asked = this.#asked = (this.#asked + 1) | 0;
    const turn = exchange % this.setup.turns;
    if (this.index === 0) ask(this.#counters, this.setup, asked, { turn, length, bucket, scale });
    return asked;
  }

  /** True if the sum over all machines that was asked for under this number is there. */
  isThere(asked: number): boolean {
    return ((Atomics.load(this.#counters, doneWord(this.setup)) - asked) | 0) >= 0;
  }

  /** Waits for the sum over all machines that was asked for under this number. */
  awaitMachines(asked: number): void {
    const { status, rank, limit } = this;
    awaitCounter(this.#counters, doneWord(this.setup), asked, { status, rank, other: networkRank, limit });
  }

  /** Bounds of member `i`'s slice of `length` elements, at multiples of 16. */
  slice(i: number, length: number): [number, number] {
    const bound = (i: number) => i === this.size ? length : Math.floor(length * i / this.size / 16) * 16;
    return [bound(i), bound(i + 1)];
  }

  /** The sum of `values` over all members, and machines, on each, in double precision and the order of members. */
  sumNumbers(values: readonly number[]): number[] {
    const sums = this.size === 1 ? [...values] : this.#sumNumbersHere(values);
    return this.setup.machines ? this.#sumOverMachines(sums, this.setup.machines) : sums;
  }

  #sumNumbersHere(values: readonly number[]): number[] {
    this.next();
    const view = (i: number) => new Float64Array(this.area(i).buffer, this.area(i).byteOffset, values.length);
    view(this.index).set(values);
    this.meet();
    const sums = values.map(() => 0);
    for (let i = 0; i < this.size; i++) view(i).forEach((value, j) => sums[j] += value);
    return sums;
  }

  /** Each machine's numbers go as two f32, to places of their own among zeros: so the sum of f32 moves them as they are. */
  #sumOverMachines(values: readonly number[], { rank, size }: MachinePlace): number[] {
    const most = Math.floor(this.areaElements / (2 * size));
    if (values.length > most) {
      return [values.slice(0, most), values.slice(most)].flatMap((part) => this.#sumOverMachines(part, { rank, size }));
    }
    const width = 2 * values.length;
    const exchange = this.next();
    const area = this.area(0, exchange).subarray(0, size * width);
    if (this.index === 0) {
      area.fill(0);
      values.forEach((value, i) => {
        const high = Math.fround(value);
        area[rank * width + 2 * i] = high;
        if (Number.isFinite(high)) area[rank * width + 2 * i + 1] = value - high;
      });
    }
    this.awaitMachines(this.askMachines(exchange, area.length));
    return values.map((_, i) => {
      let sum = 0;
      for (let at = 2 * i; at < area.length; at += width) sum += area[at] + area[at + 1];
      return sum;
    });
  }
}
