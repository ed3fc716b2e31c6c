/**
 * Gradients of a norm's weight and bias: `dw[c] += Σ_r dy[r, c] x̂[r, c]`, `db[c] += Σ_r dy[r, c]`, with
 * x̂ = (x - mean) rstd, or x rstd for RMSNorm, which has no mean and no bias. Two stages, as in column_sum.
 * @module
 */

import { ceilDivide, rowRanges, windowOf } from "../graph/dispatch.ts";
import type { OpDefinition } from "../graph/graph.ts";
import { declareImages, imageIfFaster } from "../graph/images.ts";
import { bytesOf, rowCount, rowSize } from "../graph/tensor.ts";
import { blockCount, blockRows, columnKernel, sumPartials, vectors } from "./column_sum.ts";
import text from "./norm_weight_gradient.wgsl" with { type: "text" };

/**
 * Inputs `[x [R, C], mean?, rstd [R], dy [R, C]]`, with `mean` if `centered`. Outputs `[dw [C], db [C], partials]`, or
 * `[dw, partials]` without `centered`; dw and db are accumulated into.
 */
export const normWeightGradient: OpDefinition<{ readonly centered: boolean }> = {
  name: "normWeightGradient",
  infer([x], { centered }) {
    const sums = Array.from({ length: centered ? 2 : 1 }, () => ({ shape: [rowSize(x)] }));
    return [...sums, { shape: [blockCount(rowCount(x)), sums.length * rowSize(x)], dtype: "f32" }];
  },
  lower({ inputs, outputs, attributes: { centered } }, target) {
    const [x, dy] = [inputs[0], inputs[inputs.length - 1]];
    const rstd = inputs[inputs.length - 2];
    const mean = centered ? inputs[1] : undefined;
    const [sums, partials] = [outputs.slice(0, -1), outputs[outputs.length - 1]];
    const columns = rowSize(x);
    const across = vectors(columns);
    const types = [x.dtype, undefined, undefined, dy.dtype];
    return [
      ...rowRanges(target, [x, dy]).map((range) => {
        const windows = [
          imageIfFaster(target, windowOf(x, range)),
          mean && windowOf(mean, range),
          windowOf(rstd, range),
          imageIfFaster(target, windowOf(dy, range)),
          windowOf(partials),
        ];
        const wgsl = declareImages(text, windows);
        const file = "kernels/norm_weight_gradient.wgsl";
        const made = columnKernel(file, wgsl, target.capabilities, across, 4, types);
        return {
          kernel: made.kernel,
          windows,
          uniforms: [range.count, across.values, blockRows, range.start / blockRows, centered ? 1 : 0],
          workgroups: [made.width, ceilDivide(range.count, blockRows), 1] as const,
          flops: 5 * range.count * columns,
          bytes: (bytesOf(x.dtype) + bytesOf(dy.dtype)) * range.count * columns,
        };
      }),
      sumPartials(target, partials, sums, true),
    ];
  },
};
