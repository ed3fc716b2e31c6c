/**
 * GELU in its tanh form (Hendrycks and Gimpel, 2016; `gelu_new` of GPT-2):
 * `y = x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2`. Any shape; 8 bytes an element forward, 12 backward.
 * @module
 */

import type { OpDefinition } from "../graph/graph.ts";
import { elementwise } from "./elementwise.ts";
import gradientText from "./gelu_gradient.wgsl" with { type: "text" };
import { geluText } from "./exponentials.ts";
import text from "./gelu.wgsl" with { type: "text" };

/** Input `[x]`, output `[y]`. */
export const gelu: OpDefinition = {
  name: "gelu",
  infer: ([x]) => [{ shape: x.shape, rowUnit: x.rowUnit }],
  gradient(backward, op) {
    const dy = backward.gradientOf(op.outputs[0])!;
    backward.give(op.inputs[0], backward.add(geluGradient, [op.inputs[0], dy], {}, { name: `${op.name}.dinput` })[0]);
  },
  lower: ({ inputs: [x], outputs: [y] }, target) =>
    elementwise(target, "kernels/gelu.wgsl", `${geluText("vec4f")}\n${text}`, [x, y], { flops: 10 }),
};

/** GELU's slope at x times dy. Inputs `[x, dy]`, output `[dx]`. */
export const geluGradient: OpDefinition = {
  name: "geluGradient",
  infer: ([x]) => [{ shape: x.shape, rowUnit: x.rowUnit }],
  lower: ({ inputs: [x, dy], outputs: [dx] }, target) =>
    elementwise(target, "kernels/gelu_gradient.wgsl", `${geluText("vec4f")}\n${gradientText}`, [x, dy, dx], {
      flops: 20,
    }),
};
