/**
 * All-reduce by recursive doubling (Thakur, Rabenseifner and Gropp, "Optimization of collective communication operations in
 * MPICH", 2005): log2 n exchanges of the whole data, for buffers whose time is latency.
 *
 * The first m members, m the largest power of two, exchange sums with a partner at distance 1, 2, 4, …; each of the others
 * first gives its numbers to one of them, and is given the sum at the end. What two partners add are the sums of two blocks;
 * as a + b is b + a, after each round all members of a block have the same bits (payloads of NaN apart).
 * @module
 */

import { greetingBytes } from "./guarded_links.ts";
import type { Member } from "./ring.ts";

/**
 * Elements that are exchanged at a time: 256 KiB. On loopback among 4 members, 512 KiB are 10 to 30% slower from 4 MiB up,
 * 128 KiB 20 to 40% from 1 MiB up: what is exchanged should stay in a core's cache.
 */
export const sliceLength = 64 * 1024;

/** Sums `data` over all members, in place. Without elements it is a barrier: none goes on before all have come. */
export async function doubling(member: Member, data: Float32Array): Promise<void> {
  const { memory } = member;
  for (let at = 0, first = true; at < data.length || first; at += sliceLength, first = false) {
    const slice = data.subarray(at, at + sliceLength);
    memory.mine.set(slice);
    await doubleSlice(member, slice.length, first);
    slice.set(memory.mine.subarray(0, slice.length));
  }
}

/** Sums the first `length` elements of `mine`; partners greet each other in the first slice. */
async function doubleSlice({ rank, size, links, memory }: Member, length: number, greet: boolean): Promise<void> {
  const head = greet ? greetingBytes : 0;
  /** An area's payload with the greeting before it. */
  const message = ({ buffer, byteOffset }: Float32Array) =>
    new Uint8Array(buffer, byteOffset - head, head + length * 4);
  const sum = memory.mine.subarray(0, length);
  const mine = message(memory.mine);
  const theirs = message(memory.theirs);
  if (greet) links.writeGreeting(mine);
  const receive = async (from: number, target: Uint8Array) => {
    await links.receive(from, target);
    if (greet) links.checkGreeting(from, target);
  };
  const power = 2 ** Math.floor(Math.log2(size));
  if (rank >= power) {
    links.phase = "folding in";
    await links.send(rank - power, mine);
    links.phase = "waiting for the sum";
    return await receive(rank - power, mine);
  }
  if (rank + power < size) {
    links.phase = "folding in";
    await receive(rank + power, theirs);
    memory.addTheirs(sum);
  }
  for (let distance = 1; distance < power; distance *= 2) {
    const partner = rank ^ distance;
    links.phase = `exchange at distance ${distance}`;
    await Promise.all([links.send(partner, mine), receive(partner, theirs)]);
    memory.addTheirs(sum);
  }
  if (rank + power < size) {
    links.phase = "giving the sum";
    await links.send(rank + power, mine);
  }
}
