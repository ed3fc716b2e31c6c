/**
 * Matrix product through workgroup memory, for GPUs: a workgroup brings a tile of A and one of B in, `steps` of k at a time, and
 * each thread sums `rows` x `columns` vectors from them. Sizes are multiples of four.
 * @module
 */

import type { ProductVariant } from "../gpu/capabilities.ts";
import { type Kernel, kernel } from "../graph/dispatch.ts";
import type { DataType } from "../graph/tensor.ts";
import { type Epilogue, epilogueName, epilogueText } from "./matmul_epilogue.ts";
import type { MatmulLayout } from "./matmul_register.ts";
import { termsText } from "./matmul_split.ts";
import text from "./matmul_tile.wgsl" with { type: "text" };

/** A variant with a tile. */
export type TileVariant = ProductVariant & Required<Pick<ProductVariant, "tile">>;

function range<T>(count: number, make: (i: number) => T): T[] {
  return Array.from({ length: count }, (_, i) => make(i));
}

/** Threads of a workgroup: across the columns and down the rows of its tile. */
export function tileThreads({ rows, columns, tile }: TileVariant): [width: number, height: number] {
  return [tile.columns / (4 * columns), tile.rows / rows];
}

/** Lines that bring one operand's tile in as `tile[k * extent + position]`. */
function bringIn(operand: "a" | "b", alongK: boolean, extent: number, steps: number, threads: number): string[] {
  const tile = operand === "a" ? "tileA" : "tileB";
  const [origin, limit] = operand === "a" ? ["row", "p.M"] : ["column", "p.N"];
  const vectors = extent * steps / 4;
  return range(Math.ceil(vectors / threads), (l) => {
    const slot = `s${operand}${l}`;
    const value = `v${operand}${l}`;
    const inside = (l + 1) * threads <= vectors ? "" : `if (${slot} < ${vectors}u) `;
    const begin = [`let ${slot} = thread + ${l * threads}u;`];
    if (alongK) {
      const position = `${slot} / ${steps / 4}u`;
      const kTile = `(${slot} % ${steps / 4}u) * 4u`;
      return [
        ...begin,
        `let ${value} = select(vec4f(0.0), load_${operand}((${operand}Start + min(${origin} + ${position}, ${limit} - 1u) * ` +
        `p.ld${operand} + min(k + ${kTile}, p.K - 4u)) / 4u), k + ${kTile} < p.K);`,
        ...range(4, (i) => `${inside}{ ${tile}[(${kTile} + ${i}u) * ${extent}u + ${position}] = ${value}[${i}]; }`),
      ];
    }
    const position = `(${slot} % ${extent / 4}u) * 4u`;
    const kTile = `${slot} / ${extent / 4}u`;
    return [
      ...begin,
      `let ${value} = select(vec4f(0.0), load_${operand}((${operand}Start + min(k + ${kTile}, p.K - 1u) * p.ld${operand} + ` +
      `min(${origin} + ${position}, ${limit} - 4u)) / 4u), k + ${kTile} < p.K);`,
      ...range(4, (i) => `${inside}{ ${tile}[(${kTile}) * ${extent}u + ${position} + ${i}u] = ${value}[${i}]; }`),
    ];
  }).flat();
}

/** The WGSL for one layout; `types` are the element types of a, b, c, bias (or sums), addend and side. */
export function tileKernel(
  layout: MatmulLayout,
  variant: TileVariant,
  epilogue: Epilogue,
  types: readonly (DataType | undefined)[],
): Kernel {
  const { rows, columns, tile } = variant;
  const [width, height] = tileThreads(variant);
  const threads = width * height;
  // A thread's vectors of columns lie as far apart as there are threads across: neighbours read neighbouring words.
  const vectorAt = (j: number) => `(local.x + ${j * width}u)`;
  const fromB = (k: string, j: number) =>
    `vec4f(${range(4, (i) => `tileB[(${k}) * ${tile.columns}u + ${vectorAt(j)} * 4u + ${i}u]`).join(", ")})`;
  const step = (k: string) => [
    ...range(columns, (j) => `let t${j} = ${fromB(k, j)};`),
    ...range(rows, (i) => [
      `let x${i} = vec4f(tileA[(${k}) * ${tile.rows}u + local.y * ${rows}u + ${i}u]);`,
      ...range(columns, (j) => `c${i}_${j} = fma(x${i}, t${j}, c${i}_${j});`),
    ]).flat(),
  ];
  const steps = (base: string) => range(tile.unroll, (u) => ["{", ...step(`${base}${u}u`), "}"]).flat();
  const body = [
    ...(epilogue.sums ? ["let firstRows = row == 0u && local.y == 0u;"] : []),
    ...range(rows, (i) => range(columns, (j) => `var c${i}_${j} = vec4f(0.0);`)).flat(),
    ...(epilogue.sums ? range(columns, (j) => `var sum${j} = vec4f(0.0);`) : []),
    `for (var k = begin; k < K; k += ${tile.steps}u) {`,
    ...bringIn("a", layout !== "TN", tile.rows, tile.steps, threads),
    ...bringIn("b", layout === "NT", tile.columns, tile.steps, threads),
    "workgroupBarrier();",
    ...(tile.unroll === tile.steps
      ? steps("")
      : [`for (var q = 0u; q < ${tile.steps}u; q += ${tile.unroll}u) {`, ...steps("q + "), "}"]),
    ...(epilogue.sums
      ? [
        `if (firstRows) { for (var q = 0u; q < ${tile.steps}u; q += 1u) {`,
        ...range(columns, (j) => `sum${j} += ${fromB("q", j)};`),
        "} }",
      ]
      : []),
    "workgroupBarrier();",
    "}",
    ...(epilogue.sums
      ? ["if (firstRows) {", ...range(columns, (j) => `addSum(column / 4u + ${vectorAt(j)}, cStart, sum${j});`), "}"]
      : []),
    ...(epilogue.bias ? range(columns, (j) => `let bias${j} = biasOf(column / 4u + ${vectorAt(j)});`) : []),
    ...range(rows, (i) =>
      range(columns, (j) => {
        const sum = `c${i}_${j}${epilogue.bias ? ` + bias${j}` : ""}`;
        return `finish(row + local.y * ${rows}u + ${i}u, column / 4u + ${vectorAt(j)}, cStart, ${sum});`;
      })).flat(),
  ];
  const made = kernel("kernels/matmul_tile.wgsl", text, {
    EPILOGUE: epilogueText(epilogue, "vec4f"),
    SIZE_A: tile.rows * tile.steps,
    SIZE_B: tile.columns * tile.steps,
    WIDTH: width,
    HEIGHT: height,
    ROWS: tile.rows,
    COLUMNS: tile.columns,
    TERMS: termsText(epilogue),
    BODY: body.map((line) => `  ${line}`).join("\n"),
  }, types);
  const name = `${layout} tile ${tile.rows}x${tile.columns}x${tile.steps} of ${rows}x${columns}`;
  return { ...made, variant: `${name}${epilogueName(epilogue)}` };
}
