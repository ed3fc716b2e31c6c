/**
 * What becomes of a sum before it is stored, the same in all families: `+ bias`, `+ addend`, `+ c`, and GELU or its slope; and
 * where the sums of B's columns go.
 * It is part of the text, not a flag: every sum that a thread holds has its own copy, and what is not wanted would still be
 * compiled.
 * @module
 */

import { geluText } from "./exponentials.ts";

/** What follows the product. */
export interface Epilogue {
  /** A vector of N is added to every row. */
  readonly bias: boolean;
  /** A matrix `[M, N]` is added. */
  readonly addend: boolean;
  /** What C holds is added. */
  readonly accumulate: boolean;
  /** `gelu`: a further output gets GELU of what C gets. `geluGradient`: C gets the sum times GELU's slope at a further input. */
  readonly activation?: "gelu" | "geluGradient";
  /** The addend and what GELU's slope is taken at are textures. */
  readonly images: boolean;
  /** TN: the sums of B's columns are added to a vector of N, by the workgroups of the first rows: they read all of B anyway. */
  readonly sums?: boolean;
  /** C holds the sums of a part of K for each z of the grid, and behind each part a row for the sums of B's columns (`matmul_split.ts`). */
  readonly partial?: boolean;
}

/** The plain product. */
export const noEpilogue: Epilogue = { bias: false, addend: false, accumulate: false, images: false };

/** A short name for messages and profiles. */
export function epilogueName(epilogue: Epilogue): string {
  const { bias, addend, accumulate, activation, sums, partial } = epilogue;
  return [
    partial && "partial",
    bias && "bias",
    addend && "addend",
    accumulate && "accumulate",
    activation,
    sums && "sums",
  ].filter(Boolean)
    .map((part) => ` +${part}`).join("");
}

/**
 * WGSL of the bindings 3 to 6 (c, bias or sums, addend, side) and of functions for sums of `type` (f32, or vec4f, whose columns are
 * counted in vectors): `biasOf(column)`, which kernels add once a column; `finish(row, column, start, sum)`, which stores a sum if it
 * lies inside C; and `addSum(column, start, sum)` for the sum of a column of B.
 */
export function epilogueText(epilogue: Epilogue, type: "f32" | "vec4f"): string {
  const { bias, addend, accumulate, activation, sums, images, partial } = epilogue;
  const width = type === "vec4f" ? 4 : 1;
  const place = images ? "start + column, row" : "index";
  const read = (binding: number, name: string) =>
    images ? `{{image ${binding} ${name}}}` : `{{storage ${binding} ${name} ${type}}}`;
  const lines = [
    "let p = parameters;",
    `if (row < p.M && column < p.N / ${width}u) {`,
    `  let index = start + row * (p.ldc / ${width}u) + column;`,
    "  var value = sum;",
    addend ? `  value += load_addend(${place});` : "",
    accumulate ? "  value += load_c(index);" : "",
    activation === "geluGradient" ? `  value *= geluSlope(load_side(${place}));` : "",
    "  store_c(index, value);",
    activation === "gelu" ? "  store_side(index, gelu(value));" : "",
    "}",
  ].filter((line) => line !== "");
  return [
    `{{storage 3 c ${type}}}`,
    bias
      ? `{{storage 4 bias ${type}}}
fn biasOf(column: u32) -> ${type} {
  return load_bias(parameters.biasStart / ${width}u + min(column, parameters.N / ${width}u - 1u));
}`
      : "",
    sums
      ? `${partial ? "" : `{{storage 4 sums ${type}}}`}
fn addSum(column: u32, start: u32, sum: ${type}) {
  let p = parameters;
  if (column < p.N / ${width}u) {
    ${
        partial
          ? `store_c(start + p.M * (p.ldc / ${width}u) + column, sum)`
          : "store_sums(column, load_sums(column) + sum)"
      };
  }
}`
      : "",
    addend ? read(5, "addend") : "",
    activation ? `${activation === "gelu" ? `{{storage 6 side ${type}}}` : read(6, "side")}\n${geluText(type)}` : "",
    `fn finish(row: u32, column: u32, start: u32, sum: ${type}) {\n  ${lines.join("\n  ")}\n}`,
  ].filter((line) => line !== "").join("\n");
}
