/**
 * The memory in which a process group adds what it receives: WebAssembly's, for its vectors. Numbers that lie in the same
 * memory are summed in place; others go through a copy that stays in the cache.
 * @module
 */

import { type SumAreas, sumAreas } from "./sum_areas.ts";

/**
 * Bytes of a scratch area: the most that is received, summed and sent on in one piece. Around a ring on loopback 512 KiB and
 * 1 MiB are equal from 1 to 64 MiB among 2 and 4 members, 256 KiB are some 5 to 15% slower, 32 KiB up to 40%; smaller ones
 * fill the ring sooner. Writes of 1 MiB are 0 to 10% slower than of 512 KiB.
 */
export const sliceBytes = 512 * 1024;
/** Before the payload of each area there is room for a greeting. */
const areaBytes = 64 + sliceBytes;

/** Bytes that a process group needs for itself. */
export const scratchBytes = 2 * areaBytes;

/** The scratch areas of a group, `mine` and `theirs`, each of `sliceBytes` with room for a greeting before. */
export class GroupMemory {
  /** Payload of what is received. */
  readonly theirs: Float32Array;
  /** Payload of what is sent, or a copy of what is summed. */
  readonly mine: Float32Array;
  readonly #sum: SumAreas;

  constructor(readonly memory: WebAssembly.Memory, offset: number) {
    this.theirs = new Float32Array(memory.buffer, offset + 64, sliceBytes / 4);
    this.mine = new Float32Array(memory.buffer, offset + areaBytes + 64, sliceBytes / 4);
    this.#sum = sumAreas(memory);
  }

  /** `target += theirs`, as many elements as the target has. */
  addTheirs(target: Float32Array): void {
    const inPlace = target.buffer === this.memory.buffer;
    const sum = inPlace ? target : this.mine.subarray(0, target.length);
    if (!inPlace) sum.set(target);
    // The distance to the other area may be negative: addresses wrap around.
    this.#sum(sum.byteOffset, sum.byteOffset, this.theirs.byteOffset - sum.byteOffset, 2, sum.byteLength);
    if (!inPlace) target.set(sum);
  }
}

/** A view of the bytes of `values`. */
export function bytesOf(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
