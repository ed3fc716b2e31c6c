/**
 * One number after another, from one rank of a process to all of them, itself included.
 * @module
 */

import { awaitCounter, type WaitLimit } from "./shared_memory.ts";
import type { RunStatus } from "./status.ts";

/** Plain data from which every rank makes its end. */
export interface MailboxSetup {
  readonly from: number;
  readonly memory: SharedArrayBuffer;
}

const slots = { count: 0, value: 1 } as const;

/** Memory for a mailbox that rank `from` fills. */
export function createMailbox(from: number): MailboxSetup {
  return { from, memory: new SharedArrayBuffer(64) };
}

/** A rank's end of a mailbox. It holds one number: the next may be put in only when every rank has taken the last. */
export class Mailbox {
  readonly #words: Int32Array;
  #count = 0;

  constructor(
    readonly setup: MailboxSetup,
    readonly rank: number,
    readonly status: RunStatus,
    readonly limit: WaitLimit,
  ) {
    this.#words = new Int32Array(setup.memory);
  }

  /** Puts a number in. */
  put(value: number): void {
    this.#words[slots.value] = value;
    Atomics.add(this.#words, slots.count, 1);
    Atomics.notify(this.#words, slots.count);
  }

  /** The next number; waits for it. */
  take(): number {
    const { setup, status, rank, limit } = this;
    this.#count = (this.#count + 1) | 0;
    awaitCounter(this.#words, slots.count, this.#count, { status, rank, other: setup.from, limit });
    return this.#words[slots.value];
  }
}
