/**
 * 16-bit floats on the host: rounded to nearest even, as kernels round them (`storage.ts`).
 * @module
 */

/** Formats of 16 bits: IEEE 754 binary16, and the upper half of f32. */
export type HalfFormat = "f16" | "bf16";

/** The bits of each number in a format. NaN stays NaN; what is too large for f16 becomes infinite. */
export function toHalves(values: Float32Array, format: HalfFormat): Uint16Array<ArrayBuffer> {
  if (format === "f16") return new Uint16Array(Float16Array.from(values).buffer);
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(values.length);
  for (let i = 0; i < halves.length; i++) {
    const b = bits[i];
    const isNaN = (b & 0x7fffffff) > 0x7f800000;
    halves[i] = isNaN ? (b >>> 16) | 0x40 : (b + 0x7fff + ((b >>> 16) & 1)) >>> 16;
  }
  return halves;
}

/** Writes the numbers that halves stand for into `target`, which has as many. */
export function fromHalves(halves: Uint16Array<ArrayBuffer>, format: HalfFormat, target: Float32Array): void {
  if (format === "f16") target.set(new Float16Array(halves.buffer, halves.byteOffset, halves.length));
  else {
    const bits = new Uint32Array(target.buffer, target.byteOffset, target.length);
    for (let i = 0; i < halves.length; i++) bits[i] = halves[i] << 16;
  }
}
