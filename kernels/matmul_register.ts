/**
 * Matrix product in registers: every thread holds ROWS x COLUMNS sums (a column is a vec4 for NN and TN).
 *
 * Variants:
 * - `lanes` > 1 (broadcast): the lanes of a subgroup load different vectors of A and hand them round. On software drivers a load
 *   is a loop over the lanes, whatever it fetches, so this divides the loads of A by the lanes. In turn r lane l gets the row of
 *   lane l ^ r and keeps that row's sums: such a shuffle is one instruction, where a broadcast of one lane to all is two.
 * - `lanes` 1 (direct): every thread loads all it needs. For software drivers without subgroups, and for few rows.
 * - `images`: the operands are read from storage textures: see `Window.image`.
 * - scalar (`vector: false`): one element at a time for sizes that are no multiple of four.
 * @module
 */

import { type Kernel, kernel } from "../graph/dispatch.ts";
import type { DataType } from "../graph/tensor.ts";
import { type Epilogue, epilogueName, epilogueText } from "./matmul_epilogue.ts";
import { termsText } from "./matmul_split.ts";
import text from "./matmul_register.wgsl" with { type: "text" };

/** Which operand is transposed: NN `a b`, NT `a bᵀ`, TN `aᵀ b`. */
export type MatmulLayout = "NN" | "NT" | "TN";

/** A variant of the register kernel. */
export interface RegisterVariant {
  readonly layout: MatmulLayout;
  /** Lanes that share loads of A, a power of two: 1, or at most the subgroup size; `rows` is a multiple of it. */
  readonly lanes: number;
  /** False: sizes are no multiples of four. */
  readonly vector: boolean;
  /** C is written by vectors of four: N is a multiple of four, and for NT and scalars `columns` too. */
  readonly wide: boolean;
  /** Rows of C per thread; a multiple of 4 for TN. */
  readonly rows: number;
  /** Columns (NT, scalar) or vec4 columns (NN, TN) of C per thread. */
  readonly columns: number;
  /** Threads in a workgroup; a multiple of the subgroup size with `lanes` > 1. */
  readonly threads: number;
  /** A and B are textures. */
  readonly images: boolean;
  /**
   * Workgroups that follow each other have the same columns and other rows, not the same rows and other columns: what they share of
   * the larger operand comes from the cache.
   */
  readonly rowsFirst: boolean;
  /** TN: the number of steps is no multiple of four. */
  readonly ragged: boolean;
}

const components = "xyzw";

function range<T>(count: number, make: (i: number) => T): T[] {
  return Array.from({ length: count }, (_, i) => make(i));
}

/** Columns (elements of N) that a workgroup covers. */
export function workgroupColumns(variant: RegisterVariant): number {
  return variant.threads * variant.columns * (variant.layout === "NT" || !variant.vector ? 1 : 4);
}

/** `name` as the lane that differs by `turn` has it. */
function fromLane(name: string, turn: number): string {
  return turn === 0 ? name : `subgroupShuffleXor(${name}, ${turn}u)`;
}

/** The vector of an operand at a row and a column of vectors. */
function at({ images }: RegisterVariant, operand: "a" | "b", row: string, column: string): string {
  return images
    ? `load_${operand}(${operand}Start + ${column}, ${row})`
    : `load_${operand}(${operand}Start + (${row}) * (p.ld${operand} / 4u) + ${column})`;
}

/** How A is loaded, of which row (behind the workgroup's first) a thread's sums i are, and where the value at step u is found. */
interface OperandA {
  readonly setup: string[];
  readonly loads: string[];
  row(i: number): string;
  value(i: number, u: number): string;
}

/** A `[M, K]`: vectors run along k. */
function rowsOfA(variant: RegisterVariant): OperandA {
  const { lanes, rows } = variant;
  const shared = lanes > 1;
  return {
    setup: range(rows / lanes, (r) => `let ra${r} = min(row + ${r * lanes}u${shared ? " + lane" : ""}, lastRow);`),
    loads: range(rows / lanes, (r) => `let a${r} = ${at(variant, "a", `ra${r}`, "k / 4u")};`),
    row: (i) => shared ? `${i - i % lanes}u + (lane ^ ${i % lanes}u)` : `${i}u`,
    value: (i, u) => fromLane(`a${i / lanes | 0}.${components[u]}`, i % lanes),
  };
}

