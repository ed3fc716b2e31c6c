/**
 * Cutting grids of workgroups, and grouping dispatches into submits.
 * @module
 */

import { MachineError } from "../errors.ts";
import { type Capabilities, maximumWorkgroups } from "../gpu/capabilities.ts";
import type { Dispatch } from "./dispatch.ts";
import type { Plan } from "./plan.ts";

/** Share of the measured multiply-add rate that a first guess counts on. */
const guessedEfficiency = 0.1;
/** Bytes per multiply-add flop of the measured rate that a first guess counts on: GPUs move 1/80 to 1/20, lavapipe 1/20. */
const guessedBytesPerFlop = 0.01;
/** No dispatch is to take longer, in ms: drivers end what runs for 2 s, and guesses may be wrong by a few times. */
export const longestMilliseconds = 300;

/** A single dispatch that takes longer than this, in ms, is cut into several. */
export const dispatchMilliseconds = 100;

/** GPU time that one submit aims at, in ms; watchdogs strike at 2 s, interactive desktops suffer above 200 ms. */
export const submitMilliseconds = 120;

/** A part of a grid. */
export interface Box {
  readonly origin: readonly [number, number, number];
  readonly size: readonly [number, number, number];
}

/** Time that a dispatch is guessed to take on a device where it has not run yet, in ms. */
export function guessMilliseconds(
  { flops, bytes }: Pick<Dispatch, "flops" | "bytes">,
  { flopsPerSecond }: Pick<Capabilities, "flopsPerSecond">,
): number {
  return 1e3 * Math.max(flops / guessedEfficiency, bytes / guessedBytesPerFlop) / flopsPerSecond;
}

/**
 * Throws `MachineError` if a single workgroup, which nothing can cut, would keep a GPU busy for too long. Software drivers
 * have no watchdog.
 */
export function assertSplittable({ segments }: Pick<Plan, "segments">, capabilities: Capabilities): void {
  if (capabilities.type === "cpu") return;
  for (const stretches of segments.values()) {
    for (const { op, kernel, workgroups: [x, y, z], ...cost } of stretches.flatMap(({ dispatches }) => dispatches)) {
      const milliseconds = guessMilliseconds(cost, capabilities) / (x * y * z);
      if (milliseconds <= longestMilliseconds) continue;
      throw new MachineError(
        `A workgroup of ${kernel.file} (${op.name}) would take some ${(milliseconds / 1e3).toFixed(1)} s on ` +
          `${capabilities.name}, whose driver may end what runs for 2 s: choose a shorter --sequence-length or a smaller model`,
      );
    }
  }
}

/** Cuts a grid into at least `count` boxes where its extents allow it, none beyond the limit of workgroups. */
export function cutGrid(grid: readonly [number, number, number], count: number): Box[] {
  const pieces: [number, number, number] = [1, 1, 1];
  let wanted = Math.max(1, count);
  for (const axis of [2, 1, 0] as const) {
    pieces[axis] = Math.max(Math.ceil(grid[axis] / maximumWorkgroups), Math.min(grid[axis], wanted));
    wanted = Math.ceil(wanted / pieces[axis]);
  }
  const ranges = grid.map((extent, axis) => {
    const step = Math.ceil(extent / pieces[axis]);
    return Array.from({ length: Math.ceil(extent / step) }, (_, i) => [i * step, Math.min(step, extent - i * step)]);
  });
  return ranges[2].flatMap(([z, depth]) =>
    ranges[1].flatMap(([y, height]) =>
      ranges[0].map(([x, width]): Box => ({ origin: [x, y, z], size: [width, height, depth] }))
    )
  );
}

/** Ends of the groups in which consecutive pieces are submitted together. */
export function submitEnds(pieces: readonly { milliseconds: number }[]): number[] {
  const ends: number[] = [];
  let sum = 0;
  pieces.forEach((piece, i) => {
    if (sum > 0 && sum + piece.milliseconds > submitMilliseconds) {
      ends.push(i);
      sum = 0;
    }
    sum += piece.milliseconds;
  });
  if (pieces.length > 0) ends.push(pieces.length);
  return ends;
}
