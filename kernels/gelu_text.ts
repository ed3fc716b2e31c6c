/**
 * GELU in WGSL, for the kernels that compute it alone and for products that do so on the way.
 * @module
 */

import text from "./gelu_functions.wgsl" with { type: "text" };

/** The functions `gelu` and `geluSlope` of `type`. */
export function geluText(type: "f32" | "vec4f"): string {
  return text.replaceAll("{{TYPE}}", type);
}
