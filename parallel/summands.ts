/**
 * Sums over the ranks of a group, in parts that fit its areas.
 * @module
 */

import type { Run } from "../graph/collective.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { TensorMemory } from "../graph/tensor_memory.ts";
import type { Group } from "./shared_memory.ts";

/** A part of a collective that sums, as large as an area at most. */
export interface Summand {
  /** Puts what this member brings into its area. */
  readonly bring: (area: Float32Array) => Promise<unknown>;
  /** Elements. */
  readonly length: number;
  /** Tells it from others of its group; the same step by step, and on all machines. */
  bucket: number;
  /** Which of them this member sums. */
  readonly own: readonly [from: number, to: number];
  /** Given the sum: all of it, or where `ownOnly` is set this member's part of it. */
  readonly take: (sum: Float32Array) => void;
  readonly ownOnly: boolean;
}

/** Sums what all members brought; behind it the sum, or this member's own part, is in the first member's area. */
export function sumHere(group: Group, exchange: number, { own, ownOnly }: Summand): void {
  group.meet();
  group.sum(...own, exchange);
  if (!ownOnly) group.meet();
}

/** Takes the sum, or the own part of it, that an exchange has made. */
export function takeSum(group: Group, exchange: number, { take, length, own, ownOnly }: Summand): void {
  take(group.area(0, exchange).subarray(...(ownOnly ? own : [0, length])));
}

/** The sum of what all members brought to their areas; `take` is given it. */
export function finishSum(group: Group, length: number, take: (sum: Float32Array) => void): void {
  const { exchange } = group;
  const summand = {
    length,
    bucket: 0,
    own: group.slice(group.index, length),
    ownOnly: false,
    take,
    bring: () => Promise.resolve(),
  };
  sumHere(group, exchange, summand);
  takeSum(group, exchange, summand);
}

/** Every member brings all and takes the sum of all. */
export function allReduceParts(
  group: Group,
  memory: TensorMemory,
  x: Tensor,
  start: number,
  length: number,
): Summand[] {
  const parts: Summand[] = [];
  for (let done = 0; done < length; done += group.areaElements) {
    const count = Math.min(group.areaElements, length - done);
    parts.push({
      length: count,
      bucket: 0,
      own: group.slice(group.index, count),
      ownOnly: false,
      bring: (area) => memory.readInto(x, area.subarray(0, count), start + done),
      take: (sum) => memory.write(x, sum, start + done),
    });
  }
  return parts;
}

/** Every member brings all; member i keeps the i-th of equal parts of the sum, at `part` of `y`. */
export function reduceScatterParts(group: Group, memory: TensorMemory, x: Tensor, y: Tensor, part: Run): Summand[] {
  const { size, index } = group;
  const whole = size * part.length <= group.areaElements;
  const most = whole ? part.length : Math.floor(group.areaElements / size / 64) * 64;
  const parts: Summand[] = [];
  for (let done = 0; done < part.length; done += most) {
    const count = Math.min(most, part.length - done);
    parts.push({
      length: size * count,
      bucket: 0,
      own: [index * count, (index + 1) * count],
      ownOnly: true,
      async bring(area) {
        if (whole) return await memory.readInto(x, area.subarray(0, size * count));
        for (let i = 0; i < size; i++) {
          await memory.readInto(x, area.subarray(i * count, (i + 1) * count), i * part.length + done);
        }
      },
      take: (sum) => memory.write(y, sum, part.start + done),
    });
  }
  return parts;
}
