/**
 * Attention of new tokens over a cache of keys and values: stores the tokens' own, then attends from each row over
 * positions 0 to its own. One row is decoding, a block of several is prefill.
 *
 * qkv [rows, (H + 2 KV) D]; position u32 [1], of the first row; y [rows, H D]; caches [P, KV D]. Head sizes up to 256.
 * 4 H D position flops a row.
 * @module
 */

import { ceilDivide, type Dispatch, float, kernel, windowOf } from "../graph/dispatch.ts";
import type { OpDefinition } from "../graph/graph.ts";
import { bytesOf, rowCount } from "../graph/tensor.ts";
import cacheText from "./attention_cache.wgsl" with { type: "text" };
import text from "./attention_decode.wgsl" with { type: "text" };
import { attentionKernel } from "./attention_kernels.ts";

/** Constants. */
export interface AttentionDecodeAttributes {
  readonly heads: number;
  readonly keyValueHeads: number;
  readonly headSize: number;
  /** Positions that the caches hold. */
  readonly positions: number;
}

/** Inputs `[qkv, position]`, outputs `[y, keyCache, valueCache]`; the caches are given and keep what earlier runs wrote. */
export const attentionDecode: OpDefinition<AttentionDecodeAttributes> = {
  name: "attentionDecode",
  infer([qkv], { heads, keyValueHeads, headSize, positions }) {
    if (headSize > 256) throw new RangeError(`Heads of ${headSize} are larger than 256`);
    const rows = rowCount(qkv);
    const cache = { shape: [positions, keyValueHeads * headSize] };
    // Halves are stored four at a time; a thread that decodes has single elements.
    const single = rows === 1 || headSize % 4 !== 0;
    return [{ shape: [rows, heads * headSize], ...(single ? { dtype: "f32" as const } : {}) }, cache, cache];
  },
  lower({ inputs: [qkv, position], outputs: [y, keys, values], attributes }, { capabilities }): Dispatch[] {
    const { heads, keyValueHeads, headSize, positions } = attributes;
    const rows = rowCount(qkv);
    const width = keyValueHeads * headSize;
    const tensors = [qkv, position, keys, values, y];
    const types = tensors.map(({ dtype }) => dtype);
    const vector = headSize % 4 === 0 ? 4 : 1;
    const scale = float(1 / Math.sqrt(headSize));
    const store: Dispatch = {
      kernel: kernel(
        "kernels/attention_cache.wgsl",
        cacheText,
        { TYPE: vector === 4 ? "vec4f" : "f32" },
        types.slice(0, 4),
      ),
      windows: tensors.slice(0, 4).map((tensor) => windowOf(tensor)),
      uniforms: [heads * headSize / vector, width / vector],
      workgroups: [ceilDivide(width / vector, 64), rows, 1],
      flops: 0,
      bytes: 2 * rows * width * (bytesOf(qkv.dtype) + bytesOf(keys.dtype)),
    };
    const work = {
      windows: tensors.map((tensor) => windowOf(tensor)),
      flops: 4 * rows * heads * headSize * positions,
      bytes: 2 * width * positions * bytesOf(keys.dtype),
    };
    // Software drivers pay for each barrier, so there a row goes as a block does.
    if (rows === 1 && capabilities.type === "gpu") {
      return [store, {
        kernel: kernel("kernels/attention_decode.wgsl", text, {}, types),
        uniforms: [heads, keyValueHeads, headSize, scale],
        workgroups: [heads, 1, 1],
        ...work,
      }];
    }
    const queries = rows * heads / keyValueHeads;
    const { kernel: prefill, block } = attentionKernel(capabilities, "prefill", headSize, queries, types, false);
    return [store, {
      kernel: prefill,
      uniforms: [rows, heads, keyValueHeads, scale],
      workgroups: [ceilDivide(queries, block), keyValueHeads, 1],
      ...work,
    }];
  },
};
