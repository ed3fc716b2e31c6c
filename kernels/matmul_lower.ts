/**
 * How a matrix product becomes dispatches: pieces whose operands' rows cross no cut, each by the kernel chosen for it.
 * @module
 */

import type { ProductVariant } from "../gpu/capabilities.ts";
import {
  ceilDivide,
  type Dispatch,
  type RowRange,
  rowRanges,
  type Target,
  type Window,
  windowOf,
} from "../graph/dispatch.ts";
import type { Op } from "../graph/graph.ts";
import { imageOf } from "../graph/images.ts";
import { bytesOf, rowCount, rowSize, type Tensor } from "../graph/tensor.ts";
import { type Epilogue, noEpilogue } from "./matmul_epilogue.ts";
import { type MatmulLayout, registerKernel, workgroupColumns } from "./matmul_register.ts";
import { addParts, splitOf } from "./matmul_split.ts";
import { tileKernel } from "./matmul_tile.ts";
import { chooseProduct, type Sizes, variantOf } from "./matmul_variants.ts";

/** Constants of a product. */
export interface MatmulAttributes {
  readonly layout: MatmulLayout;
  /** A third input `[N]` is added to every row. */
  readonly bias?: boolean;
  /** A last input `[M, N]` is added. */
  readonly addend?: boolean;
  /** The output given is added to instead of overwritten. */
  readonly accumulate?: boolean;
  /** TN: a second output `[N]` gets the sums of b's columns added: the gradient of a bias along with that of the weights. */
  readonly sums?: boolean;
  /** Number of independent products; the leading extents of all operands multiply to it. */
  readonly batch?: number;
  /**
   * `gelu`: a second output gets GELU of the first (which its gradient needs). `geluGradient`: the product is the gradient of
   * GELU's result, and is multiplied by GELU's slope at the last input, which is behind the addend.
   */
  readonly activation?: "gelu" | "geluGradient";
  /** `a` is GELU of this, which then gets its gradient at once. */
  readonly activated?: Tensor;
  /** `rowUnit` of the output, where a later op needs whole sequences. */
  readonly rowUnit?: number;
}

/** Extents of a product; throws `RangeError` where the operands do not fit. */
export function sizesOf(a: Tensor, b: Tensor, { layout, batch = 1 }: MatmulAttributes): Sizes {
  const [aRows, aColumns] = [rowCount(a) / batch, rowSize(a)];
  const [bRows, bColumns] = [rowCount(b) / batch, rowSize(b)];
  const [M, K] = layout === "TN" ? [aColumns, aRows] : [aRows, aColumns];
  const [N, otherK] = layout === "NT" ? [bRows, bColumns] : [bColumns, bRows];
  if (K !== otherK) throw new RangeError(`matmul ${layout} of [${a.shape}] and [${b.shape}]`);
  return { M, N, K };
}

/** The dispatches of a product, in order. */
export function lowerMatmul(op: Op<MatmulAttributes>, target: Target): Dispatch[] {
  const { attributes: { layout, bias, addend, activation, sums, batch = 1 }, inputs, outputs } = op;
  const [a, b, ...rest] = inputs;
  const operands: Operands = {
    a,
    b,
    c: outputs[0],
    bias: bias ? rest[0] : undefined,
    sums: sums ? outputs[1] : undefined,
    addend: addend ? rest[bias ? 1 : 0] : undefined,
    side: activation === "gelu" ? outputs[1] : activation ? rest[rest.length - 1] : undefined,
  };
  const sizes = sizesOf(a, b, op.attributes);
  const variant = variantOf(target.capabilities, layout, sizes, b.dtype);
  const parts = batch > 1 ? [whole(sizes)] : pieces(target, layout, sizes, operands, variant);
  return parts.flatMap((piece) => product(target, op, sizes, piece, operands, variant));
}

/** The part of a product that one dispatch computes, or two where its sums are cut into parts. */
interface Piece {
  readonly m: RowRange;
  readonly n: RowRange;
  readonly k: RowRange;
}

function whole({ M, N, K }: Sizes): Piece {
  return { m: { start: 0, count: M }, n: { start: 0, count: N }, k: { start: 0, count: K } };
}

/**
 * Of longer sums, software drivers make so many terms at a time: both operands' panels of these stay in the cache. lavapipe 22.3 with 512, 1024,
 * 2048 terms and all, GFLOP/s: NN 1024 x 768 x 3072 161, 156, 140, 129; TN 384 x 384 x 4096 76, 94, 90, 104.
 */
const cachedTerms = 1024;

/** Pieces of a sum; what has two bytes an element would be rounded at each. */
function sumRanges(target: Target, { start, count }: RowRange, c: Tensor): RowRange[] {
  if (target.capabilities.type !== "cpu" || count <= cachedTerms || c.dtype !== "f32") return [{ start, count }];
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
  { a, b, c, addend, side }: Operands,
  { split }: ProductVariant,
): Piece[] {
  const all = whole(sizes);
  const likeC = [c, addend, side].filter((tensor) => tensor !== undefined);
  // Rows of C are M; rows of A are M, or K when transposed; rows of B are K, or N when transposed.
  const m = rowRanges(target, layout === "TN" ? likeC : [a, ...likeC]);
  const n = layout === "NT" ? rowRanges(target, [b]) : [all.n];
  const rows = layout === "NT" ? [all.k] : rowRanges(target, layout === "TN" ? [a, b] : [b]);
  const k = layout === "NT" || split ? rows : rows.flatMap((range) => sumRanges(target, range, c));
  return m.flatMap((m) => n.flatMap((n) => k.map((k) => ({ m, n, k }))));
}

