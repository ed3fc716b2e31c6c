/**
 * `y += x`, over flat tensors: sums of gradients in place. 12 bytes an element.
 * @module
 */

import type { OpDefinition } from "../graph/graph.ts";
import { elementwise } from "./elementwise.ts";
import text from "./accumulate.wgsl" with { type: "text" };

/** Inputs `[x, y]`, output `[y]`, given. */
export const accumulate: OpDefinition = {
  name: "accumulate",
  infer: ([, y]) => [{ shape: y.shape }],
  lower: ({ inputs: [x, y] }, target) =>
    elementwise(target, "kernels/accumulate.wgsl", text, [x, y], { flops: 1, bytes: 12 }),
};
