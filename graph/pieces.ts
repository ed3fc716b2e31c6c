/**
 * What a program submits: dispatches and pieces of them, in stretches between collectives.
 * @module
 */

import type { CollectiveAttributes } from "./collective.ts";
import type { Op } from "./graph.ts";
import { placementOf, type Plan, type PlannedDispatch } from "./plan.ts";
import { bytesOf } from "./tensor.ts";

/** A window that is copied into a texture. */
export interface ImageCopy {
  readonly source: GPUTexelCopyBufferInfo;
  readonly texture: GPUTexture;
  readonly size: readonly [width: number, height: number];
}

/** Something to execute: a dispatch or a piece of one. */
export interface Piece {
  readonly planned: PlannedDispatch;
  readonly pipeline: GPUComputePipeline;
  readonly bindGroup: GPUBindGroup;
  /** Copies into images, before it. */
  readonly copies: readonly ImageCopy[];
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

/** The copies into images that a dispatch needs before it. */
export function imageCopies(
  { windows, images = [] }: PlannedDispatch,
  plan: Plan,
  buffers: readonly GPUBuffer[],
  textures: readonly GPUTexture[],
): ImageCopy[] {
  return images.flatMap((use, i): ImageCopy[] => {
    if (!use?.copy) return [];
    const { tensor, start, length } = windows[i]!;
    const place = placementOf(plan, tensor, start, length);
    const { width, height } = plan.images[use.image];
    const bytes = bytesOf(tensor.dtype);
    const offset = place.offset + (start - place.start) * bytes;
    const source = { buffer: buffers[place.buffer], offset, bytesPerRow: 4 * bytes * width };
    return [{ source, texture: textures[use.image], size: [width, height] }];
  });
}

/** Encodes pieces in one pass, or in as many as copies between them make necessary. */
export function encodePieces(
  encoder: GPUCommandEncoder,
  pieces: readonly Piece[],
  describePass: () => GPUComputePassDescriptor | undefined,
): void {
  let pass = encoder.beginComputePass(describePass());
  let pipeline: GPUComputePipeline | undefined;
  for (const piece of pieces) {
    if (piece.copies.length > 0) {
      pass.end();
      for (const { source, texture, size } of piece.copies) encoder.copyBufferToTexture(source, { texture }, [...size]);
      pass = encoder.beginComputePass(describePass());
      pipeline = undefined;
    }
    if (piece.pipeline !== pipeline) {
      pipeline = piece.pipeline;
      pass.setPipeline(pipeline);
    }
    pass.setBindGroup(0, piece.bindGroup);
    pass.dispatchWorkgroups(piece.size[0], piece.size[1], piece.size[2]);
  }
  pass.end();
}
