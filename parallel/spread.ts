/**
 * Broadcast down a tree, each slice passed on as soon as it is there: a binomial tree for little data, which all have after
 * log2 n hops, and a chain for much, in which no member sends more than the data once.
 * @module
 */

import { Frontier } from "./frontier.ts";
import { bytesOf, sliceBytes } from "./group_memory.ts";
import { greetingBytes } from "./guarded_links.ts";
import type { Member } from "./ring.ts";

/** Who stands above a member, -1 for the root, and who below; by distance from the root. */
export type TreeShape = (place: number, size: number) => { parent: number; children: number[] };

/** Each place's parent lacks the lowest bit of its number; the largest subtree is served first. */
export const binomialTree: TreeShape = (place, size) => {
  const children: number[] = [];
  let bit = 1;
  for (; bit < size && (place & bit) === 0; bit *= 2) if (place + bit < size) children.unshift(place + bit);
  return { parent: place === 0 ? -1 : place - bit, children };
};

/** Each place passes on to the next. */
export const chain: TreeShape = (place, size) => ({
  parent: place - 1,
  children: place + 1 < size ? [place + 1] : [],
});

/** Gives `data` of member `root` to all. */
export async function spread(
  { rank, size, links }: Member,
  data: Float32Array,
  root: number,
  shape: TreeShape,
): Promise<void> {
  const { parent, children } = shape((rank - root + size) % size, size);
  const rankOf = (place: number) => (place + root) % size;
  const bytes = bytesOf(data);
  const there = new Frontier(parent < 0 ? bytes.length : 0);

  const receiveAll = async (from: number) => {
    const greeting = new Uint8Array(greetingBytes);
    await links.receive(from, greeting);
    links.checkGreeting(from, greeting);
    links.phase = `numbers of member ${root}`;
    for (let at = 0; at < bytes.length;) {
      const to = Math.min(bytes.length, at + sliceBytes);
      await links.receive(from, bytes.subarray(at, to));
      there.advance(at = to);
    }
  };
  const sendAll = async (target: number) => {
    const greeting = new Uint8Array(greetingBytes);
    links.writeGreeting(greeting);
    await links.send(target, greeting);
    for (let at = 0; at < bytes.length;) {
      if (there.value === at) {
        await there.moved();
        continue;
      }
      links.phase = `numbers of member ${root}`;
      const to = Math.min(there.value, at + sliceBytes);
      await links.send(target, bytes.subarray(at, to));
      at = to;
    }
  };
  await Promise.all([
    ...(parent < 0 ? [] : [receiveAll(rankOf(parent))]),
    ...children.map((child) => sendAll(rankOf(child))),
  ]);
}
