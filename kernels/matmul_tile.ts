/**
 * Matrix product through workgroup memory, for GPUs: 64 x 64 of C by 128 threads, 8 rows x vec4 each, 16 steps of k at
 * a time (the middle of the three sizes that llama.cpp's Vulkan back end settled on). Sizes are multiples of four.
 * @module
 */

import { type Kernel, kernel } from "../graph/dispatch.ts";
import type { MatmulLayout } from "./matmul_register.ts";
import text from "./matmul_tile.wgsl" with { type: "text" };

/** Rows and columns of C that a workgroup covers. */
export const tileSize = 64;
const steps = 16;
const threads = 128;
const rows = 8;

function range<T>(count: number, make: (i: number) => T): T[] {
  return Array.from({ length: count }, (_, i) => make(i));
}

/** Lines that bring one operand's tile in as `tile[k * 64 + position]`; two vectors of it per thread. */
function bringIn(operand: "a" | "b", alongK: boolean): string[] {
  const tile = operand === "a" ? "tileA" : "tileB";
  const [origin, extent] = operand === "a" ? ["row", "p.M"] : ["column", "p.N"];
  return range(tileSize * steps / 4 / threads, (l) => {
    const slot = `s${operand}${l}`;
    const value = `v${operand}${l}`;
    const lines = [`let ${slot} = thread + ${l * threads}u;`];
    if (alongK) {
      const position = `${slot} / 4u`;
      const k = `k + (${slot} % 4u) * 4u`;
      return [
        ...lines,
        `let ${value} = select(vec4f(0.0), ${operand}[${operand}Start + (min(${origin} + ${position}, ${extent} - 1u) * ` +
        `p.ld${operand} + min(${k}, p.K - 4u)) / 4u], ${k} < p.K);`,
        ...range(4, (i) => `${tile}[((${slot} % 4u) * 4u + ${i}u) * 64u + ${position}] = ${value}[${i}];`),
      ];
    }
    const position = `(${slot} % 16u) * 4u`;
    const k = `k + ${slot} / 16u`;
    return [
      ...lines,
      `let ${value} = select(vec4f(0.0), ${operand}[${operand}Start + (min(${k}, p.K - 1u) * p.ld${operand} + ` +
      `min(${origin} + ${position}, ${extent} - 4u)) / 4u], ${k} < p.K);`,
      ...range(4, (i) => `${tile}[(${slot} / 16u) * 64u + ${position} + ${i}u] = ${value}[${i}];`),
    ];
  }).flat();
}

/** The WGSL for one layout. */
export function tileKernel(layout: MatmulLayout): Kernel {
  const body = [
    ...range(rows, (i) => `var c${i} = vec4f(0.0);`),
    `for (var k = 0u; k < p.K; k += ${steps}u) {`,
    ...bringIn("a", layout !== "TN"),
    ...bringIn("b", layout === "NT"),
    "workgroupBarrier();",
    ...range(steps, (k) => [
      `let t${k} = vec4f(${range(4, (j) => `tileB[local.x * 4u + ${k * 64 + j}u]`).join(", ")});`,
      ...range(rows, (i) => `c${i} += tileA[local.y * ${rows}u + ${k * 64 + i}u] * t${k};`),
    ]).flat(),
    "workgroupBarrier();",
    "}",
    ...range(rows, (i) => `store(row + local.y * ${rows}u + ${i}u, column / 4u + local.x, cStart, c${i});`),
  ].join("\n  ");
  return { ...kernel("kernels/matmul_tile.wgsl", text, { BODY: `  ${body}` }), variant: `${layout} tile` };
}
