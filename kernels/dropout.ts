/**
 * Dropout (Srivastava et al., 2014): `y = x / (1 - p)` with probability 1 - p, else 0.
 *
 * x, y [N, C] with C a multiple of 4; state u32 [4] = (seed, step, global index of the first row, 0). Whether an element
 * is kept is a function of seed, step, site, global row and column alone, so the gradient draws the same mask again, and
 * any split of the rows over devices gives the same. 8 N C bytes.
 * @module
 */

import { ceilDivide, float, kernel, rowRanges, windowOf } from "../graph/dispatch.ts";
import type { OpDefinition } from "../graph/graph.ts";
import { bytesOf, rowSize } from "../graph/tensor.ts";
import text from "./dropout.wgsl" with { type: "text" };

const rotations = [13, 15, 26, 6, 17, 29, 16, 24];
const keys = ["key.x", "key.y", "k2"];
const rounds = Array.from({ length: 5 }, (_, group) => [
  ...Array.from({ length: 4 }, (_, i) => `  x += y; y = rotate(y, ${rotations[(group % 2) * 4 + i]}u) ^ x;`),
  `  x += ${keys[(group + 1) % 3]}; y += ${keys[(group + 2) % 3]} + ${group + 1}u;`,
]).flat().join("\n");

/** Constants. */
export interface DropoutAttributes {
  /** Probability of dropping, 0 ≤ p < 1. */
  readonly probability: number;
  /** Number of this place in the model: different places drop different elements. */
  readonly site: number;
  /** Of all ranks' rows, the one that x begins with; 0 if left out. */
  readonly firstRow?: number;
}

/** Inputs `[x, state]`, output `[y]`. */
export const dropout: OpDefinition<DropoutAttributes> = {
  name: "dropout",
  infer([x], { probability }) {
    if (rowSize(x) % 4 !== 0 || !(probability >= 0 && probability < 1)) {
      throw new RangeError(`dropout ${probability} of [${x.shape}]`);
    }
    return [{ shape: x.shape, rowUnit: x.rowUnit }];
  },
  gradient(backward, op) {
    const dy = backward.gradientOf(op.outputs[0])!;
    const [dx] = backward.add(dropout, [dy, op.inputs[1]], op.attributes, { name: `${op.name}.dinput` });
    backward.give(op.inputs[0], dx);
  },
  lower({ inputs: [x, state], outputs: [y], attributes: { probability, site, firstRow = 0 } }, target) {
    const values = rowSize(x) / 4;
    return rowRanges(target, [x, y]).map((range) => ({
      kernel: kernel("kernels/dropout.wgsl", text, { ROUNDS: rounds }, [x.dtype, state.dtype, y.dtype]),
      windows: [windowOf(x, range), windowOf(state), windowOf(y, range)],
      uniforms: [values, firstRow + range.start, site, Math.floor(probability * 2 ** 32), float(1 / (1 - probability))],
      workgroups: [ceilDivide(values, 64), range.count, 1] as const,
      flops: 40 * range.count * rowSize(x),
      bytes: 2 * bytesOf(x.dtype) * range.count * rowSize(x),
    }));
  },
};
