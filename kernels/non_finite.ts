/**
 * Counts the elements of tensors that are NaN or infinite: `found[i] += |{ x_i not finite }|`.
 *
 * Inputs: f32 tensors. Output: found u32 [64 n], one counter per input, 256 bytes apart. For diagnosis, not for the hot path. 4 bytes an element.
 * @module
 */

import { ceilDivide, kernel, rowRanges, windowOf } from "../graph/dispatch.ts";
import type { OpDefinition } from "../graph/graph.ts";
import { rowSize } from "../graph/tensor.ts";
import text from "./non_finite.wgsl" with { type: "text" };

/** Distance of two counters, in elements. */
export const counterStride = 64;

/** The op. */
export const nonFinite: OpDefinition = {
  name: "nonFinite",
  infer: (inputs) => [{ shape: [inputs.length * counterStride], dtype: "u32" }],
  lower: ({ inputs, outputs: [found] }, target) =>
    inputs.flatMap((x, i) =>
      rowRanges(target, [x]).map((range) => {
        const count = range.count * rowSize(x);
        return {
          kernel: kernel("kernels/non_finite.wgsl", text),
          windows: [windowOf(x, range), windowOf(found, { start: i * counterStride, count: counterStride })],
          uniforms: [count],
          workgroups: [ceilDivide(count, 256), 1, 1] as const,
          flops: count,
          bytes: 4 * count,
        };
      })
    ),
};
