/**
 * What a program submits: dispatches and pieces of them, in stretches between collectives.
 * @module
 */

import type { CollectiveAttributes } from "./collective.ts";
import type { Op } from "./graph.ts";
import type { PlannedDispatch } from "./plan.ts";

/** Something to execute: a dispatch or a piece of one. */
export interface Piece {
  readonly planned: PlannedDispatch;
  readonly pipeline: GPUComputePipeline;
  readonly bindGroup: GPUBindGroup;
  readonly origin: readonly [number, number, number];
  readonly size: readonly [number, number, number];
  /** Guessed, then measured. */
  milliseconds: number;
}

/** Pieces between two collectives. */
export interface PieceStretch {
  pieces: Piece[];
  /** Index behind the last piece of each submit. */
  ends: number[];
  /** Carried out behind them. */
  readonly collective: Op<CollectiveAttributes> | undefined;
}

/** A segment, and how often it has run. */
export interface Segment {
  readonly stretches: PieceStretch[];
  runs: number;
}
