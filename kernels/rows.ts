/**
 * Kernels that reduce rows: one thread per row on software drivers, where barriers stall and the cache serves the row
 * again; a workgroup of 64 per row on GPUs. Where rows are short enough to be held in registers, software drivers with
 * subgroups have one subgroup per row instead (`held_rows.ts`).
 * @module
 */

import type { Capabilities } from "../gpu/capabilities.ts";
import { ceilDivide, type Kernel, kernel } from "../graph/dispatch.ts";
import { bytesOf, type DataType, type Tensor } from "../graph/tensor.ts";

/** Threads that share a row. */
export function lanesPerRow(capabilities: Capabilities): number {
  return capabilities.type === "cpu" ? 1 : 64;
}

/** Rows that a workgroup covers when a thread has a row to itself: a subgroup. */
function rowsPerWorkgroup({ subgroupSize }: Capabilities): number {
  return Math.max(8, subgroupSize);
}

function prelude(lanes: number, rows: number, width: number): string {
  const wide = width === 4;
  const shared = lanes === 1 ? "" : `var<workgroup> shared_: array<f32, ${lanes}>;`;
  const reduce = (name: string, combine: string) =>
    lanes === 1 ? `fn ${name}(x: f32, lane: u32) -> f32 { return x; }` : `fn ${name}(x: f32, lane: u32) -> f32 {
  shared_[lane] = x;
  workgroupBarrier();
  for (var stride = ${lanes / 2}u; stride > 0u; stride >>= 1u) {
    if (lane < stride) { let a = shared_[lane]; let b = shared_[lane + stride]; shared_[lane] = ${combine}; }
    workgroupBarrier();
  }
  let result = shared_[0];
  workgroupBarrier();
  return result;
}`;
  return `alias Value = ${wide ? "vec4f" : "f32"};
const WIDTH = ${width}u;
const LANES = ${lanes}u;
const ROWS = ${rows}u;
${shared}
fn total(v: Value) -> f32 { return ${wide ? "(v.x + v.y) + (v.z + v.w)" : "v"}; }
fn largest(v: Value) -> f32 { return ${wide ? "max(max(v.x, v.y), max(v.z, v.w))" : "v"}; }
${reduce("sumOver", "a + b")}
${reduce("maxOver", "max(a, b)")}
`;
}

/**
 * A row kernel: `{{PRELUDE}}` of the text becomes the types and reductions, `{{THREADS}}` the workgroup size.
 * Rows whose size is no multiple of four are read element by element.
 */
export function rowKernel(
  file: string,
  text: string,
  capabilities: Capabilities,
  rowElements: number,
  constants: Record<string, string | number> = {},
  types: readonly (DataType | undefined)[] = [],
): Kernel {
  const lanes = lanesPerRow(capabilities);
  const width = rowElements % 4 === 0 ? 4 : 1;
  const rows = lanes === 1 ? rowsPerWorkgroup(capabilities) : 1;
  const threads = lanes * rows;
  const made = kernel(file, text, { PRELUDE: prelude(lanes, rows, width), THREADS: threads, ...constants }, types);
  return { ...made, variant: `lanes=${lanes} width=${width} ${made.variant}`.trim() };
}

/** Workgroups for `rows` rows. */
export function rowGrid(capabilities: Capabilities, rows: number): [number, number, number] {
  return [lanesPerRow(capabilities) === 1 ? ceilDivide(rows, rowsPerWorkgroup(capabilities)) : rows, 1, 1];
}

/** Elements in a row in units of the kernel's `Value`. */
export function rowValues(rowElements: number): number {
  return rowElements % 4 === 0 ? rowElements / 4 : rowElements;
}

/** Bytes that are moved for a column of a row, if each of `tensors` is read or written once. */
export function bytesPerColumn(tensors: readonly Tensor[]): number {
  return tensors.reduce((sum, { dtype }) => sum + bytesOf(dtype), 0);
}
