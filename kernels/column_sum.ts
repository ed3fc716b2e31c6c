/**
 * Sum over rows: `sum[c] = Σ_r x[r, c]`, x [R, C], sum [C]; with `accumulate`, `sum += …`.
 *
 * Blocks of rows are summed first, into partials [blocks, C], then the blocks: tall matrices find enough threads, and
 * no sum is long. R C flops, 4 R C bytes.
 * @module
 */

import { ceilDivide, type Dispatch, kernel, rowRanges, type Window, windowOf } from "../graph/dispatch.ts";
import type { OpDefinition } from "../graph/graph.ts";
import { rowCount, rowSize, type Tensor } from "../graph/tensor.ts";
import text from "./column_sum.wgsl" with { type: "text" };

/** Rows that one thread sums at most in the first stage. */
export const blockRows = 64;

/** Blocks of a tensor of this many rows; cut tensors are cut at multiples of a block. */
export function blockCount(rows: number): number {
  return ceilDivide(rows, blockRows);
}

/** The dispatch that sums blocks of `size` rows of `x` into `sum`. */
function stage(
  x: Window,
  sum: Window,
  shape: { rows: number; columns: number },
  options: { size: number; blockStart: number; accumulate: boolean },
): Dispatch {
  const wide = shape.columns % 4 === 0;
  const columns = wide ? shape.columns / 4 : shape.columns;
  return {
    kernel: kernel("kernels/column_sum.wgsl", text, { TYPE: wide ? "vec4f" : "f32" }),
    windows: [x, sum],
    uniforms: [shape.rows, columns, options.size, options.blockStart, options.accumulate ? 1 : 0],
    workgroups: [ceilDivide(columns, 32), ceilDivide(shape.rows, options.size), 1],
    flops: shape.rows * shape.columns,
    bytes: 4 * shape.rows * shape.columns,
  };
}

/** Sums `partials` [blocks, columns] into `sum`: the second stage, for any op that made partials of its own. */
export function sumPartials(partials: Tensor, sum: Tensor, accumulate: boolean): Dispatch {
  const shape = { rows: rowCount(partials), columns: rowSize(partials) };
  return stage(windowOf(partials), windowOf(sum), shape, { size: shape.rows, blockStart: 0, accumulate });
}

/** The op. Inputs `[x]`; outputs `[sum, partials]`. */
export const columnSum: OpDefinition<{ readonly accumulate?: boolean }> = {
  name: "columnSum",
  infer: ([x]) => [{ shape: [rowSize(x)] }, { shape: [blockCount(rowCount(x)), rowSize(x)] }],
  lower({ inputs: [x], outputs: [sum, partials], attributes }, target) {
    const columns = rowSize(x);
    return [
      ...rowRanges(target, [x]).map((range) =>
        stage(windowOf(x, range), windowOf(partials), { rows: range.count, columns }, {
          size: blockRows,
          blockStart: range.start / blockRows,
          accumulate: false,
        })
      ),
      sumPartials(partials, sum, attributes.accumulate ?? false),
    ];
  },
};
