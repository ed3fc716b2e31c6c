/**
 * A one-way channel between two ranks of a process: a ring of messages in shared memory.
 * @module
 */

import { allocator } from "./group_setup.ts";
import { awaitCounter, type WaitLimit } from "./shared_memory.ts";
import type { RunStatus } from "./status.ts";

/** Plain data from which both ends are made. */
export interface ChannelSetup {
  readonly from: number;
  readonly to: number;
  readonly memory: SharedArrayBuffer;
  /** f32 elements of the largest message. */
  readonly elements: number;
  /** Messages that fit. */
  readonly capacity: number;
}

const headerBytes = 128;
const counters = { sent: 0, taken: 16 } as const;

/** Bytes of a channel's memory. */
export function channelBytes({ elements, capacity }: Pick<ChannelSetup, "elements" | "capacity">): number {
  return headerBytes + elements * capacity * 4;
}

/** Memory for a channel. */
export function createChannel(
  from: number,
  to: number,
  elements: number,
  capacity: number,
  { shared } = allocator,
): ChannelSetup {
  return { from, to, elements, capacity, memory: shared(channelBytes({ elements, capacity })) };
}

/** One end of a channel. */
export class Channel {
  readonly #words: Int32Array;
  readonly #messages: readonly Float32Array[];
  /** Messages that went through this end; wraps around. */
  #count: number;
  /** Where the next one is. */
  #place = 0;

  constructor(
    readonly setup: ChannelSetup,
    readonly rank: number,
    readonly status: RunStatus,
    readonly limit: WaitLimit,
  ) {
    const { memory, elements, capacity, from } = setup;
    this.#words = new Int32Array(memory, 0, headerBytes / 4);
    this.#count = Atomics.load(this.#words, rank === from ? counters.sent : counters.taken);
    this.#messages = Array.from(
      { length: capacity },
      (_, i) => new Float32Array(memory, headerBytes + i * elements * 4, elements),
    );
  }

  #await(counter: number, value: number, other: number): void {
    const { status, rank, limit } = this;
    awaitCounter(this.#words, counter, value | 0, { status, rank, other, limit });
  }

  #advance(counter: number): void {
    this.#count = (this.#count + 1) | 0;
    this.#place = (this.#place + 1) % this.setup.capacity;
    Atomics.store(this.#words, counter, this.#count);
    Atomics.notify(this.#words, counter);
  }

  /** Where the next message to send is written; waits for room. */
  room(): Float32Array {
    this.#await(counters.taken, this.#count - this.setup.capacity + 1, this.setup.to);
    return this.#messages[this.#place];
  }

  /** Sends what was written. */
  sent(): void {
    this.#advance(counters.sent);
  }

  /** The next message; it stays until `taken`. */
  message(): Float32Array {
    this.#await(counters.sent, this.#count + 1, this.setup.from);
    return this.#messages[this.#place];
  }

  /** Gives the message's room back. */
  taken(): void {
    this.#advance(counters.taken);
  }
}
