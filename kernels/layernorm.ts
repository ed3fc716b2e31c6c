/**
 * Layer norm (Ba et al., 2016): `y = (x - mean) rstd w + b`, rstd = 1 / sqrt(variance + epsilon), over the last axis.
 *
 * x, y [.., C]; w, b [C]; mean, rstd [N]. The variance is that of x - mean. Row kernel; 8 N C flops, x is read
 * and y written once (longer rows than registers hold are read three times, twice from the cache).
 * @module
 */

import { float, rowRanges, windowOf } from "../graph/dispatch.ts";
import type { OpDefinition } from "../graph/graph.ts";
import { declareImages, imagesIfFaster } from "../graph/images.ts";
import { rowCount, rowSize } from "../graph/tensor.ts";
import { heldRowKernel } from "./held_rows.ts";
import text from "./layernorm.wgsl" with { type: "text" };
import { differentiateNorm } from "./norm_gradient.ts";
import { bytesPerColumn, rowValues } from "./rows.ts";

/** Inputs `[x, w, b]`, outputs `[y, mean, rstd]`. */
export const layernorm: OpDefinition<{ readonly epsilon: number }> = {
  name: "layernorm",
  infer: ([x]) => [{ shape: x.shape, rowUnit: x.rowUnit }, { shape: [rowCount(x)] }, { shape: [rowCount(x)] }],
  gradient(backward, op) {
    const [, mean, rstd] = op.outputs;
    differentiateNorm(backward, op, rstd, mean);
  },
  lower({ inputs: [x, w, b], outputs: [y, mean, rstd], attributes: { epsilon } }, target) {
    const columns = rowSize(x);
    const types = [x, w, b, y].map(({ dtype }) => dtype);
    return rowRanges(target, [x, y]).map((range) => {
      const windows = [
        ...imagesIfFaster(target, [windowOf(x, range)]),
        windowOf(w),
        windowOf(b),
        windowOf(y, range),
        windowOf(mean, range),
        windowOf(rstd, range),
      ];
      const wgsl = declareImages(text, windows);
      const made = heldRowKernel("kernels/layernorm.wgsl", wgsl, target.capabilities, columns, 1, types);
      return {
        kernel: made.kernel,
        windows,
        uniforms: [range.count, rowValues(columns), float(columns), float(epsilon)],
        workgroups: made.grid(range.count),
        flops: 8 * range.count * columns,
        bytes: bytesPerColumn([x, y]) * range.count * columns,
      };
    });
  },
};
