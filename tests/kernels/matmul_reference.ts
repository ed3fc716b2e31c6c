/** What tests of products share: operands, the product itself in double precision, and a variant forced on all. */

import type { ProductVariant } from "../../gpu/capabilities.ts";
import type { Overrides } from "./harness.ts";

/** The same variant for products of all classes. */
export function allProducts(variant: ProductVariant): Overrides {
  const classes = ["NN", "NT", "TN"].flatMap((layout) =>
    ["small", "large", "tall"].flatMap((size) => ["f32", "halves"].map((type) => `${layout} ${size} ${type}`))
  );
  return { products: Object.fromEntries(classes.map((name) => [name, variant])) };
}

/** Numbers between -0.5 and 0.5, the same at every call. */
export function random(count: number, seed: number): Float32Array {
  let state = seed;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32 - 0.5;
  });
}

/** The product in double precision. */
export function reference(
  layout: string,
  a: Float32Array,
  b: Float32Array,
  M: number,
  N: number,
  K: number,
): Float64Array {
  const c = new Float64Array(M * N);
  for (let m = 0; m < M; m++) {
    for (let k = 0; k < K; k++) {
      const x = layout === "TN" ? a[k * M + m] : a[m * K + k];
      for (let n = 0; n < N; n++) c[m * N + n] += x * (layout === "NT" ? b[n * K + k] : b[k * N + n]);
    }
  }
  return c;
}

/** GELU in its tanh form, and its slope. */
export function gelu(x: number): [value: number, slope: number] {
  const inner = Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3);
  const t = Math.tanh(inner);
  const slope = Math.sqrt(2 / Math.PI) * (1 + 3 * 0.044715 * x * x);
  return [0.5 * x * (1 + t), 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * slope];
}
