/**
 * Gradients of a norm's weight and bias: `dw[c] += Σ_r dy[r, c] x̂[r, c]`, `db[c] += Σ_r dy[r, c]`, with
 * x̂ = (x - mean) rstd, or x rstd for RMSNorm, which has no mean and no bias. Two stages, as in column_sum.
 * @module
 */

import { ceilDivide, kernel, rowRanges, windowOf } from "../graph/dispatch.ts";
import type { OpDefinition } from "../graph/graph.ts";
import { rowCount, rowSize } from "../graph/tensor.ts";
import { blockCount, blockRows, sumPartials } from "./column_sum.ts";
import text from "./norm_weight_gradient.wgsl" with { type: "text" };

/**
 * Inputs `[x [R, C], mean?, rstd [R], dy [R, C]]`, with `mean` if `centered`. Outputs `[dw [C], db [C], partials]`, or
 * `[dw, partials]` without `centered`; dw and db are accumulated into.
 */
export const normWeightGradient: OpDefinition<{ readonly centered: boolean }> = {
  name: "normWeightGradient",
  infer([x], { centered }) {
    const partials = { shape: [blockCount(rowCount(x)), rowSize(x)] };
    const sum = { shape: [rowSize(x)] };
    return centered ? [sum, sum, partials, partials] : [sum, partials];
  },
  lower({ inputs, outputs, attributes: { centered } }, target) {
    const [x, dy] = [inputs[0], inputs[inputs.length - 1]];
    const rstd = inputs[inputs.length - 2];
    const mean = centered ? inputs[1] : undefined;
    const [dw, db, weightPartials, biasPartials] = centered ? outputs : [outputs[0], undefined, outputs[1], undefined];
    const columns = rowSize(x);
    const wide = columns % 4 === 0;
    const values = wide ? columns / 4 : columns;
    return [
      ...rowRanges(target, [x, dy]).map((range) => ({
        kernel: kernel("kernels/norm_weight_gradient.wgsl", text, { TYPE: wide ? "vec4f" : "f32" }),
        windows: [
          windowOf(x, range),
          mean && windowOf(mean, range),
          windowOf(rstd, range),
          windowOf(dy, range),
          windowOf(weightPartials),
          biasPartials && windowOf(biasPartials),
        ],
        uniforms: [range.count, values, blockRows, range.start / blockRows, centered ? 1 : 0],
        workgroups: [ceilDivide(values, 32), ceilDivide(range.count, blockRows), 1] as const,
        flops: 5 * range.count * columns,
        bytes: 8 * range.count * columns,
      })),
      sumPartials(weightPartials, dw, true),
      ...(db && biasPartials ? [sumPartials(biasPartials, db, true)] : []),
    ];
  },
};
