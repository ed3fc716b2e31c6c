/**
 * Sum of two tensors of one shape: `y = a + b`. 12 bytes an element. Its gradient is the gradient of y, for both.
 * @module
 */

import type { Graph, OpDefinition } from "../graph/graph.ts";
import type { Tensor } from "../graph/tensor.ts";
import { elementwise } from "./elementwise.ts";
import text from "./residual_add.wgsl" with { type: "text" };

/** Inputs `[a, b]`, output `[y]`. */
export const residualAdd: OpDefinition = {
  name: "residualAdd",
  infer: ([a]) => [{ shape: a.shape, rowUnit: a.rowUnit }],
  gradient(backward, op) {
    const dy = backward.gradientOf(op.outputs[0])!;
    for (const input of op.inputs) if (backward.needs(input)) backward.give(input, dy);
  },
  lower: ({ inputs: [a, b], outputs: [y] }, target) =>
    elementwise(target, "kernels/residual_add.wgsl", text, [a, b, y], { flops: 1 }),
};

/** Appends the sum of two gradients. */
export function addTensors(graph: Graph, a: Tensor, b: Tensor): Tensor {
  return graph.add(residualAdd, [a, b], {}, { name: `${a.name}+` })[0];
}
