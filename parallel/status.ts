/**
 * What each rank is doing, in shared memory: for reports of stalls, and for ending all ranks when one fails.
 * @module
 */

import { MachineError } from "../errors.ts";

const recordBytes = 256;
const textStart = 32;
/** Words of a record. */
const slots = { waitingFor: 0, since: 1, textLength: 2 } as const;
/** Time is kept in 31 bits of milliseconds. */
const clockBits = 2 ** 31;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** A rank that waits. */
export interface Wait {
  readonly rank: number;
  readonly waitingFor: number;
  readonly milliseconds: number;
  /** The collective that it waits in. */
  readonly collective: string;
  /** What the other was last doing. */
  readonly other: string;
}

/** Thrown in ranks that end because another has failed: its message is the one to show. */
export class StoppedError extends MachineError {}

/** Memory for the status of so many ranks. */
export function createStatusMemory(ranks: number): SharedArrayBuffer {
  return new SharedArrayBuffer(recordBytes * (ranks + 1));
}

/** The status of all ranks. The first record is the run's own. */
export class RunStatus {
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #scratch = new Uint8Array(recordBytes - textStart);

  constructor(readonly memory: SharedArrayBuffer) {
    this.#words = new Int32Array(memory);
    this.#bytes = new Uint8Array(memory);
  }

  #word(rank: number, slot: number): number {
    return (rank + 1) * recordBytes / 4 + slot;
  }

  /** True once some rank has failed. */
  get failed(): boolean {
    return Atomics.load(this.#words, 0) !== 0;
  }

  /** Has all waits end. */
  fail(): void {
    Atomics.store(this.#words, 0, 1);
  }

  /** Notes what `rank` does. */
  doing(rank: number, text: string): void {
    const { written } = encoder.encodeInto(text, this.#scratch);
    const start = (rank + 1) * recordBytes + textStart;
    this.#bytes.set(this.#scratch.subarray(0, written), start);
    Atomics.store(this.#words, this.#word(rank, slots.textLength), written);
  }

  /** What `rank` was last seen doing. */
  seen(rank: number): string {
    const start = (rank + 1) * recordBytes + textStart;
    const length = Atomics.load(this.#words, this.#word(rank, slots.textLength));
    return decoder.decode(this.#bytes.slice(start, start + length)) || "its start";
  }

  /** Notes that `rank` begins to wait for another. */
  waiting(rank: number, waitingFor: number): void {
    Atomics.store(this.#words, this.#word(rank, slots.since), Date.now() % clockBits);
    Atomics.store(this.#words, this.#word(rank, slots.waitingFor), waitingFor + 1);
  }

  /** Notes that it waits no longer. */
  goesOn(rank: number): void {
    Atomics.store(this.#words, this.#word(rank, slots.waitingFor), 0);
  }

  /** The ranks that wait now, and for whom. */
  waits(ranks: number): Wait[] {
    const found: Wait[] = [];
    for (let rank = 0; rank < ranks; rank++) {
      const waitingFor = Atomics.load(this.#words, this.#word(rank, slots.waitingFor)) - 1;
      if (waitingFor < 0) continue;
      const since = Atomics.load(this.#words, this.#word(rank, slots.since));
      const milliseconds = (Date.now() % clockBits - since + clockBits) % clockBits;
      found.push({ rank, waitingFor, milliseconds, collective: this.seen(rank), other: this.seen(waitingFor) });
    }
    return found;
  }
}

/** A wait in words. */
export function describeWait({ rank, waitingFor, milliseconds, collective, other }: Wait): string {
  const seconds = (milliseconds / 1e3).toFixed(1);
  return `rank ${rank} has waited ${seconds} s in ${collective} for rank ${waitingFor}, last seen in ${other}`;
}
