/**
 * Sum of all elements of a vector, in one workgroup and a fixed order: `sum[0] = Σ x` or `sum[0] += Σ x`.
 * Used by ops as their last stage.
 * @module
 */

import { type Dispatch, kernel, windowOf } from "../graph/dispatch.ts";
import { elementCount, type Tensor } from "../graph/tensor.ts";
import text from "./sum_rows.wgsl" with { type: "text" };

/** The dispatch that sums `x` into `sum` [1]. */
export function sumAll(x: Tensor, sum: Tensor, accumulate: boolean): Dispatch {
  const count = elementCount(x);
  return {
    kernel: kernel("kernels/sum_rows.wgsl", text),
    windows: [windowOf(x), windowOf(sum)],
    uniforms: [count, accumulate ? 1 : 0],
    workgroups: [1, 1, 1],
    flops: count,
    bytes: 4 * count,
  };
}
