/**
 * Sum over rows: `sum[c] = Σ_r x[r, c]`, x [R, C], sum [C]; with `accumulate`, `sum += …`.
 *
 * Blocks of rows are summed first, into partials [blocks, C], then the blocks: tall matrices find enough threads, and
 * no sum is long. R C flops, each element is read once.
 * @module
 */

import type { Capabilities } from "../gpu/capabilities.ts";
import {
  ceilDivide,
  type Dispatch,
  type Kernel,
  kernel,
  rowRanges,
  type Target,
  type Window,
  windowOf,
} from "../graph/dispatch.ts";
import type { OpDefinition } from "../graph/graph.ts";
import { declareImages, imagesIfFaster } from "../graph/images.ts";
import { bytesOf, type DataType, rowCount, rowSize, type Tensor } from "../graph/tensor.ts";
import text from "./column_sum.wgsl" with { type: "text" };
import { unroll } from "./unroll.ts";

/** Rows that one thread sums at most in the first stage. */
export const blockRows = 32;

/** Blocks of a tensor of this many rows; cut tensors are cut at multiples of a block. */
export function blockCount(rows: number): number {
  return ceilDivide(rows, blockRows);
}

/**
 * A kernel whose threads go down columns, and the grid's width for `values` columns of vectors (`wide`) or numbers. On software drivers a thread has up to `most`
 * columns: more bytes lie side by side, which the cache rewards (2 to 4 times as fast with long rows). On GPUs it has one
 * column, and four rows at a time.
 */
export function columnKernel(
  file: string,
  text: string,
  { type, subgroupSize }: Capabilities,
  { values, wide }: { readonly values: number; readonly wide: boolean },
  most: number,
  types: readonly (DataType | undefined)[],
): { kernel: Kernel; width: number } {
  const onGPU = type === "gpu";
  const lanes = onGPU ? 64 : Math.max(8, subgroupSize);
  const each = onGPU ? 4 : Math.min(most, ceilDivide(values, lanes));
  const across = onGPU ? lanes : lanes * each;
  const made = kernel(file, unroll(text, each, onGPU ? "rows" : "columns"), {
    TYPE: wide ? "vec4f" : "f32",
    LANES: lanes,
    COLUMNS: across,
    STEP: onGPU ? 4 : 1,
  }, types);
  return { kernel: made, width: ceilDivide(values, across) };
}

/** Columns as vectors, where they are a multiple of four. */
export function vectors(columns: number): { readonly values: number; readonly wide: boolean } {
  const wide = columns % 4 === 0;
  return { values: wide ? columns / 4 : columns, wide };
}

/** What a stage sums: blocks of `size` rows of `x`. */
interface Stage {
  readonly x: Window;
  readonly sums: readonly Window[];
  readonly rows: number;
  readonly columns: number;
  readonly size: number;
  readonly blockStart: number;
  readonly accumulate: boolean;
}

function stage({ capabilities }: Target, { x, sums, rows, columns, size, blockStart, accumulate }: Stage): Dispatch {
  const types = [x, ...sums].map(({ tensor }) => tensor.dtype);
  // No vector may be of two sums.
  const split = vectors(columns / sums.length);
  const values = split.values * sums.length;
  const made = columnKernel(
    "kernels/column_sum.wgsl",
    declareImages(text, [x]),
    capabilities,
    { ...split, values },
    8,
    types,
  );
  return {
    kernel: made.kernel,
    windows: [x, sums[0], sums[1]],
    uniforms: [rows, values, size, blockStart, accumulate ? 1 : 0, split.values],
    workgroups: [made.width, ceilDivide(rows, size), 1],
    flops: rows * columns,
    bytes: bytesOf(x.tensor.dtype) * rows * columns,
  };
}

function sumPartials(target: Target, partials: Tensor, sums: readonly Tensor[], accumulate: boolean): Dispatch {
  const rows = rowCount(partials);
  return stage(target, {
    x: windowOf(partials),
    sums: sums.map((sum) => windowOf(sum)),
    rows,
    columns: rowSize(partials),
    size: rows,
    blockStart: 0,
    accumulate,
  });
}

/**
 * The second stage, for ops that make partials of their own. Inputs `[partials [blocks, columns]]`; outputs one or two vectors,
 * `sums`, that share the columns equally, accumulated into.
 */
export const addPartials: OpDefinition<{ readonly sums: number }> = {
  name: "addPartials",
  infer: ([partials], { sums }) => Array.from({ length: sums }, () => ({ shape: [rowSize(partials) / sums] })),
  lower: ({ inputs: [partials], outputs }, target) => [sumPartials(target, partials, outputs, true)],
};

/** The op. Inputs `[x]`; outputs `[sum, partials]`. */
export const columnSum: OpDefinition<{ readonly accumulate?: boolean }> = {
  name: "columnSum",
  infer: ([x]) => [{ shape: [rowSize(x)] }, { shape: [blockCount(rowCount(x)), rowSize(x)], dtype: "f32" }],
  lower({ inputs: [x], outputs: [sum, partials], attributes }, target) {
    const columns = rowSize(x);
    return [
      ...rowRanges(target, [x]).map((range) =>
        stage(target, {
          // The products that have the same rows as an operand find the image.
          x: imagesIfFaster(target, [windowOf(x, range)])[0],
          sums: [windowOf(partials)],
          rows: range.count,
          columns,
          size: blockRows,
          blockStart: range.start / blockRows,
          accumulate: false,
        })
      ),
      sumPartials(target, partials, [sum], attributes.accumulate ?? false),
    ];
  },
};
