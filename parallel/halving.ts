/**
 * All-reduce by recursive halving and doubling (Rabenseifner, "Optimization of collective reduction operations", 2004): as few
 * bytes as around a ring in 2 log2 n steps instead of 2 (n - 1), for buffers of middle size.
 *
 * The first m members, m the largest power of two, exchange half of what they have summed with a partner at distance m / 2,
 * m / 4, …, 1, each keeping the other half, until each has the sum of its own m-th; then they give these back the same way.
 * Each of the other members first gives its numbers to one of them, and is given the sum at the end. Each sum is made by one
 * member at each distance, from the same two terms, so all have the same bits.
 * @module
 */

import { bytesOf, sliceBytes } from "./group_memory.ts";
import { greetingBytes } from "./guarded_links.ts";
import type { Member } from "./ring.ts";

/** Elements that are sent, or received and summed, at a time. */
const sliceLength = sliceBytes / 4;

/** Sums `data` over all members, in place. */
export async function halving({ rank, size, links, memory }: Member, data: Float32Array): Promise<void> {
  const scratch = bytesOf(memory.theirs);

  const greet = async (other: number) => {
    const [own, theirs] = [new Uint8Array(greetingBytes), new Uint8Array(greetingBytes)];
    links.writeGreeting(own);
    await Promise.all([links.send(other, own), links.receive(other, theirs)]);
    links.checkGreeting(other, theirs);
  };
  // In pieces, each of which has the whole limit of a wait.
  const inSlices = async (values: Float32Array, move: (part: Float32Array) => Promise<void>) => {
    for (let at = 0; at < values.length; at += sliceLength) await move(values.subarray(at, at + sliceLength));
  };
  const send = (to: number, values: Float32Array) => inSlices(values, (part) => links.send(to, bytesOf(part)));
  const receive = (from: number, values: Float32Array) =>
    inSlices(values, (part) => links.receive(from, bytesOf(part)));
  const add = (from: number, values: Float32Array) =>
    inSlices(values, async (part) => {
      await links.receive(from, scratch.subarray(0, part.byteLength));
      memory.addTheirs(part);
    });

  const power = 2 ** Math.floor(Math.log2(size));
  const folded = rank >= power ? rank - power : rank + power < size ? rank + power : undefined;
  if (folded !== undefined) {
    links.phase = "folding in";
    await greet(folded);
    if (rank >= power) {
      await send(folded, data);
      links.phase = "waiting for the sum";
      return await receive(folded, data);
    }
    await add(folded, data);
  }

  /** What is still summed here; the halves given away on the way, the last first, with whom has them. */
  let own = data;
  const given: { readonly partner: number; readonly half: Float32Array }[] = [];
  for (let distance = power / 2; distance >= 1; distance /= 2) {
    const partner = rank ^ distance;
    // Halves begin at multiples of 16 elements where they can.
    const middle = Math.floor(own.length / 32) * 16;
    const [lower, upper] = [own.subarray(0, middle), own.subarray(middle)];
    const [kept, half] = rank < partner ? [lower, upper] : [upper, lower];
    links.phase = `halving at distance ${distance}`;
    await greet(partner);
    await Promise.all([send(partner, half), add(partner, kept)]);
    given.unshift({ partner, half });
    own = kept;
  }
  for (const { partner, half } of given) {
    links.phase = `doubling at distance ${rank ^ partner}`;
    await Promise.all([send(partner, own), receive(partner, half)]);
    // Halves lie beside each other.
    own = new Float32Array(data.buffer, Math.min(own.byteOffset, half.byteOffset), own.length + half.length);
  }
  if (folded !== undefined) {
    links.phase = "giving the sum";
    await send(folded, data);
  }
}
