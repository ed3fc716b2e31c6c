/**
 * SwiGLU (Shazeer, "GLU Variants Improve Transformer", 2020): `y = silu(gate) up`.
 *
 * gateUp [N, 2 I] holds the gate's columns, then up's; y [N, I]. 12 bytes an element of y forward, 20 backward.
 * @module
 */

import { ceilDivide, type Dispatch, kernel, rowRanges, type Target, windowOf } from "../graph/dispatch.ts";
import type { OpDefinition } from "../graph/graph.ts";
import { bytesOf, rowSize, type Tensor } from "../graph/tensor.ts";
import { sigmoidText } from "./exponentials.ts";
import gradientText from "./swiglu_gradient.wgsl" with { type: "text" };
import text from "./swiglu.wgsl" with { type: "text" };

function dispatches(target: Target, file: string, wgsl: string, tensors: Tensor[], inner: number): Dispatch[] {
  const wide = inner % 4 === 0;
  const type = wide ? "vec4f" : "f32";
  const values = wide ? inner / 4 : inner;
  return rowRanges(target, tensors).map((range) => ({
    kernel: kernel(file, `${sigmoidText(type)}\n${wgsl}`, { TYPE: type }, tensors.map(({ dtype }) => dtype)),
    windows: tensors.map((tensor) => windowOf(tensor, range)),
    uniforms: [values],
    workgroups: [ceilDivide(values, 64), range.count, 1],
    flops: 10 * range.count * inner,
    bytes: range.count * tensors.reduce((sum, tensor) => sum + bytesOf(tensor.dtype) * rowSize(tensor), 0),
  }));
}

/** Input `[gateUp]`, output `[y]`. */
export const swiglu: OpDefinition = {
  name: "swiglu",
  infer([gateUp]) {
    if (rowSize(gateUp) % 2 !== 0) throw new RangeError(`swiglu of [${gateUp.shape}]`);
    return [{ shape: [...gateUp.shape.slice(0, -1), rowSize(gateUp) / 2], rowUnit: gateUp.rowUnit }];
  },
  gradient(backward, op) {
    const dy = backward.gradientOf(op.outputs[0])!;
    const [d] = backward.add(swigluGradient, [op.inputs[0], dy], {}, { name: `${op.name}.dinput` });
    backward.give(op.inputs[0], d);
  },
  lower: ({ inputs: [gateUp], outputs: [y] }, target) =>
    dispatches(target, "kernels/swiglu.wgsl", text, [gateUp, y], rowSize(y)),
};

/** Inputs `[gateUp, dy]`, output `[dGateUp]`. */
const swigluGradient: OpDefinition = {
  name: "swigluGradient",
  // A thread stores halves four at a time, and has them of the gate or of up.
  infer: ([gateUp]) => [{
    shape: gateUp.shape,
    rowUnit: gateUp.rowUnit,
    ...(rowSize(gateUp) % 8 === 0 ? {} : { dtype: "f32" }),
  }],
  lower: ({ inputs: [gateUp, dy], outputs: [dGateUp] }, target) =>
    dispatches(target, "kernels/swiglu_gradient.wgsl", gradientText, [gateUp, dy, dGateUp], rowSize(dy)),
};
