/**
 * What a device was found to be able to do; plain data, so that plans can be made without a device.
 * @module
 */

/** How products of matrices of one class are computed (`kernels/matmul_variants.ts`). */
export interface ProductVariant {
  /** `broadcast`: operands in registers, handed round in subgroups; `direct`: without subgroups; `tile`: through workgroup memory. */
  readonly family: "broadcast" | "direct" | "tile";
  /** Rows of sums a thread. */
  readonly rows: number;
  /** Columns of sums a thread: vectors of four, single ones for NT in registers. */
  readonly columns: number;
  /** Operands are copied into textures first. */
  readonly images?: boolean;
  /** `tile`: rows, columns and steps of a workgroup's tile, and steps that are unrolled. */
  readonly tile?: { readonly rows: number; readonly columns: number; readonly steps: number; readonly unroll: number };
  /** Where there are fewer workgroups than this, long sums are cut into parts until there are about as many; never if left out. */
  readonly split?: number;
}

/** Variants by class of product. */
export type ProductVariants = Readonly<Record<string, ProductVariant>>;

/** Capabilities of one opened device. */
export interface Capabilities {
  /** The adapter's own name. */
  readonly name: string;
  /** Vendor as the adapter reports it (a name or a PCI number). */
  readonly vendor: string;
  /** `cpu` for software drivers, where loads cost and barriers stall; `gpu` for everything else. */
  readonly type: "cpu" | "gpu";
  /** Lanes of a subgroup as a kernel counted them on every pipeline tried; 0 where subgroups cannot be used. */
  readonly subgroupSize: number;
  /** True if WGSL's f16 can be used. */
  readonly shaderF16: boolean;
  /** Largest storage binding in bytes. */
  readonly bindingLimit: number;
  /** Largest buffer to create, in bytes: the chunk of the memory plan. */
  readonly chunkBytes: number;
  /** Bytes of workgroup memory. */
  readonly workgroupStorage: number;
  /** Invocations in a workgroup. */
  readonly workgroupInvocations: number;
  /** Storage buffers in a stage. */
  readonly storageBuffers: number;
  /** Multiply-add rate measured at opening, in flop/s (a multiply-add counts two). */
  readonly flopsPerSecond: number;
  /** Bytes of device memory known to be there, or undefined where no driver tells. */
  readonly memoryBytes: number | undefined;
  /** What the tuner chose; the built-in choice for classes that are not in it. */
  readonly products?: ProductVariants;
}

/** Dispatches of more workgroups than this in one dimension are cut. */
export const maximumWorkgroups = 65535;

/** A plausible device for plans made without one (tests, predictions). */
export const genericCapabilities: Capabilities = {
  name: "generic",
  vendor: "none",
  type: "cpu",
  subgroupSize: 0,
  shaderF16: true,
  bindingLimit: 128 * 2 ** 20,
  chunkBytes: 128 * 2 ** 20,
  workgroupStorage: 16384,
  workgroupInvocations: 256,
  storageBuffers: 8,
  flopsPerSecond: 1e10,
  memoryBytes: undefined,
};
