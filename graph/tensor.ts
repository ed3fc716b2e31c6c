/**
 * Symbolic tensors: name, shape, type and role.
 * @module
 */

/** Element type of a tensor; every one takes four bytes. */
export type DataType = "f32" | "u32" | "i32";

/**
 * What a tensor is for. `activation`s live from first write to last use inside one segment and share memory;
 * everything else is kept for the life of the program.
 */
export type Role = "parameter" | "gradient" | "optimizer" | "input" | "constant" | "output" | "activation";

/** What an op says of an output that it creates. */
export interface TensorDescription {
  /** Row-major extents; the last is contiguous. */
  readonly shape: readonly number[];
  /** Element type; f32 if left out. */
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
