/**
 * Sum of squares over any number of tensors, for the global gradient norm: `sum[0] = Σ x²`.
 *
 * Two stages, both in a fixed order: a partial per 4,096 elements, in one dispatch for as many pieces of memory as a kernel
 * can bind, then their sum. 4 bytes an element. Padding behind a tensor's last element must be zero, as it is in banks.
 * @module
 */

import { ceilDivide, type Dispatch, kernel, rowRanges, type Target, type Window, windowOf } from "../graph/dispatch.ts";
import { clip, type Run } from "../graph/collective.ts";
import type { OpDefinition } from "../graph/graph.ts";
import { bytesOf, elementCount, rowSize, type Tensor } from "../graph/tensor.ts";
import { reductions } from "./reductions.ts";
import text from "./sum_of_squares.wgsl" with { type: "text" };
import { sumAll } from "./sum_rows.ts";
import { unroll } from "./unroll.ts";

const elementsPerGroup = 4096;
/** A tensor may be cut into this many more pieces than its size asks for. */
const sparePartials = 8;
/** Pieces that one dispatch takes at most: with more, the loads of all of them take long to compile. */
const mostPieces = 7;

/** Constants. */
export interface SumOfSquaresAttributes {
  /** Elements that count, for each input, in runs that begin at multiples of 64; all if left out. */
  readonly runs?: readonly (readonly Run[])[];
}

/** The dispatch that sums pieces of tensors into partials from `first` on. */
function stage({ capabilities }: Target, pieces: readonly Window[], partials: Tensor, first: number): Dispatch {
  const { type, subgroupSize } = capabilities;
  const inSubgroup = type === "cpu" && subgroupSize >= 4 && subgroupSize <= 64;
  const lanes = inSubgroup ? subgroupSize : 64;
  const types = [partials, ...pieces.map(({ tensor }) => tensor)].map(({ dtype }) => dtype);
  const made = kernel("kernels/sum_of_squares.wgsl", unroll(text, pieces.length, ""), {
    TENSORS: ["{{storage 1 partials f32}}", ...pieces.map((_, i) => `{{storage ${i + 2} x${i} vec4f}}`)].join("\n"),
    REDUCTIONS: reductions(lanes, !inSubgroup),
    LANES: lanes,
    VECTORS: elementsPerGroup / 4,
  }, types);
  const uniforms = [first];
  let groups = 0;
  for (const { length } of pieces) {
    const own = ceilDivide(length, elementsPerGroup);
    uniforms.push(ceilDivide(length, 4), groups, own);
    groups += own;
  }
  const elements = pieces.reduce((sum, { length }) => sum + length, 0);
  return {
    kernel: made,
    windows: [windowOf(partials), ...pieces],
    uniforms,
    workgroups: [groups, 1, 1],
    flops: 2 * elements,
    bytes: pieces.reduce((sum, { tensor, length }) => sum + bytesOf(tensor.dtype) * length, 0),
  };
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
    const pieces = inputs.flatMap((x, i) =>
      rowRanges(target, [x]).flatMap(({ start, count }) => {
        const part = { start: start * rowSize(x), length: count * rowSize(x) };
        return runs ? clip(part, runs[i]) : [part];
      }).map(({ start, length }): Window => ({ tensor: x, start, length }))
    );
    const most = Math.min(mostPieces, target.capabilities.storageBuffers - 1);
    const stages: Dispatch[] = [];
    let used = 0;
    for (let i = 0; i < pieces.length; i += most) {
      const made = stage(target, pieces.slice(i, i + most), partials, used);
      used += made.workgroups[0];
      stages.push(made);
    }
    if (used > elementCount(partials)) throw new Error(`sumOfSquares needs ${used} partials`);
    const last = sumAll(partials, sum, false);
    return [...stages, { ...last, uniforms: [used, 0] }];
  },
};
