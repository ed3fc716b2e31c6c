/**
 * SiLU (Elfwing et al., 2018): `y = x sigmoid(x)`. Any shape; 8 bytes an element forward, 12 backward.
 * @module
 */

import type { OpDefinition } from "../graph/graph.ts";
import { elementwise } from "./elementwise.ts";
import { sigmoidText } from "./exponentials.ts";
import gradientText from "./silu_gradient.wgsl" with { type: "text" };
import text from "./silu.wgsl" with { type: "text" };

/** Input `[x]`, output `[y]`. */
export const silu: OpDefinition = {
  name: "silu",
  infer: ([x]) => [{ shape: x.shape, rowUnit: x.rowUnit }],
  gradient(backward, op) {
    const dy = backward.gradientOf(op.outputs[0])!;
    backward.give(op.inputs[0], backward.add(siluGradient, [op.inputs[0], dy], {}, { name: `${op.name}.dinput` })[0]);
  },
  lower: ({ inputs: [x], outputs: [y] }, target) =>
    elementwise(target, "kernels/silu.wgsl", `${sigmoidText("vec4f")}\n${text}`, [x, y], { flops: 10 }),
};

/** Inputs `[x, dy]`, output `[dx]`. */
const siluGradient: OpDefinition = {
  name: "siluGradient",
  infer: ([x]) => [{ shape: x.shape, rowUnit: x.rowUnit }],
  lower: ({ inputs: [x, dy], outputs: [dx] }, target) =>
    elementwise(target, "kernels/silu_gradient.wgsl", `${sigmoidText("vec4f")}\n${gradientText}`, [x, dy, dx], {
      flops: 20,
    }),
};
