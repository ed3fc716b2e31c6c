/**
 * Sum of squares over any number of tensors, for the global gradient norm: `sum[0] = Σ x²`.
 *
 * Two stages: a partial per 4,096 elements, then their sum, both in a fixed order. 4 bytes an element. Padding behind a
 * tensor's last element must be zero, as it is in banks.
 * @module
 */

import { ceilDivide, kernel, rowRanges, windowOf } from "../graph/dispatch.ts";
import { clip, type Run } from "../graph/collective.ts";
import type { OpDefinition } from "../graph/graph.ts";
import { elementCount, rowSize } from "../graph/tensor.ts";
import text from "./sum_of_squares.wgsl" with { type: "text" };
import { sumAll } from "./sum_rows.ts";

const vectorsPerThread = 16;
const elementsPerGroup = 64 * 4 * vectorsPerThread;
/** A tensor may be cut into this many more pieces than its size asks for. */
const sparePartials = 8;

/** Constants. */
export interface SumOfSquaresAttributes {
  /** Elements that count, for each input, in runs that begin at multiples of 64; all if left out. */
  readonly runs?: readonly (readonly Run[])[];
}

/** Inputs: the tensors. Outputs `[sum [1], partials]`. */
export const sumOfSquares: OpDefinition<SumOfSquaresAttributes> = {
  name: "sumOfSquares",
  infer(inputs, { runs }) {
    const partials = inputs.reduce((sum, x, i) => {
      const spare = sparePartials * (1 + (runs?.[i].length ?? 0));
      return sum + ceilDivide(elementCount(x), elementsPerGroup) + spare;
    }, 0);
    return [{ shape: [1] }, { shape: [Math.ceil(partials / 4) * 4] }];
  },
  lower({ inputs, outputs: [sum, partials], attributes: { runs } }, target) {
    let used = 0;
    const stages = inputs.flatMap((x, i) =>
      rowRanges(target, [x]).flatMap(({ start, count }) => {
        const part = { start, length: count };
        return runs ? clip(part, runs[i]) : [part];
      }).map(({ start, length }) => {
        const range = { start, count: length };
        const elements = range.count * rowSize(x);
        const groups = ceilDivide(elements, elementsPerGroup);
        const firstPartial = used;
        used += groups;
        return {
          kernel: kernel("kernels/sum_of_squares.wgsl", text),
          windows: [windowOf(x, range), windowOf(partials)],
          uniforms: [ceilDivide(elements, 4), firstPartial, vectorsPerThread],
          workgroups: [groups, 1, 1] as const,
          flops: 2 * elements,
          bytes: 4 * elements,
        };
      })
    );
    if (used > elementCount(partials)) throw new Error(`sumOfSquares needs ${used} partials`);
    const last = sumAll(partials, sum, false);
    return [...stages, { ...last, uniforms: [used, 0] }];
  },
};
