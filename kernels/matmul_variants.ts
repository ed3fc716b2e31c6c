/**
 * Which kernel computes a product: the tuner's choice for its class, or the built-in one.
 *
 * A class is a layout, whether C is small (few workgroups), small with long sums (tall) or large, and whether B is stored in halves.
 * What does not fit a shape (odd sizes, few rows, images that cannot be) has a fixed answer, so any variant is right for any
 * product of its class.
 * @module
 */

import type { Capabilities, ProductVariant } from "../gpu/capabilities.ts";
import { bytesOf, type DataType } from "../graph/tensor.ts";
import type { MatmulLayout, RegisterVariant } from "./matmul_register.ts";
import type { TileVariant } from "./matmul_tile.ts";

/** Extents of a product. */
export interface Sizes {
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/** Sums of fewer rows than this are made by the direct kernel with as many rows as there are. */
export const skinnyRows = 8;
/** Of C's elements: products below it have few workgroups. */
const smallElements = 2 ** 18;

/** Without images, which long sums have not, vectors lie side by side in a thread only where there are as many workgroups. */
const fewWorkgroups = 64;

/** Terms of sums that are long: where C is small too, GPUs cut them into parts (`matmul_split.ts`). */
const tallTerms = 2048;

/** The class of a product, e.g. `NT small f32`. */
export function productClass(layout: MatmulLayout, { M, N, K }: Sizes, b: DataType): string {
  const size = M * N >= smallElements ? "large" : K >= tallTerms ? "tall" : "small";
  return `${layout} ${size} ${bytesOf(b) === 2 ? "halves" : "f32"}`;
}

/** Lanes that share loads: a whole subgroup, unless there are fewer rows. */
function sharedLanes({ subgroupSize }: Capabilities, rows: number): number {
  return Math.min(subgroupSize, 2 ** Math.floor(Math.log2(rows)));
}

/** True if the adapter's subgroups are of use to the broadcast family. */
export function canBroadcast({ subgroupSize }: Capabilities): boolean {
  return subgroupSize >= 8 && subgroupSize <= 64;
}

/** A variant through workgroup memory. */
function tile(
  rows: number,
  columns: number,
  steps: number,
  own: readonly [number, number],
  unroll = steps,
): ProductVariant {
  return { family: "tile", rows: own[0], columns: own[1], tile: { rows, columns, steps, unroll } };
}

/** What GPUs of a vendor are likely to be best at (reports on llama.cpp, gpu.cpp, wgpu-mm and jax-js; none was measured here). */
function likelyTile(vendor: string, small: boolean): ProductVariant {
  if (/nvidia|10de/i.test(vendor)) return small ? tile(64, 64, 16, [4, 2]) : tile(128, 128, 16, [8, 2]);
  if (/amd|ati|1002/i.test(vendor)) return small ? tile(64, 64, 16, [8, 1]) : tile(128, 64, 16, [8, 1]);
  if (/apple|106b/i.test(vendor)) return tile(64, 64, 8, [8, 1], 4);
  return tile(64, 64, 16, [8, 1]);
}

/**
 * Workgroups that a GPU should have to do at a time: two to four for each core (streaming multiprocessor, compute unit, Xe core), of
 * which NVIDIA and AMD have 20 to 130, others 8 to 40. Not measured here.
 */
function likelySplit(vendor: string): number {
  return /nvidia|10de|amd|ati|1002/i.test(vendor) ? 128 : 64;
}

/**
 * Variants worth trying for a class, the likeliest first: it is the built-in choice. At most twelve.
 *
 * lavapipe 22.3, 1024 x 768 x 768, GFLOP/s with subgroups of 16 (8): NN, NT, TN from images 64 rows x 1 vector 174, 209, 181 (112, 125,
 * 123), 32 x 1 168, 174, 160 (113, 112, 112), 32 x 2 151, 177, 143 (112, 123, 111); from buffers half of it. Larger ones spill sums and
 * compile for seconds. Weight gradients of few workgroups (TN, 128 x 512 over 1,024 tokens) are 3 to 8% faster with 32 rows.
 */
export function productCandidates(capabilities: Capabilities, name: string): ProductVariant[] {
  const transposed = name.startsWith("NT");
  const small = !name.includes("large");
  const { type, vendor, workgroupStorage, workgroupInvocations } = capabilities;
  const broadcast = (rows: number, columns: number, images: boolean): ProductVariant => ({
    family: "broadcast",
    rows,
    columns: transposed ? 4 * columns : columns,
    ...(images ? { images } : {}),
  });
  const direct = (rows: number, columns: number): ProductVariant => ({
    family: "direct",
    rows,
    columns: transposed ? 4 * columns : columns,
  });
  if (type === "gpu") {
    const tiles = [
      likelyTile(vendor, small),
      tile(64, 64, 16, [8, 1]),
      tile(64, 64, 16, [4, 1]),
      tile(32, 32, 16, [4, 1]),
      tile(128, 64, 16, [8, 1]),
      tile(64, 64, 8, [8, 1], 4),
      tile(128, 128, 16, [8, 2]),
      tile(128, 128, 8, [8, 2], 4),
      tile(64, 128, 16, [8, 2]),
      tile(32, 64, 32, [4, 2], 8),
    ].filter(({ rows, columns, tile }) =>
      tile && 4 * tile.steps * (tile.rows + tile.columns) <= workgroupStorage &&
      tile.columns / (4 * columns) * tile.rows / rows <= workgroupInvocations
    );
    const others = [direct(8, 1), ...(canBroadcast(capabilities) ? [broadcast(32, 1, false)] : [])];
    const split = likelySplit(vendor);
    const [first, ...rest] = distinct([...tiles, ...others]).map((variant) => ({ ...variant, split }));
    const otherwise = name.includes("tall") ? [4 * split, split / 4].map((split) => ({ ...first, split })) : [];
    return [first, ...otherwise, ...rest].slice(0, 12);
  }
  if (!canBroadcast(capabilities)) return [direct(8, 1), direct(4, 1), direct(8, 2)];
  const first = small && name.startsWith("TN") ? [32, 64] : [64, 32];
  const fromImages = [
    ...first.map((rows) => broadcast(rows, 1, true)),
    broadcast(32, 2, true),
    broadcast(16, 2, true),
  ];
  const fromBuffers = [broadcast(64, 1, false), broadcast(32, 1, false), broadcast(16, 1, false)];
  return [...fromImages, ...fromBuffers];
}

function distinct(variants: readonly ProductVariant[]): ProductVariant[] {
  return [...new Map(variants.map((variant) => [JSON.stringify(variant), variant])).values()];
}

/**
 * What broadcasts where a variant's images cannot be. GFLOP/s with 16 lanes and 64, 32, 16 rows: NT 256 x 50304 x 384 123, 95, 71, NN 1024 x 360 x 360
 * 89, 72, 56. With 8 lanes 64 rows compile for seconds on Mesa 25.
 */
function withoutImages(variant: ProductVariant, layout: MatmulLayout, lanes: number): ProductVariant {
  if (!variant.images) return variant;
  return { family: variant.family, rows: lanes > 8 ? 64 : 32, columns: layout === "NT" ? 4 : 1 };
}

/** A product as the choice sees it. */
export interface ProductKind {
  readonly layout: MatmulLayout;
  readonly sizes: Sizes;
  /** Element type of C. */
  readonly c: DataType;
  /** Both operands can be read as images. */
  readonly images: boolean;
}

/** The kernel for a product: a variant of the register kernel, or a tile. */
export type ChosenProduct =
  | { readonly register: RegisterVariant }
  | { readonly tile: TileVariant };

/** The variant of a product's class. */
export function variantOf(
  capabilities: Capabilities,
  layout: MatmulLayout,
  sizes: Sizes,
  b: DataType,
): ProductVariant {
  const name = productClass(layout, sizes, b);
  return capabilities.products?.[name] ?? productCandidates(capabilities, name)[0];
}

/** The kernel for a product, or a piece of one, whose class has the variant `found`. */
export function chooseProduct(capabilities: Capabilities, found: ProductVariant, kind: ProductKind): ChosenProduct {
  const { layout, sizes: { M, N, K }, c } = kind;
  const narrow = N % 4 !== 0;
  const vector = (layout === "TN" ? M % 4 === 0 : K % 4 === 0) && (layout === "NT" || !narrow);
  const halvesOut = bytesOf(c) === 2;
  const base = {
    layout,
    images: false,
    rowsFirst: M <= N,
    ragged: layout === "TN" && K % 4 !== 0,
    vector,
    lanes: 1,
  };
  if (!vector) {
    return { register: { ...base, ragged: false, rows: 4, columns: halvesOut ? 4 : 1, wide: halvesOut, threads: 64 } };
  }
  if (M < skinnyRows) {
    const rows = layout === "TN" ? 4 : M <= 1 ? 1 : 4;
    const columns = layout === "NT" && halvesOut ? 4 : 1;
    return { register: { ...base, rows, columns, wide: layout !== "NT" || halvesOut, threads: 64 } };
  }
  const { family } = found;
  if (found.tile && !narrow) return { tile: { ...found, tile: found.tile } };
  const wanted = kind.images ? found : withoutImages(found, layout, capabilities.subgroupSize);
  const broadcast = family === "broadcast" && canBroadcast(capabilities);
  const rows = broadcast ? (M < 32 ? 16 : wanted.rows) : family === "direct" ? wanted.rows : 8;
  let columns = !broadcast && family !== "direct" || M < 32 ? 1 : wanted.columns;
  if (layout === "NT") columns = narrow ? Math.min(columns, 4) : Math.max(4, columns);
  const threads = broadcast ? capabilities.subgroupSize : 32;
  // A row of workgroups should not reach far beyond N, and a long sum be cut into enough workgroups.
  if (!kind.images && M * N < fewWorkgroups * rows * 4 * threads * columns) columns = layout === "NT" ? columns : 1;
  if (layout !== "NT") columns = Math.min(columns, Math.max(1, Math.floor(N / (4 * threads))));
  return {
    register: {
      ...base,
      lanes: broadcast ? sharedLanes(capabilities, rows) : 1,
      rows,
      columns,
      wide: !narrow,
      threads,
      images: broadcast && kind.images && (wanted.images ?? false) && M >= 32,
    },
  };
}

/** A variant in words, e.g. `broadcast 32 x 1 from images`. */
export function variantName({ family, rows, columns, images, tile, split }: ProductVariant): string {
  const where = tile ? ` in tiles of ${tile.rows} x ${tile.columns} x ${tile.steps}, unrolled by ${tile.unroll}` : "";
  const parts = split ? `, sums cut for ${split} workgroups` : "";
  return `${family} ${rows} x ${columns}${images ? " from images" : ""}${where}${parts}`;
}
