/**
 * Matrix product with an epilogue: `c = op(a) op(b) (+ bias) (+ addend)`, or `c += …`.
 *
 * NN: a [M, K], b [K, N]. NT: a [M, K], b [N, K]. TN: a [K, M], b [K, N]. Leading extents are flattened into rows, or
 * are a batch of independent products. 2 M N K flops; 4 (M K + K N + M N) bytes at least.
 * @module
 */

import type { Capabilities } from "../gpu/capabilities.ts";
import {
  ceilDivide,
  type Dispatch,
  type Kernel,
  type RowRange,
  rowRanges,
  type Target,
  type Window,
  windowOf,
} from "../graph/dispatch.ts";
import type { Backward, Op, OpDefinition } from "../graph/graph.ts";
import { elementCount, rowCount, rowSize, type Tensor } from "../graph/tensor.ts";
import { columnSum } from "./column_sum.ts";
import { type MatmulLayout, registerKernel, type RegisterVariant, workgroupColumns } from "./matmul_register.ts";
import { tileKernel, tileSize } from "./matmul_tile.ts";

/** Constants of a product. */
export interface MatmulAttributes {
  readonly layout: MatmulLayout;
  /** A third input `[N]` is added to every row. */
  readonly bias?: boolean;
  /** A last input `[M, N]` is added. */
  readonly addend?: boolean;
  /** The output given is added to instead of overwritten. */
  readonly accumulate?: boolean;
  /** Number of independent products; the leading extents of all operands multiply to it. */
  readonly batch?: number;
  /** `rowUnit` of the output, where a later op needs whole sequences. */
  readonly rowUnit?: number;
}

