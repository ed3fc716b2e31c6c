/**
 * WGSL of the attention kernels. Three families:
 *
 * - `broadcast` (software drivers with subgroups of 8 or more): a thread has several queries (or keys) in named vectors;
 *   the lanes of a subgroup load different vectors of the keys and values and hand them round.
 * - `tile` (GPUs): a thread has one; blocks of keys and values go through workgroup memory.
 * - `direct`: rolled loops over private arrays; for software drivers without such subgroups.
 * @module
 */

import type { Capabilities } from "../gpu/capabilities.ts";
import { type Kernel, kernel } from "../graph/dispatch.ts";
import type { DataType } from "../graph/tensor.ts";
import { type AttentionBody, forwardBody, keyBody, prefillBody, queryBody } from "./attention_bodies.ts";
import directForward from "./attention_direct_forward.wgsl" with { type: "text" };
import directKey from "./attention_direct_key_gradient.wgsl" with { type: "text" };
import directPrefill from "./attention_direct_prefill.wgsl" with { type: "text" };
import directQuery from "./attention_direct_query_gradient.wgsl" with { type: "text" };
import forwardText from "./attention_forward.wgsl" with { type: "text" };
import { powerText } from "./exponentials.ts";
import keyText from "./attention_key_gradient.wgsl" with { type: "text" };
import { type AttentionShape, laneLines, typeOf } from "./attention_loops.ts";
import prefillText from "./attention_prefill.wgsl" with { type: "text" };
import queryText from "./attention_query_gradient.wgsl" with { type: "text" };

/** Constants of attention. */
export interface AttentionAttributes {
  readonly heads: number;
  readonly keyValueHeads: number;
  readonly headSize: number;
  /** Rows of a sequence; the number of rows is a multiple of it. */
  readonly sequenceLength: number;
}

/** The kernels of attention of sequences, and that of new tokens over a cache of keys and values. */
export type AttentionPart = "forward" | "query_gradient" | "key_gradient" | "prefill";

/** A kernel and how many queries or keys its workgroup has. */
export interface AttentionKernel {
  readonly kernel: Kernel;
  readonly block: number;
  /** qkv, y and dy are read from textures, where they are only read. */
  readonly images: boolean;
}

const parts: Record<
  AttentionPart,
  { make: (shape: AttentionShape) => AttentionBody; text: string; direct: string; sets: number; unrolled: number }
> = {
  // `sets`: vectors of a head that a thread keeps for each of its queries or keys. `unrolled`: multiply-adds of one product in a
  // turn of the loop; more code does not fit the cache of decoded instructions.
  forward: { make: forwardBody, text: forwardText, direct: directForward, sets: 2, unrolled: 512 },
  query_gradient: { make: queryBody, text: queryText, direct: directQuery, sets: 3, unrolled: 256 },
  key_gradient: { make: keyBody, text: keyText, direct: directKey, sets: 4, unrolled: 256 },
  prefill: { make: prefillBody, text: prefillText, direct: directPrefill, sets: 2, unrolled: 512 },
};

const hardwarePower = "fn powerOf2(x: f32) -> f32 { return exp2(min(x, 126.0)); }";

/** Bytes that the named vectors of a workgroup may take: they live on the stack, and should stay in the first cache. */
const stackBytes = 32768;

function shapeOf(
  { type, subgroupSize: threads }: Capabilities,
  part: AttentionPart,
  headSize: number,
  rows: number,
  images: boolean,
): AttentionShape {
  const width = headSize % 4 === 0 ? 4 : 1;
  const vectors = headSize / width;
  if (type === "gpu") {
    // Two operands in workgroup memory: at most 16 KiB.
    const tileRows = headSize <= 128 ? 16 : 8;
    return {
      width,
      vectors,
      threads: 64,
      own: 1,
      steps: headSize <= 64 ? 4 : 2,
      lanes: 0,
      across: 0,
      tileRows,
      images: false,
      skewed: false,
    };
  }
  // A block is computed up to its last query's keys: a quarter of the sequence wastes an eighth. Most of a cache is before all queries;
  // a turn of two keys or more is faster there than more queries.
  const { sets, unrolled: limit } = parts[part];
  const useful = part === "prefill" ? Math.min(rows / threads, limit / (2 * headSize)) : rows / (4 * threads);
  const most = Math.min(4, stackBytes / (4 * threads * headSize * sets), useful);
  const own = Math.max(1, Math.floor(most));
  const unrolled = limit / (part === "key_gradient" && threads > 8 ? 2 : 1);
  const steps = 2 ** Math.max(0, Math.min(2, Math.floor(Math.log2(unrolled / (own * headSize)))));
  const across = Math.min(vectors & -vectors, 16, threads);
  const lanes = Math.min(16, threads, across * steps);
  return {
    width,
    vectors,
    threads,
    own,
    steps,
    lanes,
    across,
    tileRows: 0,
    images: images && width === 4,
    skewed: (images && width === 4) || threads < 16,
  };
}

/**
 * The kernel for one part of attention, in the family that suits the device.
 *
 * @param rows queries that read the same key, or keys of a sequence
 * @param types by binding, element types of the tensors
 * @param images what it reads can be read from textures
 */
export function attentionKernel(
  capabilities: Capabilities,
  part: AttentionPart,
  headSize: number,
  rows: number,
  types: readonly DataType[],
  images: boolean,
): AttentionKernel {
  const { make, text, direct } = parts[part];
  const { type, subgroupSize } = capabilities;
  const vector = headSize % 4 === 0;
  // Of more than 64 vectors, texts of named ones take drivers seconds to compile.
  if (headSize > (vector ? 256 : 64) || (type !== "gpu" && (subgroupSize < 8 || subgroupSize > 64))) {
    const constants = {
      TYPE: vector ? "vec4f" : "f32",
      VALUES: vector ? headSize / 4 : headSize,
      TOTAL: vector ? "(v.x + v.y) + (v.z + v.w)" : "v",
    };
    return {
      kernel: kernel(`kernels/attention_direct_${part}.wgsl`, direct, constants, types),
      block: 32,
      images: false,
    };
  }
  const shape = shapeOf(capabilities, part, headSize, rows, images);
  const { lanes, threads, own, steps } = shape;
  const { shared, lines } = make(shape);
  const block = threads * own;
  const operands = shape.images ? "{{image $1 $2}}" : "{{storage $1 $2 {{TYPE}}}}";
  const filled = text.replaceAll(/\{\{read (\d+) (\w+)\}\}/g, operands);
  const made = kernel(`kernels/attention_${part}.wgsl`, filled, {
    TYPE: typeOf(shape),
    THREADS: threads,
    OWN: own,
    BLOCK: block,
    VECTORS: shape.vectors,
    LANE: lanes === 0 ? "" : ",\n  @builtin(subgroup_invocation_id) invocation: u32",
    SHARED: shared,
    EXP2: lanes === 0 ? hardwarePower : powerText("f32"),
    BODY: [...(lanes === 0 ? [] : laneLines(shape)), ...lines].map((line) => `  ${line}`).join("\n"),
  }, types);
  const family = lanes === 0 ? "tile" : "broadcast";
  const variant = [
    family,
    `head=${headSize}`,
    `${own}x${steps}`,
    ...(shape.images ? ["images"] : []),
    ...types.slice(0, 1),
  ].join(" ");
  return { kernel: { ...made, variant }, block, images: shape.images };
}
