/**
 * Split-K: where C has few workgroups and sums are long, K is cut into parts that as many workgroups add up at once. Each
 * writes its sums into scratch memory, and a small kernel adds those in their order, with the epilogue: the result is the same
 * at every run.
 *
 * 4 parts (M N) bytes are written and read besides, in f32 whatever the operands are.
 * @module
 */

import type { ProductVariant } from "../gpu/capabilities.ts";
import { ceilDivide, type Dispatch, kernel, type Window } from "../graph/dispatch.ts";
import type { DataType } from "../graph/tensor.ts";
import { type Epilogue, epilogueName, epilogueText } from "./matmul_epilogue.ts";
import text from "./matmul_split.wgsl" with { type: "text" };

/** Parts have at least so many terms: writing a sum and reading it again costs about as much as 64 of them where memory is slow. */
const leastTerms = 256;
/** Parts have a multiple of these, so that all kernels take whole steps but in the last part. */
const termsUnit = 32;

/** How K is cut. */
export interface Split {
  readonly parts: number;
  /** Of each part; the last may have fewer. */
  readonly terms: number;
}

/** How a variant cuts K where C has so many workgroups; undefined where it is left whole. */
export function splitOf({ split = 1 }: ProductVariant, workgroups: number, K: number): Split | undefined {
  const most = Math.min(Math.floor(split / workgroups), Math.floor(K / leastTerms));
  if (most < 2) return undefined;
  const terms = ceilDivide(ceilDivide(K, most), termsUnit) * termsUnit;
  return { parts: ceilDivide(K, terms), terms };
}

/** WGSL of `begin` and `K`, the terms that a workgroup sums: all, or those of its part. */
export function termsText({ partial }: Epilogue): string {
  return partial
    ? "  let begin = group.z * p.partTerms;\n  let K = min(begin + p.partTerms, p.K);"
    : "  let begin = 0u;\n  let K = p.K;";
}

/** What is added up, and where to. */
export interface PartialSums {
  /** `[parts, rows, N]`; rows are M, and one for the sums of B's columns if the epilogue has these. */
  readonly partial: Window;
  readonly parts: number;
  readonly M: number;
  readonly N: number;
  readonly ldc: number;
  /** Column of C, and of the bias, of the first of N. */
  readonly start: number;
  readonly epilogue: Epilogue;
  /** c, bias (or sums), addend, side. */
  readonly windows: readonly (Window | undefined)[];
  /** Element types of the windows' tensors. */
  readonly types: readonly (DataType | undefined)[];
}

/** The dispatch that adds the parts up. */
export function addParts({ partial, parts, M, N, ldc, start, epilogue, windows, types }: PartialSums): Dispatch {
  const [type, width] = N % 4 === 0 ? ["vec4f", 4] as const : ["f32", 1] as const;
  const rows = M + (epilogue.sums ? 1 : 0);
  const fetched = [0, 1, 2, 3].map((i) =>
    `    let x${i} = select(${type}(0.0), load_partial(min(part + ${i}u, p.parts - 1u) * size + i), part + ${i}u < p.parts);`
  );
  const finish = `finish(row, column, p.cStart / ${width}u, sum${epilogue.bias ? " + biasOf(column)" : ""});`;
  const made = kernel("kernels/matmul_split.wgsl", text, {
    TYPE: type,
    WIDTH: width,
    EPILOGUE: epilogueText(epilogue, type),
    ADD: [...fetched, "    sum += (x0 + x1) + (x2 + x3);"].join("\n"),
    FINISH: epilogue.sums ? `  if (row < p.M) { ${finish} } else { addSum(column, 0u, sum); }` : `  ${finish}`,
  }, [undefined, undefined, ...types]);
  return {
    kernel: { ...made, variant: `${type}${epilogueName(epilogue)}` },
    windows: [partial, undefined, ...windows],
    uniforms: [M, N, ldc, start, start, parts, rows],
    workgroups: [ceilDivide(rows * N / width, 64), 1, 1],
    flops: parts * rows * N,
    bytes: 4 * (parts + 1) * rows * N,
  };
}
