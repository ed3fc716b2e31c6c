/**
 * Rotary position embedding (Su et al., "RoFormer", 2021), halves rotated as in Hugging Face's Llama:
 * `y = [x1 cos - x2 sin, x2 cos + x1 sin]` at angle position · θ^(-2i/D).
 *
 * qkv, y [N, (H + 2 KV) D]: query and key heads are rotated, value heads copied; cos, sin [P, D/2]; start u32 [1].
 * The position of row n is n mod T (+ start). The gradient is the rotation back. 8 bytes an element.
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

/** Inputs `[qkv, cos, sin, start?]`, output `[y]`. */
export const rope: OpDefinition<RopeAttributes> = {
  name: "rope",
  infer: ([x]) => [{ shape: x.shape, rowUnit: x.rowUnit }],
  gradient(backward, op) {
    const dy = backward.gradientOf(op.outputs[0])!;
    const attributes = { ...op.attributes, inverse: !op.attributes.inverse };
    const [dx] = backward.add(rope, [dy, ...op.inputs.slice(1)], attributes, { name: `${op.name}.dinput` });
    backward.give(op.inputs[0], dx);
  },
  lower({ inputs: [x, cosines, sines, start], outputs: [y], attributes }, target) {
    const { heads, keyValueHeads, headSize, sequenceLength, inverse } = attributes;
    const all = heads + 2 * keyValueHeads;
    const wide = headSize % 8 === 0;
    const half = wide ? headSize / 8 : headSize / 2;
    return rowRanges(target, [x, y]).map((range) => {
      const count = range.count * all * half;
      return {
        kernel: kernel("kernels/rope.wgsl", text, { TYPE: wide ? "vec4f" : "f32" }),
        windows: [windowOf(x, range), windowOf(cosines), windowOf(sines), start && windowOf(start), windowOf(y, range)],
        uniforms: [
          count,
          all,
          heads + keyValueHeads,
          half,
          sequenceLength,
          range.start,
          start ? 1 : 0,
          float(inverse ? -1 : 1),
        ],
        workgroups: [ceilDivide(count, 64), 1, 1] as const,
        flops: 3 * range.count * all * headSize,
        bytes: 8 * range.count * all * headSize,
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
