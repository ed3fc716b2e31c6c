/**
 * Causal self-attention without a T x T matrix, forward and backward (Dao, "FlashAttention-2", 2023):
 * `y = softmax(q kᵀ / √D, causal) v`, query head h reading key/value head ⌊h / (H / KV)⌋.
 *
 * qkv [B T, (H + 2 KV) D] holds the query heads' columns, then the key heads', then the value heads'; y [B T, H D];
 * logSumExp, delta [B T, H]. 2 B H T² D flops forward and 5 B H T² D backward, counted causally.
 * @module
 */

import type { Capabilities } from "../gpu/capabilities.ts";
import {
  ceilDivide,
  type Dispatch,
  float,
  kernel,
  type RowRange,
  rowRanges,
  type Target,
  windowOf,
} from "../graph/dispatch.ts";
import type { OpDefinition } from "../graph/graph.ts";
import { rowCount, rowSize, type Tensor } from "../graph/tensor.ts";
import { attentionKernel, type AttentionPart } from "./attention_kernels.ts";
import deltaText from "./attention_delta.wgsl" with { type: "text" };

/** Constants. */
export interface AttentionAttributes {
  readonly heads: number;
  readonly keyValueHeads: number;
  readonly headSize: number;
  /** Rows of a sequence; the number of rows is a multiple of it. */
  readonly sequenceLength: number;
}

/** The `rowUnit` of operands: sequences must not be cut, nor rows so that a window is not aligned. */
export function sequenceUnit(sequenceLength: number): number {
  let unit = sequenceLength;
  while (unit % 64 !== 0) unit *= 2;
  return unit;
}

function sequences(target: Target, tensors: readonly Tensor[], sequenceLength: number): RowRange[] {
  const ranges = rowRanges(target, tensors);
  for (const { start, count } of ranges) {
    if (start % sequenceLength !== 0 || count % sequenceLength !== 0) {
      throw new Error(`Rows ${start} to ${start + count} of ${tensors[0].name} are no whole sequences`);
    }
  }
  return ranges;
}

function dispatch(
  capabilities: Capabilities,
  part: AttentionPart,
  attributes: AttentionAttributes,
  range: RowRange,
  windows: Dispatch["windows"],
  products: number,
): Dispatch {
  const { heads, keyValueHeads, headSize, sequenceLength } = attributes;
  const { kernel: made, threads } = attentionKernel(capabilities, part, headSize);
  return {
    kernel: made,
    windows,
    uniforms: [sequenceLength, heads, keyValueHeads, float(1 / Math.sqrt(headSize))],
    workgroups: [
      ceilDivide(sequenceLength, threads),
      part === "key_gradient" ? keyValueHeads : heads,
      range.count / sequenceLength,
    ],
    flops: products * heads * range.count * sequenceLength * headSize,
    bytes: 4 * range.count * (heads + 2 * keyValueHeads) * headSize,
  };
}

/** Input `[qkv]`, outputs `[y, logSumExp]`. */
export const attention: OpDefinition<AttentionAttributes> = {
  name: "attention",
  infer([qkv], { heads, keyValueHeads, headSize, sequenceLength }) {
    const rows = rowCount(qkv);
    if (rowSize(qkv) !== (heads + 2 * keyValueHeads) * headSize || rows % sequenceLength !== 0) {
      throw new RangeError(`attention of [${qkv.shape}]: ${heads} heads of ${headSize} on ${keyValueHeads}`);
    }
    const rowUnit = sequenceUnit(sequenceLength);
    return [{ shape: [rows, heads * headSize], rowUnit }, { shape: [rows, heads], rowUnit }];
  },
  gradient(backward, op) {
    const [y, logSumExp] = op.outputs;
    const inputs = [op.inputs[0], y, logSumExp, backward.gradientOf(y)!];
    backward.give(
      op.inputs[0],
      backward.add(attentionGradient, inputs, op.attributes, { name: `${op.name}.dinput` })[0],
    );
  },
  lower({ inputs: [qkv], outputs: [y, logSumExp], attributes }, target) {
    return sequences(target, [qkv, y, logSumExp], attributes.sequenceLength).map((range) =>
      dispatch(target.capabilities, "forward", attributes, range, [
        windowOf(qkv, range),
        windowOf(y, range),
        windowOf(logSumExp, range),
      ], 2)
    );
  },
};

/** Inputs `[qkv, y, logSumExp, dy]`, outputs `[dqkv, delta]`. */
const attentionGradient: OpDefinition<AttentionAttributes> = {
  name: "attentionGradient",
  infer([qkv, y], { heads, sequenceLength }) {
    const rowUnit = sequenceUnit(sequenceLength);
    return [{ shape: qkv.shape, rowUnit }, { shape: [rowCount(y), heads], rowUnit }];
  },
  lower({ inputs: [qkv, y, logSumExp, dy], outputs: [dqkv, delta], attributes }, target) {
    const { heads, headSize, sequenceLength } = attributes;
    const wide = headSize % 4 === 0;
    const tensors = [qkv, y, logSumExp, dy, dqkv, delta];
    return sequences(target, tensors, sequenceLength).flatMap((range): Dispatch[] => {
      const count = range.count * heads;
      const windows = [qkv, dy, logSumExp, delta, dqkv].map((tensor) => windowOf(tensor, range));
      return [
        {
          kernel: kernel("kernels/attention_delta.wgsl", deltaText, {
            TYPE: wide ? "vec4f" : "f32",
            WIDTH: wide ? 4 : 1,
            TOTAL: wide ? "(sum.x + sum.y) + (sum.z + sum.w)" : "sum",
          }),
          windows: [windowOf(y, range), windowOf(dy, range), windowOf(delta, range)],
          uniforms: [count, headSize],
          workgroups: [ceilDivide(count, 32), 1, 1],
          flops: 2 * count * headSize,
          bytes: 8 * count * headSize,
        },
        dispatch(target.capabilities, "query_gradient", attributes, range, windows, 3),
        dispatch(target.capabilities, "key_gradient", attributes, range, windows, 4),
      ];
    });
  },
};