interface Operands {
  readonly a: Tensor;
  readonly b: Tensor;
  readonly c: Tensor;
  readonly bias: Tensor | undefined;
  /** What the sums of b's columns are added to; there is no bias then. */
  readonly sums: Tensor | undefined;
  readonly addend: Tensor | undefined;
  /** What GELU is written to, or its slope taken at. */
  readonly side: Tensor | undefined;
}

/** What follows the sums of a piece; whether it reads images is for the kernel to say. */
function epilogueOf(op: Op<MatmulAttributes>, sizes: Sizes, { m, k }: Piece, operands: Operands): Epilogue {
  const { accumulate, activation } = op.attributes;
  const first = k.start === 0;
  // An activation function waits for the last of several sums.
  const last = k.start + k.count === sizes.K;
  return {
    bias: operands.bias !== undefined && first,
    addend: operands.addend !== undefined && first,
    accumulate: accumulate || !first,
    ...(activation && last ? { activation } : {}),
    ...(operands.sums && m.start === 0 ? { sums: true } : {}),
    images: false,
  };
}

function product(
  target: Target,
  op: Op<MatmulAttributes>,
  sizes: Sizes,
  piece: Piece,
  operands: Operands,
  variant: ProductVariant,
): Dispatch[] {
  const { layout, batch = 1, activation } = op.attributes;
  const { m, n, k } = piece;
  const { a, b, c, bias, sums, addend, side } = operands;
  const rowsOf = (tensor: Tensor, range: RowRange): Window => batch > 1 ? windowOf(tensor) : windowOf(tensor, range);
  const windowA = rowsOf(a, layout === "TN" ? k : m);
  const windowB = rowsOf(b, layout === "NT" ? n : k);
  const [imageA, imageB] = batch > 1 ? [] : [imageOf(windowA), imageOf(windowB)];
  const chosen = chooseProduct(target.capabilities, variant, {
    layout,
    sizes: { M: m.count, N: n.count, K: k.count },
    c: c.dtype,
    images: imageA !== undefined && imageB !== undefined,
  });
  const fromImages = "register" in chosen && chosen.register.images;
  const [rows, columns] = "register" in chosen
    ? [chosen.register.rows, workgroupColumns(chosen.register)]
    : [chosen.tile.tile.rows, chosen.tile.tile.columns];
  const grid = [ceilDivide(n.count, columns), ceilDivide(m.count, rows)];
  const [width, height] = "register" in chosen && chosen.register.rowsFirst ? [grid[1], grid[0]] : grid;

  const epilogue = epilogueOf(op, sizes, piece, operands);
  const reads = [addend, activation === "geluGradient" ? side : undefined].filter((tensor) => tensor !== undefined);
  const images = fromImages && reads.every((tensor) => imageOf(rowsOf(tensor, m)) !== undefined);
  const behind = (images: boolean): (Window | undefined)[] => {
    const read = (tensor: Tensor) => images ? imageOf(rowsOf(tensor, m)) : rowsOf(tensor, m);
    return [
      rowsOf(c, m),
      epilogue.bias ? windowOf(bias!) : epilogue.sums ? windowOf(sums!) : undefined,
      epilogue.addend ? read(addend!) : undefined,
      ...(epilogue.activation ? [activation === "gelu" ? rowsOf(side!, m) : read(side!)] : []),
    ];
  };
  const types = [c, bias ?? sums, addend, side].map((tensor) => tensor?.dtype);

  const split = batch > 1 ? undefined : splitOf(variant, width * height, k.count);
  const partialRows = m.count + (epilogue.sums ? 1 : 0);
  const partial = split && target.scratch([split.parts * partialRows, n.count]);
  const own: Epilogue = partial
    ? { ...noEpilogue, partial: true, ...(epilogue.sums ? { sums: true } : {}) }
    : { ...epilogue, images };
  const ownTypes = [a.dtype, b.dtype, ...(partial ? [] : types)];
  const { M, N, K } = sizes;
  const summed: Dispatch = {
    kernel: "register" in chosen
      ? registerKernel(chosen.register, own, ownTypes)
      : tileKernel(layout, chosen.tile, own, ownTypes),
    windows: [
      fromImages ? imageA : windowA,
      fromImages ? imageB : windowB,
      ...(partial ? [windowOf(partial)] : behind(images)),
    ],
    uniforms: [
      m.count,
      n.count,
      k.count,
      rowSize(a),
      rowSize(b),
      partial ? n.count : rowSize(c),
      layout === "TN" ? m.start : k.start,
      partial ? 0 : n.start,
      n.start,
      ...(batch > 1 ? [M * K, K * N, M * N] : [0, 0, partialRows * n.count]),
      split?.terms ?? 0,
    ],
    workgroups: [width, height, partial ? split.parts : batch],
    flops: 2 * m.count * n.count * k.count * batch,
    bytes: batch * (m.count * k.count * bytesOf(a.dtype) + k.count * n.count * bytesOf(b.dtype) +
      (partial ? 4 * split.parts : bytesOf(c.dtype)) * m.count * n.count),
  };
  if (!partial) return [summed];
  const sizesOfParts = { parts: split.parts, M: m.count, N: n.count, ldc: rowSize(c), start: n.start };
  return [
    summed,
    addParts({ partial: windowOf(partial), ...sizesOfParts, epilogue, windows: behind(false), types }),
  ];
}
