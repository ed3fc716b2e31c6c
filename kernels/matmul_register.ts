/**
 * Matrix product in registers: every thread holds ROWS x COLUMNS sums (a column is a vec4 for NN and TN).
 *
 * Variants:
 * - `broadcast`: eight lanes load eight different vectors of A and hand them round with `subgroupBroadcast`. On software
 *   drivers every load is a gather of eight lanes, whatever it fetches, so this divides the loads of A by eight: 0.3 to
 *   0.4 of the multiply-add peak of lavapipe against 0.15 without. Needs subgroups of at least 8 lanes.
 * - `direct`: every thread loads all it needs. For software drivers without subgroups, and for few rows.
 * - scalar (`vector: false`): one element at a time for sizes that are no multiple of four.
 * @module
 */

import { type Kernel, kernel } from "../graph/dispatch.ts";
import text from "./matmul_register.wgsl" with { type: "text" };

/** Which operand is transposed: NN `a b`, NT `a bᵀ`, TN `aᵀ b`. */
export type MatmulLayout = "NN" | "NT" | "TN";

/** A variant of the register kernel. */
export interface RegisterVariant {
  readonly layout: MatmulLayout;
  readonly broadcast: boolean;
  /** False: sizes are no multiples of four. */
  readonly vector: boolean;
  /** Rows of C per thread; a multiple of 8 with `broadcast`, of 4 for TN. */
  readonly rows: number;
  /** Columns (NT) or vec4 columns (NN, TN) of C per thread. */
  readonly columns: number;
  /** Threads in a workgroup; a multiple of the subgroup size with `broadcast`. */
  readonly threads: number;
  /** TN: the number of steps is no multiple of four. */
  readonly ragged?: boolean;
}

const components = "xyzw";

function range<T>(count: number, make: (i: number) => T): T[] {
  return Array.from({ length: count }, (_, i) => make(i));
}

/** Columns (elements of N) that a workgroup covers. */
export function workgroupColumns(variant: RegisterVariant): number {
  return variant.threads * variant.columns * (variant.layout === "NT" || !variant.vector ? 1 : 4);
}

/** How the lines that load A are made, and where the value of row i at step u is then found. */
interface OperandA {
  readonly setup: string[];
  readonly loads: string[];
  readonly advance: string[];
  value(i: number, u: number): string;
}

/** A `[M, K]`: vectors run along k. */
function rowsOfA({ broadcast, rows }: RegisterVariant): OperandA {
  const pointers = broadcast ? rows / 8 : rows;
  const rowOf = (r: number) => broadcast ? `row + ${8 * r}u + lane` : `row + ${r}u`;
  return {
    setup: range(pointers, (r) => `var pa${r} = (aStart + min(${rowOf(r)}, lastRow) * p.lda) / 4u;`),
    loads: range(pointers, (r) => `let a${r} = a[pa${r}];`),
    advance: range(pointers, (r) => `pa${r} += 1u;`),
    value: (i, u) => broadcast ? `subgroupBroadcast(a${i >> 3}.${components[u]}, ${i & 7}u)` : `a${i}.${components[u]}`,
  };
}

/** A `[K, M]`: vectors run along m; with `broadcast` the eight lanes cover several k where the rows are few. */
function columnsOfA({ broadcast, rows, ragged }: RegisterVariant): OperandA {
  const vectors = rows / 4;
  const steps = broadcast ? 8 / vectors : 1;
  const names = broadcast
    ? range(4 / steps, (l) => [l * steps, 0])
    : range(4 * vectors, (l) => [l / vectors | 0, l % vectors]);
  const lane = broadcast && steps > 1 ? [`let laneK = lane / ${vectors}u;`] : [`let laneK = 0u;`];
  const column = broadcast ? `row / 4u + lane % ${vectors}u` : `row / 4u`;
  return {
    setup: [
      ...lane,
      `let lastVector = p.M / 4u - 1u;`,
      ...range(broadcast ? 1 : vectors, (q) => `let ca${q} = aStart / 4u + min(${column} + ${q}u, lastVector);`),
    ],
    loads: names.flatMap(([step, q], l) =>
      ragged
        ? [
          `let k${l} = k + ${step}u + laneK;`,
          `let a${l} = select(vec4f(0.0), a[min(k${l}, lastK) * stepA + ca${q}], k${l} < K);`,
        ]
        : [`let a${l} = a[(k + ${step}u + laneK) * stepA + ca${q}];`]
    ),
    advance: [],
    value: (i, u) =>
      broadcast
        ? `subgroupBroadcast(a${u / steps | 0}.${components[i & 3]}, ${(u % steps) * vectors + (i >> 2)}u)`
        : `a${u * vectors + (i >> 2)}.${components[i & 3]}`,
  };
}

