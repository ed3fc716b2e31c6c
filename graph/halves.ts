/**
 * 16-bit floats on the host: rounded to nearest even, as kernels round them (`storage.ts`).
 * @module
 */

import type { HalfType } from "./tensor.ts";

/** 16-bit words, of memory that may be shared. */
export type Halves = Uint16Array<ArrayBufferLike>;

/** The bits of each number in a format, in `halves`. NaN stays NaN; what is too large for f16 becomes infinite. */
export function toHalves<T extends Halves = Uint16Array<ArrayBuffer>>(
  values: Float32Array,
  format: HalfType,
  halves: T = new Uint16Array(values.length) as unknown as T,
): T {
  if (format === "f16") {
    new Float16Array(halves.buffer, halves.byteOffset, halves.length).set(values);
    return halves;
  }
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < halves.length; i++) {
    const b = bits[i];
    const isNaN = (b & 0x7fffffff) > 0x7f800000;
    halves[i] = isNaN ? (b >>> 16) | 0x40 : (b + 0x7fff + ((b >>> 16) & 1)) >>> 16;
  }
  return halves;
}

/** Writes the numbers that halves stand for into `target`, which has as many. */
export function fromHalves(halves: Halves, format: HalfType, target: Float32Array): void {
  if (format === "f16") target.set(new Float16Array(halves.buffer, halves.byteOffset, halves.length));
  else {
    const bits = new Uint32Array(target.buffer, target.byteOffset, target.length);
    for (let i = 0; i < halves.length; i++) bits[i] = halves[i] << 16;
  }
}
