/**
 * Functions of exponentials in WGSL. lavapipe's own exp costs several times as much as this polynomial, and is less exact.
 * @module
 */

import geluFunctions from "./gelu_functions.wgsl" with { type: "text" };
import power from "./power_of_2.wgsl" with { type: "text" };
import sigmoidFunction from "./sigmoid.wgsl" with { type: "text" };

type FloatType = "f32" | "vec4f";

/** `powerOf2(x)`, 2^x for x <= 126. */
export function powerText(type: FloatType): string {
  return power.replaceAll("{{TYPE}}", type).replaceAll("{{BITS}}", type === "f32" ? "u32" : "vec4u");
}

/** `sigmoid(x)`. */
export function sigmoidText(type: FloatType): string {
  return `${powerText(type)}\n${sigmoidFunction.replaceAll("{{TYPE}}", type)}`;
}

/** `gelu(x)` and `geluSlope(x)`. */
export function geluText(type: FloatType): string {
  return `${sigmoidText(type)}\n${geluFunctions.replaceAll("{{TYPE}}", type)}`;
}
