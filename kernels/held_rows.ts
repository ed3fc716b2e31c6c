/**
 * Row kernels that hold a row in registers: every value is loaded once, which is what they cost where loads are slow.
 *
 * On software drivers with subgroups a subgroup takes several rows one after another, so that weights are loaded once for
 * all of them, and sums over its lanes are made of broadcasts (a subgroupAdd costs four times as much there); on GPUs a
 * workgroup of 64 has a row. Rows that are too long for registers are loaded anew for each pass, and so are all rows where
 * a software driver has no subgroups: there a thread has a row.
 *
 * A text has `{{EACH}}` … `{{END}}` around what is done for each value of a lane, with `#` behind names of its own; it is
 * repeated with numbers, or becomes a loop. Lines that begin with `[held]` are for the first form only, with `[anew]` for
 * the second. `{{STORE i#}}` stands before a store.
 * @module
 */

import type { Capabilities } from "../gpu/capabilities.ts";
import { ceilDivide, type Kernel, kernel } from "../graph/dispatch.ts";
import type { DataType } from "../graph/tensor.ts";
import { blockRows } from "./column_sum.ts";
import { reductions } from "./reductions.ts";
import { unroll, withTag } from "./unroll.ts";

/** Values (vec4) of one tensor that a lane holds at most: 24 of them compile in less than a second, 48 in several. */
const mostHeld = 24;
/**
 * Rows that a subgroup takes one after another: a workgroup and its weights cost lavapipe 0.5 µs, a short row 0.2. They are a
 * block, whose sums over rows the kernel can keep.
 */
const rowsInTurn = blockRows;
/** Threads of a workgroup that has a row of its own, or whose threads have. */
const [threadsOfRow, threadsWithRows] = [64, 8];

/** How rows are shared out. */
interface Form {
  /** Threads that share a row. */
  readonly lanes: number;
  readonly threads: number;
  /** Rows that those threads take one after another. */
  readonly rows: number;
  /** Elements of a value: 4 or 1. */
  readonly width: number;
  /** Values of a row that a lane holds; 0 if it holds none. */
  readonly held: number;
}

function formOf({ type, subgroupSize }: Capabilities, rowElements: number, tensorsHeld: number): Form {
  const width = rowElements % 4 === 0 ? 4 : 1;
  const most = Math.floor(mostHeld / tensorsHeld);
  const onGPU = type === "gpu";
  const lanes = onGPU ? threadsOfRow : subgroupSize;
  const each = ceilDivide(rowElements / width, lanes);
  if (onGPU) return { lanes, threads: lanes, rows: 1, width, held: each <= most ? each : 0 };
  if (lanes >= 4 && lanes <= 64 && each <= most) return { lanes, threads: lanes, rows: rowsInTurn, width, held: each };
  return { lanes: 1, threads: threadsWithRows, rows: 1, width, held: 0 };
}

function prelude({ lanes, rows, width }: Form, ragged: boolean, onGPU: boolean): string {
  const wide = width === 4;
  return `alias Value = ${wide ? "vec4f" : "f32"};
const LANES = ${lanes}u;
// Whether a workgroup is a subgroup that holds its rows and takes a block of them.
const BLOCKS = ${rows > 1};
fn total(v: Value) -> f32 { return ${wide ? "(v.x + v.y) + (v.z + v.w)" : "v"}; }
fn largest(v: Value) -> f32 { return ${wide ? "max(max(v.x, v.y), max(v.z, v.w))" : "v"}; }
// Value i of a row, or what stands in for it behind the row's end.
fn within(v: Value, other: f32, i: u32, values: u32) -> Value { return ${
    ragged ? "select(Value(other), v, i < values)" : "v"
  }; }
fn firstRow(group: u32, local: u32) -> u32 { return group * ${lanes === 1 ? threadsWithRows : rows}u + local / LANES; }
fn endRow(first: u32, rows: u32) -> u32 { return min(first + ${rows}u, rows); }
${reductions(lanes, onGPU)}
`;
}

/** Repeats, or makes loops of, what stands between `{{EACH}}` and `{{END}}`. */
function expand(text: string, { held }: Form, ragged: boolean): string {
  if (held > 0) {
    const numbered = text.replace("{{EACH}}\n", "{{EACH}}\n  let i# = lane + #u * LANES;\n");
    return unroll(numbered, held, "held").replaceAll(/\{\{STORE (\w+)\}\}/g, ragged ? "if ($1 < p.values) " : "");
  }
  return withTag(text, "anew").replaceAll("{{EACH}}\n{{END}}\n", "")
    .replaceAll("{{EACH}}", "for (var i = lane; i < p.values; i += LANES) {").replaceAll("{{END}}", "}")
    .replaceAll("#", "").replaceAll(/\{\{STORE \w+\}\}/g, "");
}

/**
 * A row kernel, whether its workgroups take blocks of `blockRows` rows (`BLOCKS` in its text), and its grid over `rows` rows:
 * `{{PRELUDE}}` of the text becomes types and reductions, `{{THREADS}}` the workgroup size, `{{VALUE}}` the type of what is
 * loaded. Rows whose size is no multiple of four are read element by element.
 *
 * @param tensorsHeld of how many tensors (at a time) a lane holds its values of a row
 */
export function heldRowKernel(
  file: string,
  text: string,
  capabilities: Capabilities,
  rowElements: number,
  tensorsHeld: number,
  types: readonly (DataType | undefined)[],
  constants: Record<string, boolean> = {},
): { kernel: Kernel; inBlocks: boolean; grid: (rows: number) => [number, number, number] } {
  const form = formOf(capabilities, rowElements, tensorsHeld);
  const { lanes, threads, rows, width, held } = form;
  const onGPU = capabilities.type === "gpu";
  const ragged = rowElements / width % lanes !== 0;
  const made = kernel(file, expand(text, form, ragged), {
    PRELUDE: prelude(form, ragged, onGPU),
    THREADS: threads,
    VALUE: width === 4 ? "vec4f" : "f32",
    ...constants,
  }, types);
  const perGroup = lanes === 1 ? threads : rows;
  return {
    kernel: { ...made, variant: `lanes=${lanes} held=${held} ${made.variant}`.trim() },
    inBlocks: rows > 1,
    grid: (count) => [ceilDivide(count, perGroup), 1, 1],
  };
}
