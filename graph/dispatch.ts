/**
 * What a lowered op consists of: kernels, windows of tensors, scalars and a grid.
 * @module
 */

import { declareStorage } from "./storage.ts";
import { type DataType, isHalf, rowCount, rowSize, type Tensor } from "./tensor.ts";
import type { Capabilities } from "../gpu/capabilities.ts";

/** WGSL text with its origin. Equal text is compiled once. */
export interface Kernel {
  /** File that the text comes from, e.g. `kernels/layernorm.wgsl`. */
  readonly file: string;
  /** The constants filled in, e.g. `LANES=1`; with `file` it identifies the kernel in messages. */
  readonly variant: string;
  /** Complete WGSL; entry point `main`. */
  readonly code: string;
  /** Element types of the tensors that it is for, by binding (binding 1 first); what is left out is no half. */
  readonly types?: readonly (DataType | undefined)[];
}

/** A contiguous run of elements of a tensor, inside one buffer, bound as one `var<storage, read_write>`. */
export interface Window {
  readonly tensor: Tensor;
  /** First element; its byte offset from the tensor's start is a multiple of 256. */
  readonly start: number;
  /** Elements. */
  readonly length: number;
  /**
   * Bound as a texture of this many vectors of four a row (`{{image n name}}`), into which the program copies the window before. Software drivers read a vector of a texture 2 to 4 times as fast as one of a buffer, for which they loop over
   * lanes and components. Rows of whole 256 bytes; at most `maximumImageExtent` vectors and rows.
   */
  readonly image?: number;
}

/** One `dispatchWorkgroups`. Windows are bindings 1, 2, …; binding 0 is the uniform block. */
export interface Dispatch {
  readonly kernel: Kernel;
  /** Where an optional operand is absent, `undefined` binds 256 bytes that nobody reads. */
  readonly windows: readonly (Window | undefined)[];
  /**
   * The uniform block behind its first three words, which hold the origin (x, y, z) that a kernel adds to
   * `workgroup_id`: it lets the program cut a grid that is too large or takes too long. Floats go through `float`.
   */
  readonly uniforms: readonly number[];
  /** Grid in workgroups. */
  readonly workgroups: readonly [number, number, number];
  /** Floating-point operations, for profiles and for the first guess of the time it takes. */
  readonly flops: number;
  /** Bytes read and written once each. */
  readonly bytes: number;
  /** What is zeroed behind it, by the queue: software drivers fill memory ten times as fast as kernels store. */
  readonly zeroes?: readonly Window[];
}

/** What lowering may know: the device, and where tensors are cut. */
export interface Target {
  readonly capabilities: Capabilities;
  /** Row indices at which `tensor` is cut: `[0, …, rowCount]`. */
  cuts(tensor: Tensor): readonly number[];
  /** Memory (f32) for the op being lowered alone, whose dispatches write it before they read it; undefined beyond what is bound at once. */
  scratch(shape: readonly number[]): Tensor | undefined;
}

/**
 * Makes a kernel from WGSL text, replacing each `{{NAME}}`, then each `{{storage n name type}}` (see `declareStorage`); a
 * placeholder left over is a bug and throws.
 *
 * @param types by binding (binding 1 first) the element type of the tensor bound; f32 if left out
 */
export function kernel(
  file: string,
  text: string,
  constants: Record<string, string | number | boolean> = {},
  types: readonly (DataType | undefined)[] = [],
): Kernel {
  const filled = text.replaceAll(/\{\{(\w+)\}\}/g, (_, name: string) => {
    if (!(name in constants)) throw new Error(`${file} has no value for {{${name}}}`);
    return String(constants[name]);
  });
  const halves = types.flatMap((type, i) => type && isHalf(type) ? [`${i + 1}=${type}`] : []);
  const variant = Object.entries(constants)
    .filter(([, value]) => String(value).length <= 24)
    .map(([name, value]) => `${name}=${value}`);
  return { file, variant: [...variant, ...halves].join(" "), code: declareStorage(filled, types), types };
}

/** The bits of a 32-bit float, for `Dispatch.uniforms`. */
export function float(value: number): number {
  scratchFloat[0] = value;
  return scratchBits[0];
}
const scratchFloat = new Float32Array(1);
const scratchBits = new Uint32Array(scratchFloat.buffer);

/** A run of rows. */
export interface RowRange {
  readonly start: number;
  readonly count: number;
}

/** The coarsest ranges of rows such that none crosses a cut of any of `tensors`, which have equally many rows. */
export function rowRanges(target: Target, tensors: readonly Tensor[]): RowRange[] {
  const all = new Set<number>();
  for (const tensor of tensors) for (const cut of target.cuts(tensor)) all.add(cut);
  const cuts = [...all].sort((a, b) => a - b);
  return cuts.slice(1).map((end, i) => ({ start: cuts[i], count: end - cuts[i] }));
}

/** The window of `tensor` that covers `range`, or all of it. */
export function windowOf(tensor: Tensor, range: RowRange = { start: 0, count: rowCount(tensor) }): Window {
  const size = rowSize(tensor);
  return { tensor, start: range.start * size, length: range.count * size };
}

/** Throws if a kernel takes a tensor's elements for another type than they are: a bug of the op. */
export function checkTypes({ kernel, windows }: Dispatch): void {
  windows.forEach((window, i) => {
    const type = kernel.types?.[i];
    const [own, taken] = [window?.tensor.dtype, type && isHalf(type) ? type : undefined];
    if (own === undefined || (isHalf(own) ? own : undefined) === taken) return;
    throw new Error(`${kernel.file} takes ${window!.tensor.name} (${own}) for ${taken ?? "32 bits"}`);
  });
}

/** `ceil(a / b)`. */
export function ceilDivide(a: number, b: number): number {
  return Math.ceil(a / b);
}