/** A `[K, M]`: vectors run along m; the lanes cover several k where the rows are few. */
function columnsOfA(variant: RegisterVariant): OperandA {
  const { lanes, rows, ragged } = variant;
  const vectors = rows / 4;
  // Lanes cover `across` vectors of each of `steps` k; a step takes `parts` loads.
  const across = Math.min(vectors, lanes);
  const steps = lanes / across;
  const parts = vectors / across;
  const loads = range(4 / steps, (l) => range(parts, (q) => [l, q])).flat();
  const shared = lanes > 1;
  return {
    setup: [
      shared ? `let laneK = lane / ${across}u;` : "let laneK = 0u;",
      `let lastVector = p.M / 4u - 1u;`,
      ...range(
        parts,
        (q) => `let ca${q} = min(row / 4u + ${q * across}u${shared ? ` + lane % ${across}u` : ""}, lastVector);`,
      ),
    ],
    loads: loads.flatMap(([l, q]) => {
      const k = `k + ${l * steps}u + laneK`;
      return ragged
        ? [
          `let a${l}_${q} = select(vec4f(0.0), ${at(variant, "a", `min(${k}, lastK)`, `ca${q}`)}, ${k} < K);`,
        ]
        : [`let a${l}_${q} = ${at(variant, "a", k, `ca${q}`)};`];
    }),
    row: (i) => {
      const [vector, turn] = [i >> 2, (i >> 2) % across];
      const own = shared ? `${vector - turn}u + ((lane ^ ${turn}u) & ${across - 1}u)` : `${vector}u`;
      return `4u * (${own}) + ${i & 3}u`;
    },
    value: (i, u) => {
      const [vector, turn] = [i >> 2, (i >> 2) % across];
      const name = `a${u / steps | 0}_${vector / across | 0}.${components[i & 3]}`;
      if (steps === 1 || !shared) return fromLane(name, turn);
      return `subgroupShuffle(${name}, ((lane ^ ${turn}u) & ${across - 1}u) + ${(u % steps) * across}u)`;
    },
  };
}

/**
 * The lines that add the bias and store the sums; c`i`_`j` is the sum of row i and column (of vectors) j. Rows that all lanes
 * write a part of follow each other, so that cache lines are filled before they leave.
 */
function stores(
  { layout, rows, columns, threads, wide }: RegisterVariant,
  scalars: boolean,
  { bias }: Epilogue,
  rowOf: OperandA["row"],
): string[] {
  const gathered = scalars && wide;
  const places = !scalars
    ? range(columns, (j) => `n${j}`)
    : wide
    ? range(columns / 4, (q) => `first * ${columns / 4}u + ${q}u`)
    : range(columns, (j) => `first0 + ${j * threads}u`);
  const sum = (i: number, j: number) =>
    gathered ? `vec4f(${range(4, (l) => `c${i}_${4 * j + l}`).join(", ")})` : `c${i}_${j}`;
  const order = layout === "TN" && rows % 4 === 0
    ? range(rows, (i) => i % (rows / 4) * 4 + (i / (rows / 4) | 0))
    : range(rows, (i) => i);
  return [
    ...(bias ? places.map((place, j) => `let bias${j} = biasOf(${place});`) : []),
    ...order.flatMap((i) =>
      places.map((place, j) => `finish(row + ${rowOf(i)}, ${place}, cStart, ${sum(i, j)}${bias ? ` + bias${j}` : ""});`)
    ),
  ];
}

/** The columns of a thread's scalar sums: beside each other, or as far apart as there are threads. */
function scalarColumns({ columns, threads, wide }: RegisterVariant): string[] {
  return [
    `let first0 = group.x * ${threads * columns}u + local.x;`,
    ...range(columns, (j) => `let n${j} = ${wide ? `first * ${columns}u + ${j}u` : `first0 + ${j * threads}u`};`),
  ];
}

function vectorBody(variant: RegisterVariant, epilogue: Epilogue): string[] {
  const { layout, rows, columns, threads, ragged } = variant;
  const operand = layout === "TN" ? columnsOfA(variant) : rowsOfA(variant);
  const transposed = layout === "NT";
  const type = transposed ? "f32" : "vec4f";
  return [
    ...operand.setup,
    "let lastK = p.K - 1u;",
    ...(transposed
      ? scalarColumns(variant)
      : range(columns, (j) => `let n${j} = group.x * ${threads * columns}u + local.x + ${j * threads}u;`)),
    ...range(columns, (j) => `let nb${j} = min(n${j}, p.N${transposed ? "" : " / 4u"} - 1u);`),
    ...range(rows, (i) => range(columns, (j) => `var c${i}_${j} = ${type}(0.0);`)).flat(),
    ...(epilogue.sums ? range(columns, (j) => `var sum${j} = ${type}(0.0);`) : []),
    "for (var k = begin; k < K; k += 4u) {",
    ...operand.loads,
    // TN may end between steps of four: the values of A are 0 there, and B is read at its last row.
    ...(transposed
      ? range(columns, (j) => `let b${j} = ${at(variant, "b", `nb${j}`, "k / 4u")};`)
      : range(4, (u) =>
        range(columns, (j) =>
          `let b${u}_${j} = ${at(variant, "b", ragged ? `min(k + ${u}u, lastK)` : `k + ${u}u`, `nb${j}`)};`)).flat()),
    ...(epilogue.sums
      ? range(
        4,
        (u) =>
          range(columns, (j) =>
            ragged ? `sum${j} += select(${type}(0.0), b${u}_${j}, k + ${u}u < K);` : `sum${j} += b${u}_${j};`),
      ).flat()
      : []),
    // Row by row: a row's sums stay in machine registers for four steps, where those of all rows do not fit. fma, since
    // software drivers make two instructions of a product and a sum: twice the peak.
    ...range(rows, (i) => [
      ...range(4, (u) => `let x${u}_${i} = ${type}(${operand.value(i, u)});`),
      ...range(columns, (j) =>
        range(4, (u) => {
          const factor = transposed ? `b${j}.${components[u]}` : `b${u}_${j}`;
          return `c${i}_${j} = fma(x${u}_${i}, ${factor}, c${i}_${j});`;
        })).flat(),
    ]).flat(),
    "}",
    ...columnSums(variant, epilogue),
    ...stores(variant, transposed, epilogue, operand.row),
  ];
}

