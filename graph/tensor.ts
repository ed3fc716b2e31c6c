/**
 * Symbolic tensors: name, shape, type and role.
 * @module
 */

/**
 * Element type of a tensor. `f16` (IEEE 754 binary16) and `bf16` (the upper half of f32) take two bytes; kernels see them as
 * f32, and four of them lie in a `vec2u`, so only tensors whose rows are a multiple of four have them.
 */
export type DataType = "f32" | "u32" | "i32" | "f16" | "bf16";

/** Types of 16 bits. */
export type HalfType = "f16" | "bf16";

/** In which type weights, activations and their gradients are kept for computing with them. */
export type Precision = "f32" | HalfType;

/** True for types of 16 bits. */
export function isHalf(dtype: DataType): dtype is HalfType {
  return dtype === "f16" || dtype === "bf16";
}

/** Bytes of an element. */
export function bytesOf(dtype: DataType): number {
  return isHalf(dtype) ? 2 : 4;
}

/** Elements: members of banks and runs of their elements begin at multiples of it, which are aligned in every type. */
export const alignedElements = 128;

/**
 * What a tensor is for. `activation`s live from first write to last use inside one segment and share memory;
 * everything else is kept for the life of the program.
 */
export type Role = "parameter" | "gradient" | "optimizer" | "input" | "constant" | "output" | "activation";

/** What an op says of an output that it creates. */
export interface TensorDescription {
  /** Row-major extents; the last is contiguous. */
  readonly shape: readonly number[];
  /** Element type; that of the graph's activations if left out. */
  readonly dtype?: DataType;
  /** A tensor too large for one binding is cut between rows at multiples of this; 64 if left out. */
  readonly rowUnit?: number;
}

/** A symbolic tensor. */
export interface Tensor {
  /** Position in `Graph.tensors`. */
  readonly id: number;
  /** Unique within the graph. */
  readonly name: string;
  /** Row-major extents; the last is contiguous. */
  readonly shape: readonly number[];
  /** Element type. */
  readonly dtype: DataType;
  /** What it is for. */
  readonly role: Role;
  /** Rows come in multiples of this where a large tensor is cut. */
  readonly rowUnit: number;
}

/** Number of elements. */
export function elementCount(tensor: { readonly shape: readonly number[] }): number {
  return tensor.shape.reduce((product, extent) => product * extent, 1);
}

/** Elements in one row: the last extent, or 1 for vectors and scalars. */
export function rowSize(tensor: { readonly shape: readonly number[] }): number {
  return tensor.shape.length > 1 ? tensor.shape[tensor.shape.length - 1] : 1;
}

/** Number of rows, `elementCount / rowSize`. */
export function rowCount(tensor: { readonly shape: readonly number[] }): number {
  return elementCount(tensor) / rowSize(tensor);
}

/** Bytes of all elements. */
export function byteCount(tensor: { readonly shape: readonly number[]; readonly dtype: DataType }): number {
  return elementCount(tensor) * bytesOf(tensor.dtype);
}
