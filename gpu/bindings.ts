/**
 * What a kernel's bindings are, in a word: a letter for each, from binding 1 on. `b` is a read-write storage buffer, `f` and `h` are storage
 * textures to read, of vectors of four f32 or of four halves. Binding 0 is a uniform block.
 * @module
 */

/** The format of a texture of vectors of four f32, or of four halves in two words. */
export function imageFormat(halves: boolean): GPUTextureFormat {
  return halves ? "rg32uint" : "rgba32float";
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
