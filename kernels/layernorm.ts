/**
 * Layer norm (Ba et al., 2016): `y = (x - mean) rstd w + b`, rstd = 1 / sqrt(variance + epsilon), over the last axis.
 *
 * x, y [.., C]; w, b [C]; mean, rstd [N]. The variance is that of x - mean. Row kernel; 8 N C flops, x is read
 * and y written once (longer rows than registers hold are read three times, twice from the cache).
 * @module
 */

import { float, rowRanges, windowOf } from "../graph/dispatch.ts";
import type { OpDefinition } from "../graph/graph.ts";
import { declareImages, imageIfFaster } from "../graph/images.ts";
import { rowCount, rowSize, type Tensor } from "../graph/tensor.ts";
import { heldRowKernel } from "./held_rows.ts";
import gradientText from "./layernorm_gradient.wgsl" with { type: "text" };
import text from "./layernorm.wgsl" with { type: "text" };
import { normWeightGradient } from "./norm_weight_gradient.ts";
import { bytesPerColumn, rowValues } from "./rows.ts";

/** Inputs `[x, w, b]`, outputs `[y, mean, rstd]`. */
export const layernorm: OpDefinition<{ readonly epsilon: number }> = {
  name: "layernorm",
  infer: ([x]) => [{ shape: x.shape, rowUnit: x.rowUnit }, { shape: [rowCount(x)] }, { shape: [rowCount(x)] }],
  gradient(backward, op) {
    const [x, w, b] = op.inputs;
    const [y, mean, rstd] = op.outputs;
    const dy = backward.gradientOf(y)!;
    if (w.role === "parameter" && b.role === "parameter") {
      backward.add(normWeightGradient, [x, mean, rstd, dy], { centered: true }, {
        name: `${op.name}.dweight`,
        outputs: [backward.accumulator(w), backward.accumulator(b)],
      });
    }
    if (!backward.needs(x)) return;
    const addend = backward.take(x);
    const inputs = [x, w, mean, rstd, dy, ...(addend ? [addend] : [])];
    backward.give(x, backward.add(layernormGradient, inputs, {}, { name: `${op.name}.dinput` })[0]);
  },
  lower({ inputs: [x, w, b], outputs: [y, mean, rstd], attributes: { epsilon } }, target) {
    const columns = rowSize(x);
    const types = [x, w, b, y].map(({ dtype }) => dtype);
    const made = heldRowKernel("kernels/layernorm.wgsl", text, target.capabilities, columns, 1, types);
    return rowRanges(target, [x, y]).map((range) => ({
      kernel: made.kernel,
      windows: [
        windowOf(x, range),
        windowOf(w),
        windowOf(b),
        windowOf(y, range),
        windowOf(mean, range),
        windowOf(rstd, range),
      ],
      uniforms: [range.count, rowValues(columns), float(columns), float(epsilon)],
      workgroups: made.grid(range.count),
      flops: 8 * range.count * columns,
      bytes: bytesPerColumn([x, y]) * range.count * columns,
    }));
  },
};

/** Inputs `[x, w, mean, rstd, dy, addend?]`, output `[dx]` (+ addend). */
const layernormGradient: OpDefinition = {
  name: "layernormGradient",
  infer: ([x]) => [{ shape: x.shape, rowUnit: x.rowUnit }],
  lower({ inputs: [x, w, mean, rstd, dy, addend], outputs: [dx] }, target) {
    const columns = rowSize(x);
    const types = [x, w, mean, rstd, dy, addend, dx].map((tensor) => tensor?.dtype);
    return rowRanges(target, addend ? [x, dy, dx, addend] : [x, dy, dx]).map((range) => {
      const read = (tensor: Tensor) => imageIfFaster(target, windowOf(tensor, range));
      const windows = [
        read(x),
        windowOf(w),
        windowOf(mean, range),
        windowOf(rstd, range),
        read(dy),
        addend && read(addend),
        windowOf(dx, range),
      ];
      const wgsl = declareImages(gradientText, windows);
      const made = heldRowKernel("kernels/layernorm_gradient.wgsl", wgsl, target.capabilities, columns, 2, types);
      return {
        kernel: made.kernel,
        windows,
        uniforms: [range.count, rowValues(columns), float(columns), addend ? 1 : 0],
        workgroups: made.grid(range.count),
        flops: 14 * range.count * columns,
        bytes: bytesPerColumn(addend ? [x, dy, dx, addend] : [x, dy, dx]) * range.count * columns,
      };
    });
  },
};
