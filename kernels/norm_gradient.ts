/**
 * Gradients of layer norm and RMS norm. With x̂ = (x - mean) rstd, or x rstd for RMS norm, and g = dy w:
 * `dx = (g - mean(g) - x̂ mean(g x̂)) rstd`, without mean(g) for RMS norm; `dw[c] += Σ_r dy[r, c] x̂[r, c]`, `db[c] += Σ_r dy[r, c]`.
 *
 * The sums are made over blocks of rows first, as in column_sum: by the kernel that makes dx, where it takes a block's rows one
 * after another and holds them, otherwise by one that reads x and dy again.
 * @module
 */

import { ceilDivide, type Dispatch, float, rowRanges, windowOf } from "../graph/dispatch.ts";
import type { Backward, Op, OpDefinition } from "../graph/graph.ts";
import { declareImages, imagesIfFaster } from "../graph/images.ts";
import { rowCount, rowSize, type Tensor } from "../graph/tensor.ts";
import { addPartials, blockCount, blockRows, columnKernel, vectors } from "./column_sum.ts";
import { heldRowKernel } from "./held_rows.ts";
import text from "./norm_gradient.wgsl" with { type: "text" };
import partialsText from "./norm_partials.wgsl" with { type: "text" };
import { bytesPerColumn, rowValues } from "./rows.ts";

/** The gradient rule of an op with inputs `[x, w]`, or `[x, w, b]` where it takes away the rows' `mean`, and outputs `[y, …]`. */
export function differentiateNorm(backward: Backward, op: Op<unknown>, rstd: Tensor, mean?: Tensor): void {
  const [x, ...weights] = op.inputs;
  const addend = backward.needs(x) ? backward.take(x) : undefined;
  const operands = [x, weights[0], backward.gradientOf(op.outputs[0])!, rstd, mean, addend];
  const [dx, partials] = backward.add(
    normGradient,
    operands.filter((tensor) => tensor !== undefined),
    { centered: mean !== undefined },
    { name: `${op.name}.dinput` },
  );
  if (weights.every(({ role }) => role === "parameter")) {
    backward.add(addPartials, [partials], { sums: weights.length }, {
      name: `${op.name}.dweight`,
      outputs: weights.map(backward.accumulator),
    });
  }
  if (backward.needs(x)) backward.give(x, dx);
}

/**
 * Inputs `[x [R, C], w [C], dy [R, C], rstd [R], mean?, addend?]`, with `mean` if `centered`. Outputs `[dx (+ addend), partials]`;
 * a row of partials has a block's sums for w, then, if `centered`, those for the bias. It writes no gradient of a weight itself:
 * pipelines put off ops that do.
 */
const normGradient: OpDefinition<{ readonly centered: boolean }> = {
  name: "normGradient",
  infer: ([x], { centered }) => [
    { shape: x.shape, rowUnit: x.rowUnit },
    { shape: [blockCount(rowCount(x)), (centered ? 2 : 1) * rowSize(x)], dtype: "f32" },
  ],
  lower({ inputs: [x, w, dy, rstd, ...rest], outputs: [dx, partials], attributes: { centered } }, target) {
    const [mean, addend] = centered ? rest : [undefined, ...rest];
    const columns = rowSize(x);
    const types = [x, w, dy, rstd, mean, addend, dx, partials].map((tensor) => tensor?.dtype);
    const moved = addend ? [x, dy, dx, addend] : [x, dy, dx];
    return rowRanges(target, moved).flatMap((range) => {
      const read = (addend ? [x, dy, addend] : [x, dy]).map((tensor) => windowOf(tensor, range));
      const [readX, readDy, readAddend] = imagesIfFaster(target, read);
      const operandsOfRows = [readDy, windowOf(rstd, range), mean && windowOf(mean, range)];
      const windows = [
        readX,
        windowOf(w),
        ...operandsOfRows,
        readAddend,
        windowOf(dx, range),
        windowOf(partials),
      ];
      const wgsl = declareImages(text, windows);
      const made = heldRowKernel("kernels/norm_gradient.wgsl", wgsl, target.capabilities, columns, 2, types, {
        CENTERED: centered,
      });
      const blockStart = range.start / blockRows;
      const gradient: Dispatch = {
        kernel: made.kernel,
        windows,
        uniforms: [range.count, rowValues(columns), float(columns), addend ? 1 : 0, blockStart],
        workgroups: made.grid(range.count),
        flops: (made.inBlocks ? 19 : 14) * range.count * columns,
        bytes: bytesPerColumn(moved) * range.count * columns,
      };
      if (made.inBlocks) return [gradient];
      const again = [windows[0], ...operandsOfRows, windowOf(partials)];
      const across = vectors(columns);
      const anew = columnKernel(
        "kernels/norm_partials.wgsl",
        declareImages(partialsText, again),
        target.capabilities,
        across,
        4,
        [x, dy, rstd, mean, partials].map((tensor) => tensor?.dtype),
      );
      return [gradient, {
        kernel: anew.kernel,
        windows: again,
        uniforms: [range.count, across.values, blockRows, blockStart, centered ? 1 : 0],
        workgroups: [anew.width, ceilDivide(range.count, blockRows), 1],
        flops: 5 * range.count * columns,
        bytes: bytesPerColumn([x, dy]) * range.count * columns,
      }];
    });
  },
};
