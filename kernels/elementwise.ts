/**
 * What elementwise kernels share: four elements a thread, over equal runs of several tensors.
 * @module
 */

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
import { bytesOf, rowSize, type Tensor } from "../graph/tensor.ts";

const threads = 64;

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

function dispatch(
  file: string,
  text: string,
  windows: readonly Window[],
  range: RowRange,
  count: number,
  { flops, uniforms, before = [], bytes }: ElementwiseOptions,
): Dispatch {
  const vectors = ceilDivide(count, 4);
  return {
    kernel: kernel(file, text, {}, [...before, ...windows.map(({ tensor }) => tensor)].map(({ dtype }) => dtype)),
    windows: [...before.map((tensor) => windowOf(tensor)), ...windows],
    uniforms: [vectors, ...(uniforms?.(range) ?? [])],
    workgroups: [ceilDivide(vectors, threads), 1, 1],
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
    return dispatch(file, text, windows, range, range.count * rowSize(tensors[0]), options);
  });
}

/** The same for `count` elements that begin at a place of its own in each tensor, a multiple of 128. */
export function elementwiseRuns(
  target: Target,
  file: string,
  text: string,
  tensors: readonly (readonly [tensor: Tensor, start: number])[],
  count: number,
  options: ElementwiseOptions,
): Dispatch[] {
  const cuts = tensors.flatMap(([tensor, start]) => target.cuts(tensor).map((cut) => cut * rowSize(tensor) - start));
  const bounds = [...new Set([0, ...cuts.filter((cut) => cut > 0 && cut < count), count])].sort((a, b) => a - b);
  return bounds.slice(1).map((end, i) => {
    const range = { start: bounds[i], count: end - bounds[i] };
    const windows = tensors.map(([tensor, start]) => ({ tensor, start: start + range.start, length: range.count }));
    return dispatch(file, text, windows, range, range.count, options);
  });
}
