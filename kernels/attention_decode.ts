/**
 * Attention of one new token over a cache of keys and values: stores the token's own, then attends over positions
 * 0 to `position`.
 *
 * qkv [1, (H + 2 KV) D]; position u32 [1]; y [1, H D]; caches [P, KV D]. Head sizes up to 256. 4 H D position flops.
 * @module
 */

import { ceilDivide, float, kernel, windowOf } from "../graph/dispatch.ts";
import type { OpDefinition } from "../graph/graph.ts";
import cacheText from "./attention_cache.wgsl" with { type: "text" };
import text from "./attention_decode.wgsl" with { type: "text" };

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
  infer(_, { heads, keyValueHeads, headSize, positions }) {
    if (headSize > 256) throw new RangeError(`Heads of ${headSize} are larger than 256`);
    const cache = { shape: [positions, keyValueHeads * headSize] };
    return [{ shape: [1, heads * headSize] }, cache, cache];
  },
  lower({ inputs: [qkv, position], outputs: [y, keys, values], attributes }) {
    const { heads, keyValueHeads, headSize, positions } = attributes;
    const width = keyValueHeads * headSize;
    return [
      {
        kernel: kernel("kernels/attention_cache.wgsl", cacheText),
        windows: [windowOf(qkv), windowOf(position), windowOf(keys), windowOf(values)],
        uniforms: [heads * headSize, width],
        workgroups: [ceilDivide(width, 64), 1, 1],
        flops: 0,
        bytes: 16 * width,
      },
      {
        kernel: kernel("kernels/attention_decode.wgsl", text),
        windows: [windowOf(qkv), windowOf(position), windowOf(keys), windowOf(values), windowOf(y)],
        uniforms: [heads, keyValueHeads, headSize, float(1 / Math.sqrt(headSize))],
        workgroups: [heads, 1, 1],
        flops: 4 * heads * headSize * positions,
        bytes: 8 * width * positions,
      },
    ];
  },
};
