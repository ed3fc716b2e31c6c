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
import { type AttentionBody, forwardBody, keyBody, queryBody } from "./attention_bodies.ts";
import directForward from "./attention_direct_forward.wgsl" with { type: "text" };
import directKey from "./attention_direct_key_gradient.wgsl" with { type: "text" };
import directQuery from "./attention_direct_query_gradient.wgsl" with { type: "text" };
import forwardText from "./attention_forward.wgsl" with { type: "text" };
import keyText from "./attention_key_gradient.wgsl" with { type: "text" };
import { type AttentionShape, typeOf } from "./attention_loops.ts";
import queryText from "./attention_query_gradient.wgsl" with { type: "text" };

/** The three kernels of attention. */
export type AttentionPart = "forward" | "query_gradient" | "key_gradient";

/** A kernel and how many queries or keys its workgroup has. */
export interface AttentionKernel {
  readonly kernel: Kernel;
  readonly block: number;
}

const parts: Record<
  AttentionPart,
  { make: (shape: AttentionShape) => AttentionBody; text: string; direct: string; sets: number }
> = {
  // `sets`: vectors of a head that a thread keeps for each of its queries or keys.
  forward: { make: forwardBody, text: forwardText, direct: directForward, sets: 2 },
  query_gradient: { make: queryBody, text: queryText, direct: directQuery, sets: 3 },
  key_gradient: { make: keyBody, text: keyText, direct: directKey, sets: 4 },
};

/** 2^x, three times as fast as the driver's own on lavapipe; relative error 2e-7. x is taken between -126 and 126. */
const softwarePower = `fn powerOf2(x: f32) -> f32 {
  let t = clamp(x, -126.0, 126.0);
  let n = round(t);
  let f = t - n;
  var y = fma(f, 1.535336188319500e-4, 1.339887440266574e-3);
  y = fma(y, f, 9.618437357674640e-3);
  y = fma(y, f, 5.550332471162809e-2);
  y = fma(y, f, 2.402264791363012e-1);
  y = fma(y, f, 6.931472028550421e-1);
  y = fma(y, f, 1.0);
  return bitcast<f32>(bitcast<i32>(y) + (i32(n) << 23u));
}`;
const hardwarePower = "fn powerOf2(x: f32) -> f32 { return exp2(min(x, 126.0)); }";

const T = (globalThis as unknown as { tune?: Record<string, number> }).tune ?? {};

function shapeOf(capabilities: Capabilities, part: AttentionPart, headSize: number): AttentionShape {
  const width = headSize % 4 === 0 ? 4 : 1;
  const vectors = headSize / width;
  if (capabilities.type === "gpu") {
    // Two operands in workgroup memory: at most 16 KiB.
    const tileRows = headSize <= 128 ? 16 : 8;
    return { width, vectors, threads: 64, own: 1, steps: headSize <= 64 ? 4 : 2, lanes: 0, tileRows };
  }
  const { sets } = parts[part];
  const values = T[`${part}_values`] ?? 512;
  const own = T[`${part}_own`] ?? Math.max(1, Math.min(4, Math.floor(values / (sets * headSize))));
  const steps = T[`${part}_steps`] ?? (headSize <= 32 ? 4 : 2);
  const lanes = Math.min(16, capabilities.subgroupSize);
  return { width, vectors, threads: capabilities.subgroupSize, own, steps, lanes, tileRows: 0 };
}

/**
 * The kernel for one part of attention with heads of `headSize`, in the family that suits the device.
 *
 * @param types by binding, element types of the tensors
 */
export function attentionKernel(
  capabilities: Capabilities,
  part: AttentionPart,
  headSize: number,
  types: readonly DataType[],
): AttentionKernel {
  const { make, text, direct } = parts[part];
  const { type, subgroupSize } = capabilities;
  if (type !== "gpu" && (subgroupSize < 8 || subgroupSize > 64)) {
    const vector = headSize % 4 === 0;
    const constants = {
      TYPE: vector ? "vec4f" : "f32",
      VALUES: vector ? headSize / 4 : headSize,
      TOTAL: vector ? "(v.x + v.y) + (v.z + v.w)" : "v",
    };
    return { kernel: kernel(`kernels/attention_direct_${part}.wgsl`, direct, constants, types), block: 32 };
  }
  const shape = shapeOf(capabilities, part, headSize);
  const { lanes, threads, own, steps } = shape;
  const { shared, lines } = make(shape);
  const block = threads * own;
  const made = kernel(`kernels/attention_${part}.wgsl`, text, {
    TYPE: typeOf(shape),
    THREADS: threads,
    OWN: own,
    BLOCK: block,
    VECTORS: shape.vectors,
    LANE: lanes === 0 ? "" : ",\n  @builtin(subgroup_invocation_id) invocation: u32",
    SHARED: shared,
    EXP2: lanes === 0 ? hardwarePower : softwarePower,
    BODY: (lanes === 0 ? "  " : `  let lane = invocation & ${lanes - 1}u;\n  `) + lines.join("\n  "),
  }, types);
  const family = lanes === 0 ? "tile" : "broadcast";
  return { kernel: { ...made, variant: `${family} head=${headSize} ${own}x${steps}` }, block };
}