/** The lines by which the workgroups of the first rows add the sums of B's columns. */
function columnSums({ columns }: RegisterVariant, { sums }: Epilogue): string[] {
  return sums ? ["if (row == 0u) {", ...range(columns, (j) => `addSum(n${j}, cStart, sum${j});`), "}"] : [];
}

/** One element of A and B at a time, in blocks of 64 steps so that long sums stay exact. */
function scalarBody(variant: RegisterVariant, epilogue: Epilogue): string[] {
  const { layout, rows, columns } = variant;
  const a = (i: number) =>
    layout === "TN"
      ? `load_a(aStart + k * p.lda + min(row + ${i}u, lastRow))`
      : `load_a(aStart + min(row + ${i}u, lastRow) * p.lda + k)`;
  const b = (j: number) => `load_b(bStart + ${layout === "NT" ? `nb${j} * p.ldb + k` : `k * p.ldb + nb${j}`})`;
  const sums = range(rows, (i) => range(columns, (j) => `${i}_${j}`)).flat();
  return [
    ...scalarColumns(variant),
    ...range(columns, (j) => `let nb${j} = min(n${j}, p.N - 1u);`),
    ...sums.map((sum) => `var c${sum} = 0.0;`),
    ...(epilogue.sums ? range(columns, (j) => `var sum${j} = 0.0;`) : []),
    "for (var block = begin; block < K; block += 64u) {",
    ...sums.map((sum) => `var s${sum} = 0.0;`),
    ...(epilogue.sums ? range(columns, (j) => `var part${j} = 0.0;`) : []),
    "for (var k = block; k < min(block + 64u, K); k += 1u) {",
    ...range(columns, (j) => `let v${j} = ${b(j)};`),
    ...(epilogue.sums ? range(columns, (j) => `part${j} += v${j};`) : []),
    ...range(rows, (i) => [
      `let u${i} = ${a(i)};`,
      ...range(columns, (j) => `s${i}_${j} += u${i} * v${j};`),
    ]).flat(),
    "}",
    ...sums.map((sum) => `c${sum} += s${sum};`),
    ...(epilogue.sums ? range(columns, (j) => `sum${j} += part${j};`) : []),
    "}",
    ...columnSums(variant, epilogue),
    ...stores(variant, true, epilogue, (i) => `${i}u`),
  ];
}

/** The WGSL of a variant; `types` are the element types of a, b, c, bias (or sums), addend and side. */
export function registerKernel(
  variant: RegisterVariant,
  epilogue: Epilogue,
  types: readonly (DataType | undefined)[],
): Kernel {
  const { layout, lanes, vector, rows, columns, threads, images, wide } = variant;
  const type = vector ? "vec4f" : "f32";
  const operand = (binding: number, name: string) =>
    images ? `{{image ${binding} ${name}}}` : `{{storage ${binding} ${name} ${type}}}`;
  const made = kernel("kernels/matmul_register.wgsl", text, {
    OPERANDS: `${operand(1, "a")}\n${operand(2, "b")}`,
    EPILOGUE: epilogueText(epilogue, wide ? "vec4f" : "f32"),
    ORDER: variant.rowsFirst ? "yxz" : "xyz",
    WIDTH: vector ? 4 : 1,
    C_WIDTH: wide ? 4 : 1,
    THREADS: threads,
    ROWS: rows,
    TERMS: termsText(epilogue),
    LANE: lanes > 1 ? ",\n  @builtin(subgroup_invocation_id) invocation: u32" : "",
    BODY: [
      ...(lanes > 1 ? [`let lane = invocation & ${lanes - 1}u;`] : []),
      ...(vector ? vectorBody : scalarBody)(variant, epilogue),
    ]
      .map((line) => `  ${line}`).join("\n"),
  }, types);
  const kind = lanes > 1 ? `broadcast ${lanes}` : vector ? "direct" : "scalar";
  const halves = types.some((dtype) => dtype === "f16" || dtype === "bf16") ? " halves" : "";
  const flags = `${images ? " images" : ""}${variant.ragged ? " ragged" : ""}${wide ? "" : " narrow"}${halves}`;
  return { ...made, variant: `${layout} ${kind} ${rows}x${columns}${flags}${epilogueName(epilogue)}` };
}
