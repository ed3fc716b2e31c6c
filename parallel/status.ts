/**
 * What each rank is doing, in shared memory: for reports of stalls, and for ending all ranks when one fails.
 * @module
 */

import { MachineError } from "../errors.ts";
import type { Trace } from "../gpu/trace.ts";

const recordBytes = 512;
/** Words of a record, in front of its texts. */
const slots = {
  waitingFor: 0,
  since: 1,
  life: 2,
  patience: 3,
  textLength: 4,
  collectiveLength: 5,
  inside: 6,
  failed: 7,
} as const;
/** What joins this machine to others waits and is waited for like a rank: this is its number. */
export const networkRank = -1;
/** Added to the number of whom is waited for: what is zero waits for nobody. */
const waitingOffset = 2;
/** Where the texts lie in a record: what the rank does, and its last collective. */
const texts = {
  task: { start: 32, length: slots.textLength },
  collective: { start: 272, length: slots.collectiveLength },
} as const;
const textBytes = 240;
/** Time is kept in 31 bits of milliseconds. */
const clockBits = 2 ** 31;

/** Time in ms; other than the wall clock it does not jump. */
const clock = () => Math.floor(performance.timeOrigin + performance.now()) % clockBits;

/** Time from `then` to now; never negative, though the clocks of threads differ a little. */
function since(then: number): number {
  const passed = clock() - then;
  return Math.max(0, passed < -clockBits / 2 ? passed + clockBits : passed);
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** A rank that waits. */
export interface Wait {
  readonly rank: number;
  readonly waitingFor: number;
  readonly milliseconds: number;
  /** Tells it from other waits of this rank. */
  readonly began: number;
  /** The collective that it waits in. */
  readonly collective: string;
  /** What the other was last seen doing. */
  readonly other: string;
}

/** Thrown in ranks that end because another has failed: its message is the one to show. */
export class StoppedError extends MachineError {}

/** Memory for the status of so many ranks. */
export function createStatusMemory(ranks: number): SharedArrayBuffer {
  const memory = new SharedArrayBuffer(recordBytes * (ranks + 1));
  const status = new RunStatus(memory);
  for (let rank = 0; rank < ranks; rank++) status.beat(rank);
  return memory;
}

/** The status of all ranks. The first record is the network's, and holds whether the run has failed. */
export class RunStatus {
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #scratch = new Uint8Array(textBytes);
  /** Told of this thread's collectives, waits for others and sums, while there is one. */
  trace: Trace | undefined;

  constructor(readonly memory: SharedArrayBuffer) {
    this.#words = new Int32Array(memory);
    this.#bytes = new Uint8Array(memory);
  }

  #word(rank: number, slot: number): number {
    return (rank + 1) * recordBytes / 4 + slot;
  }

  /** True once some rank has failed. */
  get failed(): boolean {
    return Atomics.load(this.#words, slots.failed) !== 0;
  }

  /** Has all waits end. */
  fail(): void {
    Atomics.store(this.#words, slots.failed, 1);
  }

  /** Throws `StoppedError` once some rank has failed. */
  check(): void {
    if (this.failed) throw new StoppedError("Another rank failed");
  }

  #setText(rank: number, { start, length }: typeof texts[keyof typeof texts], text: string): void {
    const { written } = encoder.encodeInto(text, this.#scratch);
    this.#bytes.set(this.#scratch.subarray(0, written), (rank + 1) * recordBytes + start);
    Atomics.store(this.#words, this.#word(rank, length), written);
  }

  #text(rank: number, { start, length }: typeof texts[keyof typeof texts]): string {
    const from = (rank + 1) * recordBytes + start;
    return decoder.decode(this.#bytes.slice(from, from + Atomics.load(this.#words, this.#word(rank, length))));
  }

  /** A sign of life of `rank`. */
  beat(rank: number): void {
    Atomics.store(this.#words, this.#word(rank, slots.life), clock());
  }

  /** Time since `rank`, or one for whom it waits, has shown a sign of life, in ms. */
  silence(rank: number): number {
    return since(Atomics.load(this.#words, this.#word(rank, slots.life)));
  }

  /** For a `rank` that waits: it is alive as long as the one that it waits for, whose silence is returned. */
  follow(rank: number, other: number): number {
    const silence = this.silence(other);
    if (silence < this.silence(rank)) {
      Atomics.store(
        this.#words,
        this.#word(rank, slots.life),
        Atomics.load(this.#words, this.#word(other, slots.life)),
      );
    }
    return silence;
  }

  /** From now on `rank` waits this long for others, in ms, and may itself show no sign of life for as long. */
  allow(rank: number, milliseconds: number): void {
    Atomics.store(this.#words, this.#word(rank, slots.patience), Math.min(milliseconds, clockBits - 1));
    this.beat(rank);
  }

  /** What `rank` was last allowed. */
  patience(rank: number): number {
    return Atomics.load(this.#words, this.#word(rank, slots.patience));
  }

  /** Notes what `rank` does, outside any collective. */
  doing(rank: number, text: string): void {
    this.#setText(rank, texts.task, text);
    Atomics.store(this.#words, this.#word(rank, slots.collectiveLength), 0);
    this.beat(rank);
  }

  /** Notes that `rank` enters a collective. */
  entering(rank: number, collective: string): void {
    this.#setText(rank, texts.collective, collective);
    Atomics.store(this.#words, this.#word(rank, slots.inside), 1);
    this.beat(rank);
    this.trace?.begin(collective, "collective");
  }

  /** Notes that it is out again. */
  leaving(rank: number): void {
    Atomics.store(this.#words, this.#word(rank, slots.inside), 0);
    this.beat(rank);
    this.trace?.end();
  }

  /** What `rank` was last seen doing. */
  seen(rank: number): string {
    const task = this.#text(rank, texts.task) || "its start";
    const collective = this.#text(rank, texts.collective);
    if (!collective) return task;
    const inside = Atomics.load(this.#words, this.#word(rank, slots.inside)) !== 0;
    return `${task}, ${inside ? "in" : "behind"} ${collective}`;
  }

  /** Notes that `rank` begins to wait for another. */
  waiting(rank: number, waitingFor: number): void {
    Atomics.store(this.#words, this.#word(rank, slots.since), clock());
    Atomics.store(this.#words, this.#word(rank, slots.waitingFor), waitingFor + waitingOffset);
    this.trace?.begin(`waits for ${rankName(waitingFor)}`, "wait");
  }

  /** Notes that it waits no longer. */
  goesOn(rank: number): void {
    Atomics.store(this.#words, this.#word(rank, slots.waitingFor), 0);
    this.beat(rank);
    this.trace?.end();
  }

  /** The ranks that wait now, and for whom. */
  waits(ranks: number): Wait[] {
    const found: Wait[] = [];
    for (let rank = 0; rank < ranks; rank++) {
      const waitingFor = Atomics.load(this.#words, this.#word(rank, slots.waitingFor)) - waitingOffset;
      if (waitingFor < networkRank) continue;
      const began = Atomics.load(this.#words, this.#word(rank, slots.since));
      const collective = this.#text(rank, texts.collective) || this.seen(rank);
      const other = this.seen(waitingFor);
      found.push({ rank, waitingFor, milliseconds: since(began), began, collective, other });
    }
    return found;
  }
}

function rankName(rank: number): string {
  return rank === networkRank ? "the other machines" : `rank ${rank}`;
}

/** A wait in words: who, how long, in what, for whom, and what that one was last doing. */
export function describeWait({ rank, waitingFor, milliseconds, collective, other }: Wait): string {
  const seconds = (milliseconds / 1e3).toFixed(1);
  return `rank ${rank} has waited ${seconds} s in ${collective} for ${rankName(waitingFor)}, last seen in ${other}`;
}

/** A rank that shows no sign of life although it waits for nobody, in words. */
export function describeSilence(rank: number, milliseconds: number, seen: string): string {
  return `rank ${rank} has shown no sign of life for ${(milliseconds / 1e3).toFixed(1)} s, last seen in ${seen}`;
}

/** What ends a run in which nothing goes on: `what` in words. */
export function stallError(what: string): MachineError {
  return new MachineError(`${what.charAt(0).toUpperCase()}${what.slice(1)}: given up (--stall-timeout)`, {
    restartable: true,
  });
}
