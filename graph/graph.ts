/**
 * The symbolic training step: tensors and ops, in named segments.
 *
 * An op may write tensors that it creates (`Graph.add`) or tensors that exist already (`options.outputs`), which is how
 * gradients accumulate and how an op works in place. Nothing here knows of a device.
 * @module
 */

import type { Dispatch, Target } from "./dispatch.ts";
import type { Backward } from "./backward.ts";

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

/** One operation: a definition, what it reads and writes, and its constants. */
export interface Op<Attributes = unknown> {
  readonly definition: OpDefinition<Attributes>;
  /** Name in messages and profiles. */
  readonly name: string;
  readonly inputs: readonly Tensor[];
  readonly outputs: readonly Tensor[];
  readonly attributes: Attributes;
}

/** What an op is: shapes, gradient and how it becomes dispatches. One per file of `kernels/`. */
export interface OpDefinition<Attributes = unknown> {
  /** The op's name, e.g. `layernorm`. */
  readonly name: string;
  /** Describes the outputs; throws `RangeError` on shapes that do not fit (a bug of the caller, not of the user). */
  infer(inputs: readonly Tensor[], attributes: Attributes): TensorDescription[];
  /** Appends the gradient's ops; left out where there is none (optimizers, input preparation). */
  gradient?(backward: Backward, op: Op<Attributes>): void;
  /** The dispatches that compute the op on a device, in order. */
  lower(op: Op<Attributes>, target: Target): Dispatch[];
}

/** A group of tensors laid out one behind the other in as few buffers as can be, and addressed as one flat tensor. */
export interface Bank {
  /** Flat view of all members, f32; its length is settled by the layout. */
  readonly tensor: Tensor;
  /** Members in order. Banks whose members have equal shapes have equal layouts. */
  readonly members: readonly Tensor[];
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

/** A graph under construction. */
export class Graph {
  /** Every tensor, by id. */
  readonly tensors: Tensor[] = [];
  /** Ops of each segment in execution order; a segment is replayed as a whole. */
  readonly segments: Map<string, Op[]> = new Map();
  /** Banks by the id of their flat tensor. */
  readonly banks: Map<number, Bank> = new Map();
  #names = new Set<string>();
  #current: Op[] | undefined;

  /** Declares a tensor. Activations are normally made by `add`. */
  tensor(name: string, shape: readonly number[], role: Role, options: Partial<TensorDescription> = {}): Tensor {
    let unique = name;
    for (let i = 2; this.#names.has(unique); i++) unique = `${name}#${i}`;
    this.#names.add(unique);
    for (const extent of shape) {
      if (!Number.isInteger(extent) || extent < 1) throw new RangeError(`Tensor ${name} has shape [${shape}]`);
    }
    const tensor: Tensor = {
      id: this.tensors.length,
      name: unique,
      shape: [...shape],
      dtype: options.dtype ?? "f32",
      role,
      rowUnit: options.rowUnit ?? 64,
    };
    this.tensors.push(tensor);
    return tensor;
  }

  /** Lays `members` (all f32, of `role`) out one behind the other and returns the flat tensor that spans them. */
  bank(name: string, role: Role, members: readonly Tensor[]): Tensor {
    const length = members.reduce((sum, member) => sum + Math.ceil(elementCount(member) / 64) * 64, 0);
    const tensor = this.tensor(name, [Math.max(64, length)], role);
    this.banks.set(tensor.id, { tensor, members: [...members] });
    return tensor;
  }

  /** Ops added while `build` runs go to the segment `name`, behind those it has. */
  segment(name: string, build: () => void): void {
    const outer = this.#current;
    this.#current = this.segments.get(name) ?? [];
    this.segments.set(name, this.#current);
    try {
      build();
    } finally {
      this.#current = outer;
    }
  }

  /**
   * Appends an op and returns its outputs: those given in `options.outputs` (written in place, accumulated into),
   * fresh activations otherwise.
   */
  add<A>(
    definition: OpDefinition<A>,
    inputs: readonly Tensor[],
    attributes: A,
    options: { name?: string; outputs?: readonly (Tensor | undefined)[] } = {},
  ): Tensor[] {
    if (!this.#current) throw new Error("Ops belong to a segment");
    const name = options.name ?? definition.name;
    const described = definition.infer(inputs, attributes);
    const outputs = described.map((description, i) => {
      const given = options.outputs?.[i];
      if (!given) {
        return this.tensor(described.length > 1 ? `${name}.${i}` : name, description.shape, "activation", description);
      }
      const expected = description.shape.reduce((product, extent) => product * extent, 1);
      if (elementCount(given) !== expected || given.dtype !== (description.dtype ?? "f32")) {
        throw new RangeError(`Op ${name} writes [${description.shape}] but ${given.name} is [${given.shape}]`);
      }
      return given;
    });
    // Ops of many kinds stand in one list; `lower` and `gradient` only ever meet their own attributes.
    this.#current.push({ definition, name, inputs: [...inputs], outputs, attributes } as Op<A> as unknown as Op);
    return outputs;
  }

  /** The ops of the segment being built. */
  get current(): readonly Op[] {
    if (!this.#current) throw new Error("No segment is being built");
    return this.#current;
  }
}
