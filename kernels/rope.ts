/**
 * Rotary position embedding (Su et al., "RoFormer", 2021), halves rotated as in Hugging Face's Llama:
 * `y = [x1 cos - x2 sin, x2 cos + x1 sin]` at angle position · θ^(-2i/D).
 *
 * qkv [N, (H + 2 KV) D], whose query and key heads are rotated in place; cos, sin [P, D/2]; start u32 [1].
 * The position of row n is n mod T (+ start). The gradient is the rotation back, in place too. 8 bytes an element rotated.
 *
 * Not a part of attention's loads: there keys would be rotated again for every block of queries, in each of three passes.
 * @module
 */

import { ceilDivide, float, kernel, rowRanges, windowOf } from "../graph/dispatch.ts";
import type { OpDefinition } from "../graph/graph.ts";
import text from "./rope.wgsl" with { type: "text" };

/** Constants. */
export interface RopeAttributes {
  readonly heads: number;
  readonly keyValueHeads: number;
  readonly headSize: number;
  readonly sequenceLength: number;
  /** Rotate back. */
  readonly inverse?: boolean;
  /** The last input is the position of the first row. */
  readonly start?: boolean;
}

/** Inputs `[qkv, cos, sin, start?]`, output `[qkv]`, the same tensor: `outputs: [qkv]`. */
export const rope: OpDefinition<RopeAttributes> = {
  name: "rope",
  infer: ([x]) => [{ shape: x.shape, rowUnit: x.rowUnit }],
  gradient(backward, op) {
    const [x, ...tables] = op.inputs;
    const dx = backward.take(x);
    if (!dx) return;
    const attributes = { ...op.attributes, inverse: !op.attributes.inverse };
    backward.add(rope, [dx, ...tables], attributes, { name: `${op.name}.dinput`, outputs: [dx] });
    backward.give(x, dx);
  },
  lower({ inputs: [x, cosines, sines, start], outputs: [y], attributes }, target) {
    if (x !== y) throw new Error(`${x.name} can only be rotated in place`);
    const { heads, keyValueHeads, headSize, sequenceLength, inverse } = attributes;
    const rotated = heads + keyValueHeads;
    const width = headSize % 8 === 0 ? 4 : headSize % 4 === 0 ? 2 : 1;
    const half = headSize / 2 / width;
    return rowRanges(target, [x]).map((range) => {
      const count = range.count * rotated * half;
      return {
        kernel: kernel("kernels/rope.wgsl", text, { TYPE: width === 1 ? "f32" : `vec${width}f` }, [x.dtype]),
        windows: [windowOf(x, range), windowOf(cosines), windowOf(sines), start && windowOf(start)],
        uniforms: [
          count,
          rotated,
          rotated + keyValueHeads,
          half,
          sequenceLength,
          range.start,
          start ? 1 : 0,
          float(inverse ? -1 : 1),
        ],
        workgroups: [ceilDivide(count, 64), 1, 1] as const,
        flops: 3 * range.count * rotated * headSize,
        bytes: 8 * range.count * rotated * headSize,
      };
    });
  },
};

/** Cosines and sines of every position, `[positions, headSize / 2]` each, computed in double precision. */
export function ropeTables(
  headSize: number,
  positions: number,
  theta: number,
): { cos: Float32Array; sin: Float32Array } {
  const half = headSize / 2;
  const cos = new Float32Array(positions * half);
  const sin = new Float32Array(positions * half);
  for (let i = 0; i < half; i++) {
    const frequency = theta ** (-2 * i / headSize);
    for (let position = 0; position < positions; position++) {
      cos[position * half + i] = Math.cos(position * frequency);
      sin[position * half + i] = Math.sin(position * frequency);
    }
  }
  return { cos, sin };
}