interface Sizes {
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

function sizesOf(a: Tensor, b: Tensor, { layout, batch = 1 }: MatmulAttributes): Sizes {
  const [aRows, aColumns] = [rowCount(a) / batch, rowSize(a)];
  const [bRows, bColumns] = [rowCount(b) / batch, rowSize(b)];
  const [M, K] = layout === "TN" ? [aColumns, aRows] : [aRows, aColumns];
  const [N, otherK] = layout === "NT" ? [bRows, bColumns] : [bColumns, bRows];
  if (K !== otherK) throw new RangeError(`matmul ${layout} of [${a.shape}] and [${b.shape}]`);
  return { M, N, K };
}

/** A kernel with the part of C that its workgroup covers. */
interface Choice {
  readonly kernel: Kernel;
  readonly rows: number;
  readonly columns: number;
}

function register(wanted: RegisterVariant, K = 4): Choice {
  const variant = wanted.layout === "TN" && K % 4 !== 0 ? { ...wanted, ragged: true } : wanted;
  return { kernel: registerKernel(variant), rows: variant.rows, columns: workgroupColumns(variant) };
}

/** Sums of fewer rows than this are made by the direct kernel with as many rows as there are. */
const skinnyRows = 8;

/** Picks the family and variant for a product. */
export function chooseMatmul(capabilities: Capabilities, layout: MatmulLayout, { M, N, K }: Sizes): Choice {
  const vector = (layout === "TN" ? M % 4 === 0 : K % 4 === 0) && (layout === "NT" ? true : N % 4 === 0);
  if (!vector) return register({ layout, broadcast: false, vector: false, rows: 4, columns: 1, threads: 64 });
  if (M < skinnyRows) {
    const rows = layout === "TN" ? 4 : M <= 1 ? 1 : 4;
    return register({ layout, broadcast: false, vector: true, rows, columns: 1, threads: 64 }, K);
  }
  if (capabilities.type === "gpu" && N % 4 === 0) {
    return { kernel: tileKernel(layout), rows: tileSize, columns: tileSize };
  }
  if (capabilities.subgroupSize >= 8 && capabilities.subgroupSize <= 64) {
    const threads = Math.max(8, capabilities.subgroupSize);
    if (M < 32) return register({ layout, broadcast: true, vector: true, rows: 16, columns: 1, threads }, K);
    // 1024 x 768 x 768 on lavapipe 22.3, shares of the multiply-add peak: NN and TN 16 rows x 2 vec4 0.26, 32 x 2 0.34; NT
    // 16 x 4 0.26, 32 x 4 0.33. Workgroups of two subgroups lose a seventh: they halve what stays in the cache. More
    // sums a thread gain little and compile for 4 to 10 s, these for 3; drivers keep the result.
    if (layout === "NT") return register({ layout, broadcast: true, vector: true, rows: 32, columns: 4, threads });
    const columns = N >= 8 * threads ? 2 : 1;
    const wide = N % 64 === 0 && threads === 8;
    return register({
      layout,
      broadcast: true,
      vector: true,
      rows: wide ? 32 : 16,
      columns,
      threads,
    }, K);
  }
  return register(
    { layout, broadcast: false, vector: true, rows: 8, columns: layout === "NT" ? 2 : 1, threads: 32 },
    K,
  );
}

/** The matrix product op. Inputs `[a, b, bias?, addend?]`; output `[M, N]` with the leading extents of `a` kept. */
export const matmul: OpDefinition<MatmulAttributes> = {
  name: "matmul",
  infer([a, b], attributes) {
    const { M, N } = sizesOf(a, b, attributes);
    const unit = attributes.rowUnit ? { rowUnit: attributes.rowUnit } : {};
    if (attributes.layout !== "TN") return [{ shape: [...a.shape.slice(0, -1), N], ...unit }];
    return [{ shape: attributes.batch ? [...a.shape.slice(0, -2), M, N] : [M, N] }];
  },

  gradient(backward, op) {
    const dc = backward.gradientOf(op.outputs[0]);
    if (!dc) return;
    const { layout, bias, addend, batch } = op.attributes;
    const [a, b, ...rest] = op.inputs;
    const products = {
      NN: { a: [dc, b, "NT"], b: [a, dc, "TN"] },
      NT: { a: [dc, b, "NN"], b: [dc, a, "TN"] },
      TN: { a: [b, dc, "NT"], b: [a, dc, "NN"] },
    } as const;
    if (addend && backward.needs(rest[rest.length - 1])) backward.give(rest[rest.length - 1], dc);
    if (bias && backward.needs(rest[0])) giveColumnSum(backward, op, rest[0], dc);
    for (const [input, [left, right, form]] of [[b, products[layout].b], [a, products[layout].a]] as const) {
      if (backward.needs(input)) {
        giveProduct(backward, op, input, left, right, { layout: form, ...(batch ? { batch } : {}) });
      }
    }
  },

  lower(op, target) {
    const { attributes, outputs: [c] } = op;
    const [a, b] = op.inputs;
    const bias = attributes.bias ? op.inputs[2] : undefined;
    const addend = attributes.addend ? op.inputs[op.inputs.length - 1] : undefined;
    const sizes = sizesOf(a, b, attributes);
    if (attributes.batch && attributes.batch > 1) {
      return [product(target, { ...op, attributes }, sizes, whole(sizes), { a, b, c, bias, addend })];
    }
    return pieces(target, attributes.layout, sizes, a, b, c, addend)
      .map((piece) => product(target, op, sizes, piece, { a, b, c, bias, addend }));
  },
};

/** The part of a product that one dispatch computes. */
interface Piece {
  readonly m: RowRange;
  readonly n: RowRange;
  readonly k: RowRange;
}

function whole({ M, N, K }: Sizes): Piece {
  return { m: { start: 0, count: M }, n: { start: 0, count: N }, k: { start: 0, count: K } };
}

/** Of sums longer than this, software drivers make `cachedTerms` at a time: both operands' panels of these stay in the cache. */
const longSum = 1024;
/** 256 x 50304 x 384 on lavapipe, GFLOP/s: whole 14, 2048 terms 28, 1024 25 to 36, 512 33 to 36. Shorter sums load and store C too often. */
const cachedTerms = 512;

/** Pieces of a sum; what has two bytes an element would be rounded at each. */
function sumRanges(target: Target, { start, count }: RowRange, c: Tensor): RowRange[] {
  if (target.capabilities.type !== "cpu" || count <= longSum || c.dtype !== "f32") return [{ start, count }];
  return Array.from({ length: ceilDivide(count, cachedTerms) }, (_, i) => ({
    start: start + i * cachedTerms,
    count: Math.min(cachedTerms, count - i * cachedTerms),
  }));
}

/** Ranges of M, N and K such that no operand's rows cross a cut. */
function pieces(
  target: Target,
  layout: MatmulLayout,
  sizes: Sizes,
  a: Tensor,
  b: Tensor,
  c: Tensor,
  addend: Tensor | undefined,
): Piece[] {
  const all = whole(sizes);
  const likeC = addend ? [c, addend] : [c];
  // Rows of C are M; rows of A are M, or K when transposed; rows of B are K, or N when transposed.
  const m = rowRanges(target, layout === "TN" ? likeC : [a, ...likeC]);
  const n = layout === "NT" ? rowRanges(target, [b]) : [all.n];
  const k = layout === "NT"
    ? [all.k]
    : rowRanges(target, layout === "TN" ? [a, b] : [b]).flatMap((range) => sumRanges(target, range, c));
  return m.flatMap((m) => n.flatMap((n) => k.map((k) => ({ m, n, k }))));
}

interface Operands {
  readonly a: Tensor;
  readonly b: Tensor;
  readonly c: Tensor;
  readonly bias: Tensor | undefined;
  readonly addend: Tensor | undefined;
}

function product(target: Target, op: Op<MatmulAttributes>, sizes: Sizes, piece: Piece, operands: Operands): Dispatch {
  const { layout, accumulate, batch = 1 } = op.attributes;
  const { m, n, k } = piece;
  const { a, b, c, bias, addend } = operands;
  const choice = chooseMatmul(target.capabilities, layout, { M: m.count, N: n.count, K: k.count });
  const first = k.start === 0;
  const flags = (bias && first ? 1 : 0) | (addend && first ? 2 : 0) | (accumulate || !first ? 4 : 0);
  const rowsOf = (tensor: Tensor, range: RowRange): Window => batch > 1 ? windowOf(tensor) : windowOf(tensor, range);
  const [lda, ldb, ldc] = [rowSize(a), rowSize(b), rowSize(c)];
  const windows = [
    rowsOf(a, layout === "TN" ? k : m),
    rowsOf(b, layout === "NT" ? n : k),
    rowsOf(c, m),
    bias && first ? windowOf(bias) : undefined,
    addend && first ? rowsOf(addend, m) : undefined,
  ];
  const aStart = layout === "TN" ? m.start : k.start;
  const { M, N, K } = sizes;
  return {
    kernel: choice.kernel,
    windows,
    uniforms: [
      m.count,
      n.count,
      k.count,
      lda,
      ldb,
      ldc,
      aStart,
      0,
      n.start,
      n.start,
      batch > 1 ? M * K : 0,
      batch > 1 ? K * N : 0,
      batch > 1 ? M * N : 0,
      flags,
    ],
    workgroups: [ceilDivide(n.count, choice.columns), ceilDivide(m.count, choice.rows), batch],
    flops: 2 * m.count * n.count * k.count * batch,
    bytes: 4 * batch * (m.count * k.count + k.count * n.count + m.count * n.count),
  };
}

function giveProduct(
  backward: Backward,
  op: Op<MatmulAttributes>,
  input: Tensor,
  left: Tensor,
  right: Tensor,
  attributes: MatmulAttributes,
): void {
  const name = `${op.name}.d${input === op.inputs[0] ? "input" : "weight"}`;
  if (input.role === "parameter") {
    backward.add(matmul, [left, right], { ...attributes, accumulate: true }, {
      name,
      outputs: [backward.accumulator(input)],
    });
    return;
  }
  const addend = backward.take(input);
  const [gradient] = backward.add(
    matmul,
    addend ? [left, right, addend] : [left, right],
    { ...attributes, ...(addend ? { addend: true } : {}), rowUnit: input.rowUnit },
    { name },
  );
  if (elementCount(gradient) !== elementCount(input)) throw new Error(`Gradient of ${input.name} has another shape`);
  backward.give(input, gradient);
}

function giveColumnSum(backward: Backward, op: Op<MatmulAttributes>, bias: Tensor, dc: Tensor): void {
  const name = `${op.name}.dbias`;
  if (bias.role === "parameter") {
    backward.add(columnSum, [dc], { accumulate: true }, { name, outputs: [backward.accumulator(bias)] });
  } else backward.give(bias, backward.add(columnSum, [dc], {}, { name })[0]);
}
