/**
 * `x = 0`, over flat tensors: gradients that no optimizer step has zeroed. 4 bytes an element.
 * @module
 */

import type { OpDefinition } from "../graph/graph.ts";
import { elementwise } from "./elementwise.ts";
import text from "./fill_zero.wgsl" with { type: "text" };

/** Output `[x]`, given. */
export const fillZero: OpDefinition<{ readonly shape: readonly number[] }> = {
  name: "fillZero",
  infer: (_, { shape }) => [{ shape }],
  lower: ({ outputs: [x] }, target) => elementwise(target, "kernels/fill_zero.wgsl", text, [x], { flops: 0 }),
};