function vectorBody(variant: RegisterVariant): string {
  const { layout, rows, columns, threads } = variant;
  const operand = layout === "TN" ? columnsOfA(variant) : rowsOfA(variant);
  const transposed = layout === "NT";
  const type = transposed ? "f32" : "vec4f";
  const sums = range(rows, (i) => range(columns, (j) => `c${i}_${j}`));
  const lines = [
    ...operand.setup,
    "let lastK = p.K - 1u;",
    ...range(columns, (j) => `let n${j} = first + ${j * threads}u;`),
    ...range(
      columns,
      (j) =>
        transposed
          ? `var pb${j} = (bStart + min(n${j}, p.N - 1u) * p.ldb) / 4u;`
          : `var pb${j} = bStart / 4u + min(n${j}, p.N / 4u - 1u);`,
    ),
    "let stepA = p.lda / 4u;",
    "let stepB = p.ldb / 4u;",
    "let K = p.K;",
    ...sums.flat().map((name) => `var ${name} = ${type}(0.0);`),
    "for (var k = 0u; k < K; k += 4u) {",
    ...operand.loads,
    ...(transposed ? range(columns, (j) => `let b${j} = b[pb${j}];`) : range(4, (u) => [
      // TN may end between steps of four: the values of A are 0 there, and B is read at its last row.
      ...(u === 0
        ? []
        : [variant.ragged ? `let r${u} = min(${u}u, lastK - k) * stepB;` : `let r${u} = ${u}u * stepB;`]),
      ...range(columns, (j) => `let b${u}_${j} = b[pb${j}${u === 0 ? "" : ` + r${u}`}];`),
    ]).flat()),
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
    ...operand.advance,
    ...range(columns, (j) => transposed ? `pb${j} += 1u;` : `pb${j} += 4u * stepB;`),
    "}",
    ...sums.flatMap((names, i) => names.map((name, j) => `store(row + ${i}u, n${j}, cStart, ${name});`)),
  ];
  return lines.join("\n  ");
}

/** One element of C per thread and row, in blocks of 64 steps so that long sums stay exact. */
function scalarBody({ layout, rows }: RegisterVariant): string {
  const a = (i: number) =>
    layout === "TN"
      ? `a[aStart + k * p.lda + min(row + ${i}u, lastRow)]`
      : `a[aStart + min(row + ${i}u, lastRow) * p.lda + k]`;
  const b = layout === "NT" ? "b[bStart + column * p.ldb + k]" : "b[bStart + k * p.ldb + column]";
  return [
    "let column = min(first, p.N - 1u);",
    ...range(rows, (i) => `var c${i} = 0.0;`),
    "for (var block = 0u; block < p.K; block += 64u) {",
    ...range(rows, (i) => `var s${i} = 0.0;`),
    "for (var k = block; k < min(block + 64u, p.K); k += 1u) {",
    `let v = ${b};`,
    ...range(rows, (i) => `s${i} += ${a(i)} * v;`),
    "}",
    ...range(rows, (i) => `c${i} += s${i};`),
    "}",
    ...range(rows, (i) => `store(row + ${i}u, first, cStart, c${i});`),
  ].join("\n  ");
}

/** The WGSL of a variant. */
export function registerKernel(variant: RegisterVariant): Kernel {
  const { layout, broadcast, vector, rows, columns, threads } = variant;
  const wideC = vector && layout !== "NT";
  return {
    ...kernel("kernels/matmul_register.wgsl", text, {
      A_TYPE: vector ? "vec4f" : "f32",
      B_TYPE: vector ? "vec4f" : "f32",
      C_TYPE: wideC ? "vec4f" : "f32",
      C_WIDTH: wideC ? 4 : 1,
      THREADS: threads,
      ROWS: rows,
      COLUMNS: threads * columns,
      LANE: broadcast ? ",\n  @builtin(subgroup_invocation_id) invocation: u32" : "",
      BODY: (broadcast ? "  let lane = invocation & 7u;\n  " : "  ") +
        (vector ? vectorBody(variant) : scalarBody(variant)),
    }),
    variant: `${layout} ${broadcast ? "broadcast" : "direct"} ${rows}x${columns}${vector ? "" : " scalar"}${
      variant.ragged ? " ragged" : ""
    }`,
  };
}
