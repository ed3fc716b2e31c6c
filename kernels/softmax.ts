/**
 * Softmax over the last axis: `y = exp(x - max) / Σ exp(x - max)`. x, y [.., C].
 * Row kernel; 8 bytes an element from memory forward, 12 backward.
 * @module
 */

import { type Dispatch, rowRanges, type Target, windowOf } from "../graph/dispatch.ts";
import type { OpDefinition } from "../graph/graph.ts";
import { rowSize, type Tensor } from "../graph/tensor.ts";
import { heldRowKernel } from "./held_rows.ts";
import { bytesPerColumn, rowValues } from "./rows.ts";
import gradientText from "./softmax_gradient.wgsl" with { type: "text" };
import text from "./softmax.wgsl" with { type: "text" };

function dispatches(target: Target, file: string, wgsl: string, tensors: Tensor[]): Dispatch[] {
  const columns = rowSize(tensors[0]);
  const types = tensors.map(({ dtype }) => dtype);
  const made = heldRowKernel(file, wgsl, target.capabilities, columns, tensors.length - 1, types);
  return rowRanges(target, tensors).map((range) => ({
    kernel: made.kernel,
    windows: tensors.map((tensor) => windowOf(tensor, range)),
    uniforms: [range.count, rowValues(columns)],
    workgroups: made.grid(range.count),
    flops: 8 * range.count * columns,
    bytes: bytesPerColumn(tensors) * range.count * columns,
  }));
}

/** Input `[x]`, output `[y]`. */
export const softmax: OpDefinition = {
  name: "softmax",
  infer: ([x]) => [{ shape: x.shape, rowUnit: x.rowUnit }],
  gradient(backward, op) {
    const [y] = op.outputs;
    const [dx] = backward.add(softmaxGradient, [y, backward.gradientOf(y)!], {}, { name: `${op.name}.dinput` });
    backward.give(op.inputs[0], dx);
  },
  lower: ({ inputs: [x], outputs: [y] }, target) => dispatches(target, "kernels/softmax.wgsl", text, [x, y]),
};

/** Inputs `[y, dy]`, output `[dx]`. */
const softmaxGradient: OpDefinition = {
  name: "softmaxGradient",
  infer: ([y]) => [{ shape: y.shape, rowUnit: y.rowUnit }],
  lower: ({ inputs: [y, dy], outputs: [dx] }, target) =>
    dispatches(target, "kernels/softmax_gradient.wgsl", gradientText, [y, dy, dx]),
};
