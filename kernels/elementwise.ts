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
  windowOf,
} from "../graph/dispatch.ts";
import { rowSize, type Tensor } from "../graph/tensor.ts";

const threads = 64;

/** Dispatches of a kernel that maps element i of `tensors` to each other; its uniforms are the count of vec4 and `uniforms`. */
export function elementwise(
  target: Target,
  file: string,
  text: string,
  tensors: readonly Tensor[],
  options: { flops: number; uniforms?: (range: RowRange) => readonly number[]; others?: readonly Tensor[] },
): Dispatch[] {
  return rowRanges(target, tensors).map((range) => {
    const count = range.count * rowSize(tensors[0]);
    const vectors = ceilDivide(count, 4);
    return {
      kernel: kernel(file, text),
      windows: [...tensors.map((tensor) => windowOf(tensor, range)), ...(options.others ?? []).map((t) => windowOf(t))],
      uniforms: [vectors, ...(options.uniforms?.(range) ?? [])],
      workgroups: [ceilDivide(vectors, threads), 1, 1],
      flops: options.flops * count,
      bytes: 4 * tensors.length * count,
    };
  });
}
