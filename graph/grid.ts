/**
 * Cutting grids of workgroups, and grouping dispatches into submits.
 * @module
 */

import { maximumWorkgroups } from "../gpu/capabilities.ts";

/** GPU time that one submit aims at, in ms; watchdogs strike at 2 s, interactive desktops suffer above 200 ms. */
export const submitMilliseconds = 120;

/** A part of a grid. */
export interface Box {
  readonly origin: readonly [number, number, number];
  readonly size: readonly [number, number, number];
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
