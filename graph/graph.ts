/**
 * The symbolic training step: tensors and ops, in named segments.
 *
 * An op may write tensors that it creates (`Graph.add`) or tensors that exist already (`options.outputs`), which is how
 * gradients accumulate and how an op works in place. Nothing here knows of a device.
 * @module
 */

import type { Dispatch, Target } from "./dispatch.ts";
import {
  alignedElements,
  type DataType,
  elementCount,
  type Role,
  rowCount,
  rowSize,
  type Tensor,
  type TensorDescription,
} from "./tensor.ts";

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

/** What an op's gradient rule works with. */
export interface Backward {
  readonly graph: Graph;
  /** The finished gradient of an output, or undefined where nothing depends on it. */
  gradientOf(tensor: Tensor): Tensor | undefined;
  /** True if a gradient of `tensor` is wanted: it is a parameter, or depends on one. */
  needs(tensor: Tensor): boolean;
  /** The persistent gradient into which contributions to `parameter` are accumulated (`outputs: [accumulator]`). */
  accumulator(parameter: Tensor): Tensor;
  /**
   * The sum of the contributions that `tensor` has so far, taken away so that a rule can fold it into the kernel
   * that makes its own (and then `give`s the result).
   */
  take(tensor: Tensor): Tensor | undefined;
  /** Adds a contribution to the gradient of `tensor`. The tensor given is not written afterwards. */
  give(tensor: Tensor, gradient: Tensor): void;
  /** `graph.add`. */
  add<A>(
    definition: OpDefinition<A>,
    inputs: readonly Tensor[],
    attributes: A,
    options?: { name?: string; outputs?: readonly (Tensor | undefined)[] },
  ): Tensor[];
}

/** A group of tensors laid out one behind the other in as few buffers as can be, and addressed as one flat tensor. */
export interface Bank {
  /** Flat view of all members; its length is settled by the layout. */
  readonly tensor: Tensor;
  /** Members in order. Banks whose members have equal shapes have equal layouts. */
  readonly members: readonly Tensor[];
}

/** Where the memory of a view is. */
export interface View {
  readonly whole: Tensor;
  /** First of the whole's rows. */
  readonly start: number;
}

/** A graph under construction. */
export class Graph {
  /** Every tensor, by id. */
  readonly tensors: Tensor[] = [];
  /** Ops of each segment in execution order; a segment is replayed as a whole. */
  readonly segments: Map<string, Op[]> = new Map();
  /** Banks by the id of their flat tensor. */
  readonly banks: Map<number, Bank> = new Map();
  /** By id, the tensors that are some rows of another. */
  readonly views: Map<number, View> = new Map();
  #names = new Set<string>();
  #current: Op[] | undefined;

  /** @param activationType element type of what ops create, unless an op says otherwise or rows are no multiple of four */
  constructor(readonly activationType: DataType = "f32") {}

  /** Element type of what has this description. */
  typeOf({ dtype, shape }: TensorDescription): DataType {
    return dtype ?? (rowSize({ shape }) % 4 === 0 ? this.activationType : "f32");
  }

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

  /**
   * Lays `members` (of one type and `role`) out one behind the other and returns the flat tensor that spans them; its length
   * is padded to a multiple of `unit` elements, itself a multiple of `alignedElements`.
   */
  bank(name: string, role: Role, members: readonly Tensor[], unit = alignedElements): Tensor {
    const length = members.reduce(
      (sum, member) => sum + Math.ceil(elementCount(member) / alignedElements) * alignedElements,
      0,
    );
    const dtype = members[0]?.dtype ?? "f32";
    const tensor = this.tensor(name, [Math.max(1, Math.ceil(length / unit)) * unit], role, { dtype });
    this.banks.set(tensor.id, { tensor, members: [...members] });
    return tensor;
  }

  /**
   * Some rows of `whole` as a tensor: the same memory, nothing is copied. `start` is a multiple of 64. What is put in the
   * place of `whole` later (by sharding, by recomputation) is not seen by its views.
   */
  rows(whole: Tensor, start: number, count: number): Tensor {
    if (count === rowCount(whole)) return whole;
    const shape = whole.shape.length > 1 ? [count, rowSize(whole)] : [count];
    const rows = this.tensor(`${whole.name} from ${start}`, shape, whole.role, whole);
    this.views.set(rows.id, { whole, start });
    return rows;
  }

  /** One tensor of the rows of `parts`, which become views of it; all but the last have a multiple of 64 rows. */
  stack(name: string, parts: readonly Tensor[]): Tensor {
    const [first] = parts;
    if (parts.length === 1) return first;
    const rows = parts.reduce((sum, part) => sum + rowCount(part), 0);
    const whole = this.tensor(name, [rows, rowSize(first)], first.role, first);
    let start = 0;
    for (const part of parts) {
      this.views.set(part.id, { whole, start });
      start += rowCount(part);
    }
    return whole;
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

  /** Builds a segment anew: `build` is given its ops, and appends them, changed or not, among others. */
  rewrite(name: string, build: (ops: readonly Op[]) => void): void {
    const ops = this.segments.get(name) ?? [];
    this.segments.set(name, []);
    this.segment(name, () => build(ops));
  }

  /** Appends an op with other tensors in place of some of its own. */
  append(op: Op, replaced: ReadonlyMap<Tensor, Tensor> = new Map()): void {
    if (!this.#current) throw new Error("Ops belong to a segment");
    const swap = (tensor: Tensor) => replaced.get(tensor) ?? tensor;
    const touched = [...op.inputs, ...op.outputs].some((tensor) => replaced.has(tensor));
    this.#current.push(touched ? { ...op, inputs: op.inputs.map(swap), outputs: op.outputs.map(swap) } : op);
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
        return this.tensor(described.length > 1 ? `${name}.${i}` : name, description.shape, "activation", {
          ...description,
          dtype: this.typeOf(description),
        });
      }
      const expected = description.shape.reduce((product, extent) => product * extent, 1);
      if (elementCount(given) !== expected || (description.dtype && given.dtype !== description.dtype)) {
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
