/**
 * What elementwise kernels share: over equal runs of several tensors, vectors of four elements, in their texts from `first` on up to `end`.
 * @module
 */

import type { Capabilities } from "../gpu/capabilities.ts";
import {
  ceilDivide,
  type Dispatch,
  kernel,
  type RowRange,
  rowRanges,
  type Target,
  type Window,
  windowOf,
} from "../graph/dispatch.ts";
import { declareImages, imagesIfFaster } from "../graph/images.ts";
import { bytesOf, rowSize, type Tensor } from "../graph/tensor.ts";

/**
 * Threads of a workgroup, and vectors (or other values) that they take. On GPUs a thread has one; on software drivers a subgroup has many, since a workgroup costs 0.5 µs there, and
 * so do the scalars that each subgroup loads.
 */
export function shareOf({ type, subgroupSize }: Capabilities): { readonly threads: number; readonly vectors: number } {
  return type === "gpu" ? { threads: 64, vectors: 64 } : { threads: Math.max(8, subgroupSize), vectors: 1024 };
}

/** What an elementwise kernel computes and reads besides. */
export interface ElementwiseOptions {
  /** Floating-point operations for each element. */
  readonly flops: number;
  /** Uniforms behind the count of vec4, of a range of elements. */
  readonly uniforms?: (range: RowRange) => readonly number[];
  /** Tensors bound whole before the others. */
  readonly before?: readonly Tensor[];
  /** Bytes read and written for each element; those of each tensor once if left out. */
  readonly bytes?: number;
}

/** A tensor is only written, or read and written; or taken: it is only read, and zero behind the kernel. */
export type Access = "write" | "update" | "take";

/** A tensor that a kernel goes through from a place on, a multiple of 128 elements. */
export interface Run {
  readonly tensor: Tensor;
  readonly start: number;
  readonly access: Access;
}

function dispatch(
  { capabilities }: Target,
  file: string,
  text: string,
  windows: readonly Window[],
  range: RowRange,
  count: number,
  { flops, uniforms, before = [], bytes }: ElementwiseOptions,
): Dispatch {
  const vectors = ceilDivide(count, 4);
  const share = shareOf(capabilities);
  const all = [...before.map((tensor) => windowOf(tensor)), ...windows];
  return {
    kernel: kernel(
      file,
      declareImages(text, all),
      { THREADS: share.threads, VECTORS: share.vectors },
      all.map(({ tensor }) => tensor.dtype),
    ),
    windows: all,
    uniforms: [vectors, ...(uniforms?.(range) ?? [])],
    workgroups: [ceilDivide(vectors, share.vectors), 1, 1],
    flops: flops * count,
    bytes: count * (bytes ?? windows.reduce((sum, { tensor }) => sum + bytesOf(tensor.dtype), 0)),
  };
}

/** Dispatches of a kernel that maps element i of `tensors` to each other; its uniforms are the count of vec4 and `uniforms`. */
export function elementwise(
  target: Target,
  file: string,
  text: string,
  tensors: readonly Tensor[],
  options: ElementwiseOptions,
): Dispatch[] {
  return rowRanges(target, tensors).map((range) => {
    const windows = tensors.map((tensor) => windowOf(tensor, range));
    return dispatch(target, file, text, windows, range, range.count * rowSize(tensors[0]), options);
  });
}

/** Elements that a dispatch takes at most where it reads images, which then stay small. */
const imageElements = 2 ** 20;

/** The same for `count` elements that begin at a place of its own in each flat tensor. */
export function elementwiseRuns(
  target: Target,
  file: string,
  text: string,
  runs: readonly Run[],
  count: number,
  options: ElementwiseOptions,
): Dispatch[] {
  const cuts = runs.flatMap(({ tensor, start }) => target.cuts(tensor).map((cut) => cut * rowSize(tensor) - start));
  if (target.capabilities.type === "cpu") {
    for (let cut = imageElements; cut < count; cut += imageElements) cuts.push(cut);
  }
  const bounds = [...new Set([0, ...cuts.filter((cut) => cut > 0 && cut < count), count])].sort((a, b) => a - b);
  return bounds.slice(1).map((end, i) => {
    const range = { start: bounds[i], count: end - bounds[i] };
    const windows = runs.map(({ tensor, start }) => ({ tensor, start: start + range.start, length: range.count }));
    const of = (...accesses: Access[]) => windows.filter((_, i) => accesses.includes(runs[i].access));
    const read = of("take", "update");
    const images = imagesIfFaster(target, read);
    const bound = windows.map((window, i) => runs[i].access === "take" ? images[read.indexOf(window)] : window);
    const updated = images.filter(({ image }, i) => image && of("update").includes(read[i]));
    return { ...dispatch(target, file, text, [...bound, ...updated], range, range.count, options), zeroes: of("take") };
  });
}
