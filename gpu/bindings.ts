/**
 * What a kernel's bindings are, in a word: a letter for each, from binding 1 on. `b` is a read-write storage buffer, `f` and `h` are storage
 * textures to read, of vectors of four f32 or of four halves. Binding 0 is a uniform block.
 * @module
 */

/** The format of a texture of vectors of four f32, or of four halves in two words. */
export function imageFormat(halves: boolean): GPUTextureFormat {
  return halves ? "rg32uint" : "rgba32float";
}

/** Rows, and vectors a row, that a texture can have: WebGPU's minimum. */
export const maximumImageExtent = 8192;

/**
 * Mesa compiles other code for textures of which an extent is a power of two, at the first dispatch with one: where none is, what
 * was compiled beforehand runs.
 */
function notPowerOfTwo(extent: number): number {
  if (extent < 3) return 3;
  return (extent & (extent - 1)) === 0 && extent < maximumImageExtent ? extent + 1 : extent;
}

/**
 * The extents of a texture for `height` rows of `width` vectors. Software drivers lay rows behind each other; a cache line between
 * them keeps lanes that read different rows from competing for the same few places of the cache (rows of 2 KiB: 10 to 40% slower).
 */
export function imageSize(width: number, height: number, halves: boolean): [width: number, height: number] {
  return [notPowerOfTwo(width + (halves ? 8 : 4)), notPowerOfTwo(height)];
}

/** The entries of the layout of `bindings`. */
export function layoutEntries(bindings: string): GPUBindGroupLayoutEntry[] {
  return ["u", ...bindings].map((kind, binding): GPUBindGroupLayoutEntry => ({
    binding,
    visibility: GPUShaderStage.COMPUTE,
    ...(kind === "f" || kind === "h"
      ? { storageTexture: { access: "read-only", format: imageFormat(kind === "h") } }
      : { buffer: { type: kind === "u" ? "uniform" : "storage" } }),
  }));
}
