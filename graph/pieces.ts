/**
 * What a program submits: dispatches and pieces of them, in stretches between collectives.
 * @module
 */

import type { CollectiveAttributes } from "./collective.ts";
import type { Window } from "./dispatch.ts";
import type { Op } from "./graph.ts";
import { placementOf, type Plan, type PlannedDispatch } from "./plan.ts";
import { bytesOf } from "./tensor.ts";
import type { Trial } from "./twins.ts";

/** A window that is copied into a texture. */
export interface ImageCopy {
  readonly source: GPUTexelCopyBufferInfo;
  readonly texture: GPUTexture;
  readonly size: readonly [width: number, height: number];
  /** The row of the texture that it begins at. */
  readonly row: number;
}

/** Bytes of a buffer. */
export interface ByteRange {
  readonly buffer: GPUBuffer;
  readonly offset: number;
  readonly size: number;
}

/** Something to execute: a dispatch or a piece of one. */
export interface Piece {
  readonly planned: PlannedDispatch;
  /** One of two that compute the same (`twins.ts`). */
  pipeline: GPUComputePipeline;
  readonly bindGroup: GPUBindGroup;
  /** Copies into images, before it. */
  readonly copies: readonly ImageCopy[];
  /** What is zeroed behind it. */
  readonly zeroes: readonly ByteRange[];
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
  /** What the next run, timed too, is to tell. */
  trial?: Trial;
}

/** What a plan has become on a device. */
export interface Memory {
  readonly plan: Plan;
  readonly buffers: readonly GPUBuffer[];
  readonly images: readonly GPUTexture[];
}

/** What happens around a dispatch: copies into images before it, memory zeroed behind it. */
export function around(planned: PlannedDispatch, memory: Memory): Pick<Piece, "copies" | "zeroes"> {
  return {
    copies: imageCopies(planned, memory),
    zeroes: (planned.zeroes ?? []).map((window) => bytesOfWindow(window, memory)),
  };
}

function imageCopies({ windows, images = [] }: PlannedDispatch, memory: Memory): ImageCopy[] {
  return images.flatMap((use, i): ImageCopy[] => {
    if (!use?.copy) return [];
    const { buffer, offset, size } = bytesOfWindow(windows[i]!, memory);
    const { width, halves } = memory.plan.images[use.image];
    const bytesPerRow = (halves ? 8 : 16) * width;
    const rows = Math.floor(size / bytesPerRow);
    const rest = size / bytesPerRow - rows;
    const copy = (row: number, size: readonly [number, number]): ImageCopy => ({
      source: { buffer, offset: offset + row * bytesPerRow, bytesPerRow },
      texture: memory.images[use.image],
      size,
      row,
    });
    return [...(rows > 0 ? [copy(0, [width, rows])] : []), ...(rest > 0 ? [copy(rows, [rest * width, 1])] : [])];
  });
}

/** Binding 1 and those behind it; `absent` where there is no window. */
export function entries({ windows, images }: PlannedDispatch, memory: Memory, absent: GPUBuffer): GPUBindGroupEntry[] {
  return windows.map((window, i) => {
    const use = images?.[i];
    const resource = use
      ? memory.images[use.image].createView()
      : window
      ? bytesOfWindow(window, memory)
      : { buffer: absent };
    return { binding: i + 1, resource };
  });
}

/** Where a window lies. */
function bytesOfWindow({ tensor, start, length }: Window, { plan, buffers }: Memory): ByteRange {
  const place = placementOf(plan, tensor, start, length);
  const bytes = bytesOf(tensor.dtype);
  // Tensors are aligned, so a vector may begin inside and end behind.
  const size = Math.ceil(length * bytes / 16) * 16;
  return { buffer: buffers[place.buffer], offset: place.offset + (start - place.start) * bytes, size };
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
      for (const { source, texture, size, row } of piece.copies) {
        encoder.copyBufferToTexture(source, { texture, origin: [0, row] }, [...size]);
      }
      pass = encoder.beginComputePass(describePass());
      pipeline = undefined;
    }
    if (piece.pipeline !== pipeline) {
      pipeline = piece.pipeline;
      pass.setPipeline(pipeline);
    }
    pass.setBindGroup(0, piece.bindGroup);
    pass.dispatchWorkgroups(piece.size[0], piece.size[1], piece.size[2]);
    if (piece.zeroes.length > 0) {
      pass.end();
      for (const { buffer, offset, size } of piece.zeroes) encoder.clearBuffer(buffer, offset, size);
      pass = encoder.beginComputePass(describePass());
      pipeline = undefined;
    }
  }
  pass.end();
}
