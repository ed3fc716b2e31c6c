/**
 * RMS norm (Zhang and Sennrich, 2019): `y = x rstd w`, rstd = 1 / sqrt(mean(x²) + epsilon), over the last axis.
 *
 * x, y [.., C]; w [C]; rstd [N]. Row kernel; 4 N C flops, x is read and y written once.
 * @module
 */

import { float, rowRanges, windowOf } from "../graph/dispatch.ts";
import type { OpDefinition } from "../graph/graph.ts";
import { rowCount, rowSize } from "../graph/tensor.ts";
import { heldRowKernel } from "./held_rows.ts";
import { differentiateNorm } from "./norm_gradient.ts";
import text from "./rmsnorm.wgsl" with { type: "text" };
import { bytesPerColumn, rowValues } from "./rows.ts";

/** Inputs `[x, w]`, outputs `[y, rstd]`. */
export const rmsnorm: OpDefinition<{ readonly epsilon: number }> = {
  name: "rmsnorm",
  infer: ([x]) => [{ shape: x.shape, rowUnit: x.rowUnit }, { shape: [rowCount(x)] }],
  gradient(backward, op) {
    differentiateNorm(backward, op, op.outputs[1]);
  },
  lower({ inputs: [x, w], outputs: [y, rstd], attributes: { epsilon } }, target) {
    const columns = rowSize(x);
    const types = [x, w, y].map(({ dtype }) => dtype);
    const made = heldRowKernel("kernels/rmsnorm.wgsl", text, target.capabilities, columns, 1, types);
    return rowRanges(target, [x, y]).map((range) => ({
      kernel: made.kernel,
      windows: [windowOf(x, range), windowOf(w), windowOf(y, range), windowOf(rstd, range)],
      uniforms: [range.count, rowValues(columns), float(columns), float(epsilon)],
      workgroups: made.grid(range.count),
      flops: 4 * range.count * columns,
      bytes: bytesPerColumn([x, y]) * range.count * columns,
    }));
  },
};
