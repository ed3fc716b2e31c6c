/**
 * The product of one row with a matrix, `y = x w` (NN) or `x wᵀ` (NT), `(+ bias) (+ addend)`: decoding a token reads each
 * weight once, and this reads them in the order in which they lie.
 *
 * x [1, K], w [K, N] or [N, K], bias [N], addend [1, N], y [1, N]; K and N multiples of four. 2 K N flops; 4 K N bytes.
 *
 * NN: workgroups take some rows of w each, and a second dispatch adds up their sums. On lavapipe that is 3 to 4 times as fast as
 * columns taken through all rows: these are far apart, and what jumps from page to page is not fetched ahead.
 * @module
 */

import type { Capabilities } from "../gpu/capabilities.ts";
import { ceilDivide, type Dispatch, kernel, rowRanges, type Target, windowOf } from "../graph/dispatch.ts";
import type { OpDefinition } from "../graph/graph.ts";
import { bytesOf, rowCount, rowSize, type Tensor } from "../graph/tensor.ts";
import sumText from "./row_product_sum.wgsl" with { type: "text" };
import transposedText from "./row_product_transposed.wgsl" with { type: "text" };
import text from "./row_product.wgsl" with { type: "text" };

/** Constants. */
export interface RowProductAttributes {
  readonly layout: "NN" | "NT";
  /** A third input `[N]` is added. */
  readonly bias?: boolean;
  /** A last input `[1, N]` is added. */
  readonly addend?: boolean;
}

/** True if this op computes the product of `x` and `w`. */
export function isRowProduct(x: Tensor, w: Tensor): boolean {
  return rowCount(x) === 1 && rowCount(w) % 4 === 0 && rowSize(w) % 4 === 0;
}

/** Rows of w that a workgroup takes: as many as memory is fetched ahead for. */
function slabOf(w: Tensor): number {
  return [16, 8, 4].find((rows) => rowCount(w) % rows === 0)!;
}

/** What a product reads and writes. */
interface Operands {
  readonly x: Tensor;
  readonly w: Tensor;
  readonly bias: Tensor | undefined;
  readonly addend: Tensor | undefined;
  readonly y: Tensor;
}

function slabs({ capabilities, ...target }: Target, { x, w, bias, addend, y }: Operands, partial: Tensor): Dispatch[] {
  const vectors = rowSize(w) / 4;
  const slab = slabOf(w);
  // GPUs want many threads, others long streams.
  const gpu = capabilities.type === "gpu";
  const threads = gpu ? 64 : 16;
  const columns = gpu ? 1 : ceilDivide(vectors, threads);
  const rows = Array.from({ length: slab }, (_, u) => u);
  const made = kernel("kernels/row_product.wgsl", text, {
    SLAB: slab,
    THREADS: threads,
    FACTORS: rows.map((u) => `let x${u} = vec4f(load_x(p.firstRow + first + ${u}u));`).join("\n  "),
    SUMS: rows.map((u) => `sum = fma(x${u}, load_w(at + ${u}u * p.vectors), sum);`).join("\n    "),
  }, [x.dtype, w.dtype, partial.dtype]);
  const operands = [partial, bias, addend, y];
  return [
    ...rowRanges({ capabilities, ...target }, [w]).map((range): Dispatch => ({
      kernel: made,
      windows: [windowOf(x), windowOf(w, range), windowOf(partial)],
      uniforms: [vectors, columns, range.start],
      workgroups: [ceilDivide(vectors, threads * columns), range.count / slab, 1],
      flops: 2 * range.count * rowSize(w),
      bytes: range.count * rowSize(w) * bytesOf(w.dtype),
    })),
    {
      kernel: kernel("kernels/row_product_sum.wgsl", sumText, {}, operands.map((operand) => operand?.dtype)),
      windows: operands.map((operand) => operand && windowOf(operand)),
      uniforms: [vectors, rowCount(partial), bias ? 1 : 0, addend ? 1 : 0],
      workgroups: [ceilDivide(vectors, 16), 1, 1],
      flops: rowCount(partial) * rowSize(w),
      bytes: 4 * rowCount(partial) * rowSize(w),
    },
  ];
}

/** Threads that share four rows of w, and how they add up. */
function lanesOf({ type }: Capabilities): { lanes: number; threads: number; shared: string; reduce: string } {
  if (type !== "gpu") return { lanes: 1, threads: 16, shared: "", reduce: "" };
  return {
    lanes: 64,
    threads: 64,
    shared: "var<workgroup> sums: array<vec4f, 64>;",
    reduce: `sums[local] = sum;
  workgroupBarrier();
  for (var stride = 32u; stride > 0u; stride >>= 1u) {
    if (local < stride) { sums[local] += sums[local + stride]; }
    workgroupBarrier();
  }
  sum = sums[0];`,
  };
}

function transposed(target: Target, { x, w, bias, addend, y }: Operands): Dispatch[] {
  const { lanes, threads, shared, reduce } = lanesOf(target.capabilities);
  const operands = [x, w, bias, addend, y];
  const vectors = threads / lanes;
  const constants = { LANES: lanes, THREADS: threads, VECTORS: vectors, SHARED: shared, REDUCE: reduce };
  const types = operands.map((operand) => operand?.dtype);
  const made = kernel("kernels/row_product_transposed.wgsl", transposedText, constants, types);
  return rowRanges(target, [w]).map((range) => ({
    kernel: made,
    windows: operands.map((operand) => operand && (operand === w ? windowOf(w, range) : windowOf(operand))),
    uniforms: [range.count / 4, rowSize(w) / 4, range.start / 4, bias ? 1 : 0, addend ? 1 : 0],
    workgroups: [ceilDivide(range.count / 4, vectors), 1, 1],
    flops: 2 * range.count * rowSize(w),
    bytes: range.count * rowSize(w) * bytesOf(w.dtype),
  }));
}

/** Inputs `[x, w, bias?, addend?]`, output `[y]`; for NN also partial sums. */
export const rowProduct: OpDefinition<RowProductAttributes> = {
  name: "rowProduct",
  infer([x, w], { layout }) {
    const [rows, columns] = [rowCount(w), rowSize(w)];
    if (rowSize(x) !== (layout === "NN" ? rows : columns)) throw new RangeError(`[${x.shape}] times [${w.shape}]`);
    const shape = (size: number) => [...x.shape.slice(0, -1), size];
    if (layout === "NT") return [{ shape: shape(rows) }];
    return [{ shape: shape(columns) }, { shape: [rows / slabOf(w), columns], dtype: "f32" }];
  },
  lower({ inputs: [x, w, ...rest], outputs: [y, partial], attributes: { layout, bias, addend } }, target) {
    const operands = { x, w, bias: bias ? rest[0] : undefined, addend: addend ? rest[rest.length - 1] : undefined, y };
    return layout === "NN" ? slabs(target, operands, partial) : transposed(target, operands);
  },
};
