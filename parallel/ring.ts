/**
 * Reduce-scatter and all-gather around a ring (Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of
 * workstations", 2009): each member sends 2 (n - 1) / n of the data in all, the least possible.
 *
 * Of n chunks of the data, chunk c sets out from member c + 1 and gains a member's numbers at each station until its sum is
 * complete on member c; this is the reduce-scatter, n - 1 steps. In n - 1 steps more the complete sums travel on, as bytes.
 * So each sum is made once, in the order c + 1, c + 2, …, c, and all members have the same bits. A chunk goes in slices,
 * each sent on as soon as it is summed.
 * @module
 */

import { Frontier } from "./frontier.ts";
import { bytesOf, type GroupMemory, sliceBytes } from "./group_memory.ts";
import { greetingBytes, type GuardedLinks } from "./guarded_links.ts";

/** A member's place and means. */
export interface Member {
  readonly rank: number;
  readonly size: number;
  readonly links: GuardedLinks;
  readonly memory: GroupMemory;
}

/** Which half of the way around is gone, or both. */
export type RingPart = "reduce-scatter" | "all-gather" | "both";

/** Goes around the ring; chunk c of `data` lies between `bounds[c]` and `bounds[c + 1]`. */
export async function ring(
  { rank, size, links, memory }: Member,
  data: Float32Array,
  bounds: readonly number[],
  part: RingPart,
): Promise<void> {
  const first = part === "all-gather" ? size - 1 : 0;
  const end = part === "reduce-scatter" ? size - 1 : 2 * (size - 1);
  const next = (rank + 1) % size;
  const previous = (rank + size - 1) % size;
  /** The chunk that is sent in a step; it was received in the step before. */
  const chunk = (step: number) => {
    const c = (rank - 1 - step + 2 * size) % size;
    return data.subarray(bounds[c], bounds[c + 1]);
  };
  const phase = (step: number) =>
    step < size - 1
      ? `reduce-scatter step ${step + 1} of ${size - 1}`
      : `all-gather step ${step - size + 2} of ${size - 1}`;
  /** Bytes of a step's outgoing chunk that are there. */
  const ready = Array.from({ length: end + 1 }, (_, step) => new Frontier(step === first ? chunk(step).byteLength : 0));

  const receiveAll = async () => {
    const greeting = new Uint8Array(greetingBytes);
    await links.receive(previous, greeting);
    links.checkGreeting(previous, greeting);
    const scratch = bytesOf(memory.theirs);
    for (let step = first; step < end; step++) {
      const target = chunk(step + 1);
      const bytes = bytesOf(target);
      links.phase = phase(step);
      for (let at = 0; at < bytes.length;) {
        const to = Math.min(bytes.length, at + sliceBytes);
        if (step < size - 1) {
          await links.receive(previous, scratch.subarray(0, to - at));
          memory.addTheirs(target.subarray(at / 4, to / 4));
        } else {
          await links.receive(previous, bytes.subarray(at, to));
        }
        ready[step + 1].advance(at = to);
      }
    }
  };

  const sendAll = async () => {
    const greeting = new Uint8Array(greetingBytes);
    links.writeGreeting(greeting);
    await links.send(next, greeting);
    for (let step = first; step < end; step++) {
      const bytes = bytesOf(chunk(step));
      for (let at = 0; at < bytes.length;) {
        if (ready[step].value === at) {
          await ready[step].moved();
          continue;
        }
        const to = Math.min(ready[step].value, at + sliceBytes);
        await links.send(next, bytes.subarray(at, to));
        at = to;
      }
    }
  };

  await Promise.all([receiveAll(), sendAll()]);
}
