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
import { normWeightGradient } from "./norm_weight_gradient.ts";
import gradientText from "./rmsnorm_gradient.wgsl" with { type: "text" };
import text from "./rmsnorm.wgsl" with { type: "text" };
import { bytesPerColumn, rowValues } from "./rows.ts";

/** Inputs `[x, w]`, outputs `[y, rstd]`. */
export const rmsnorm: OpDefinition<{ readonly epsilon: number }> = {
  name: "rmsnorm",
  infer: ([x]) => [{ shape: x.shape, rowUnit: x.rowUnit }, { shape: [rowCount(x)] }],
  gradient(backward, op) {
    const [x, w] = op.inputs;
    const [y, rstd] = op.outputs;
    const dy = backward.gradientOf(y)!;
    if (w.role === "parameter") {
      backward.add(normWeightGradient, [x, rstd, dy], { centered: false }, {
        name: `${op.name}.dweight`,
        outputs: [backward.accumulator(w)],
      });
    }
    if (!backward.needs(x)) return;
    const addend = backward.take(x);
    const inputs = [x, w, rstd, dy, ...(addend ? [addend] : [])];
    backward.give(x, backward.add(rmsnormGradient, inputs, {}, { name: `${op.name}.dinput` })[0]);
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

/** Inputs `[x, w, rstd, dy, addend?]`, output `[dx]` (+ addend). */
const rmsnormGradient: OpDefinition = {
  name: "rmsnormGradient",
  infer: ([x]) => [{ shape: x.shape, rowUnit: x.rowUnit }],
  lower({ inputs: [x, w, rstd, dy, addend], outputs: [dx] }, target) {
    const columns = rowSize(x);
    const types = [x, w, rstd, dy, addend, dx].map((tensor) => tensor?.dtype);
    const made = heldRowKernel("kernels/rmsnorm_gradient.wgsl", gradientText, target.capabilities, columns, 2, types);
    return rowRanges(target, addend ? [x, dy, dx, addend] : [x, dy, dx]).map((range) => ({
      kernel: made.kernel,
      windows: [
        windowOf(x, range),
        windowOf(w),
        windowOf(rstd, range),
        windowOf(dy, range),
        addend && windowOf(addend, range),
        windowOf(dx, range),
      ],
      uniforms: [range.count, rowValues(columns), float(columns), addend ? 1 : 0],
      workgroups: made.grid(range.count),
      flops: 10 * range.count * columns,
      bytes: bytesPerColumn(addend ? [x, dy, dx, addend] : [x, dy, dx]) * range.count * columns,
    }));
  },
};
