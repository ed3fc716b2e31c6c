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
  type RowRange,
  rowRanges,
  type Target,
  windowOf,
} from "../graph/dispatch.ts";
import type { OpDefinition } from "../graph/graph.ts";
import { imageOf } from "../graph/images.ts";
import { rowCount, rowSize, type Tensor } from "../graph/tensor.ts";
import { type AttentionAttributes, attentionKernel, type AttentionPart } from "./attention_kernels.ts";

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

/** Halves are stored four at a time. */
function elementType(headSize: number): { dtype?: "f32" } {
  return headSize % 4 === 0 ? {} : { dtype: "f32" };
}

type SequencePart = Exclude<AttentionPart, "prefill">;

/** Which of a kernel's tensors are only read, all rows of a head's vectors. */
const readOnly: Record<SequencePart, readonly number[]> = {
  forward: [0],
  query_gradient: [0, 1, 5],
  key_gradient: [0, 1],
};

function dispatch(
  capabilities: Capabilities,
  part: SequencePart,
  attributes: AttentionAttributes,
  range: RowRange,
  tensors: readonly Tensor[],
  products: number,
): Dispatch {
  const { heads, keyValueHeads, headSize, sequenceLength } = attributes;
  const windows = tensors.map((tensor) => windowOf(tensor, range));
  const pictures = windows.map((window, i) => readOnly[part].includes(i) ? imageOf(window) : window);
  // A group's query heads are numbered through within each position: they read the same keys and values.
  const rows = part === "key_gradient" ? sequenceLength : sequenceLength * heads / keyValueHeads;
  const { kernel, block, images } = attentionKernel(
    capabilities,
    part,
    headSize,
    rows,
    tensors.map(({ dtype }) => dtype),
    pictures.every((window) => window !== undefined),
  );
  return {
    kernel,
    windows: images ? pictures : windows,
    uniforms: [sequenceLength, heads, keyValueHeads, float(1 / Math.sqrt(headSize))],
    workgroups: [ceilDivide(rows, block), keyValueHeads, range.count / sequenceLength],
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
    return [
      { shape: [rows, heads * headSize], rowUnit, ...elementType(headSize) },
      { shape: [rows, heads], rowUnit, dtype: "f32" },
    ];
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
      dispatch(target.capabilities, "forward", attributes, range, [qkv, y, logSumExp], 2)
    );
  },
};

/** Inputs `[qkv, y, logSumExp, dy]`, outputs `[dqkv, delta]`. */
const attentionGradient: OpDefinition<AttentionAttributes> = {
  name: "attentionGradient",
  infer([qkv, y], { heads, headSize, sequenceLength }) {
    const rowUnit = sequenceUnit(sequenceLength);
    return [
      { shape: qkv.shape, rowUnit, ...elementType(headSize) },
      { shape: [rowCount(y), heads], rowUnit, dtype: "f32" },
    ];
  },
  lower({ inputs: [qkv, y, logSumExp, dy], outputs: [dqkv, delta], attributes }, target) {
    const tensors = [qkv, dy, logSumExp, delta, dqkv];
    return sequences(target, [...tensors, y], attributes.sequenceLength).flatMap((range) => [
      dispatch(target.capabilities, "query_gradient", attributes, range, [...tensors, y], 3),
      dispatch(target.capabilities, "key_gradient", attributes, range, tensors, 4),
    ]);
  },
};
