/**
 * Matrix product with an epilogue: `c = op(a) op(b) (+ bias) (+ addend)`, or `c += …`, and GELU or its slope.
 *
 * NN: a [M, K], b [K, N]. NT: a [M, K], b [N, K]. TN: a [K, M], b [K, N]. Leading extents are flattened into rows, or
 * are a batch of independent products. 2 M N K flops; 4 (M K + K N + M N) bytes at least.
 * @module
 */

import type { Backward, Op, OpDefinition } from "../graph/graph.ts";
import { elementCount, type Tensor } from "../graph/tensor.ts";
import { columnSum } from "./column_sum.ts";
import { geluGradient } from "./gelu.ts";
import { lowerMatmul, type MatmulAttributes, sizesOf } from "./matmul_lower.ts";

export type { MatmulAttributes } from "./matmul_lower.ts";

/**
 * The matrix product op. Inputs `[a, b, bias?, addend?, x?]`, x being what GELU's slope is taken at; outputs `[c, gelu(c)?]`, c `[M, N]`
 * with the leading extents of `a` kept; or `[c, sums]`, sums `[N]`.
 */
export const matmul: OpDefinition<MatmulAttributes> = {
  name: "matmul",
  infer([a, b], attributes) {
    const { M, N } = sizesOf(a, b, attributes);
    const { layout, batch, rowUnit, activation, sums } = attributes;
    const unit = rowUnit ? { rowUnit } : {};
    const c = layout !== "TN"
      ? { shape: [...a.shape.slice(0, -1), N], ...unit }
      : { shape: batch ? [...a.shape.slice(0, -2), M, N] : [M, N] };
    return activation === "gelu" ? [c, c] : sums ? [c, { shape: [N] }] : [c];
  },

  gradient(backward, op) {
    const [c, activated] = op.outputs;
    const { layout, bias, addend, batch } = op.attributes;
    // Who uses GELU's result otherwise than by a product that says so leaves it a gradient.
    const slope = activated && backward.gradientOf(activated);
    if (slope) backward.give(c, backward.add(geluGradient, [c, slope], {}, { name: `${op.name}.dactivated` })[0]);
    const dc = backward.gradientOf(c);
    if (!dc) return;
    const [a, b, ...rest] = op.inputs;
    const products = {
      NN: { a: [dc, b, "NT"], b: [a, dc, "TN"] },
      NT: { a: [dc, b, "NN"], b: [dc, a, "TN"] },
      TN: { a: [b, dc, "NT"], b: [a, dc, "NN"] },
    } as const;
    if (addend && backward.needs(rest[rest.length - 1])) backward.give(rest[rest.length - 1], dc);
    const givesBias = bias && backward.needs(rest[0]);
    const sums = givesBias && layout === "NN" && backward.needs(b) &&
      [b, rest[0]].every(({ role }) => role === "parameter");
    if (givesBias && !sums) giveColumnSum(backward, op, rest[0], dc);
    for (const [input, [left, right, form]] of [[b, products[layout].b], [a, products[layout].a]] as const) {
      if (backward.needs(input)) {
        const bias = input === b && sums ? rest[0] : undefined;
        giveProduct(backward, op, input, left, right, { layout: form, ...(batch ? { batch } : {}) }, bias);
      }
    }
  },

  lower: lowerMatmul,
};

function giveProduct(
  backward: Backward,
  op: Op<MatmulAttributes>,
  input: Tensor,
  left: Tensor,
  right: Tensor,
  attributes: MatmulAttributes,
  bias: Tensor | undefined,
): void {
  const name = `${op.name}.d${input === op.inputs[0] ? "input" : "weight"}`;
  if (input.role === "parameter") {
    backward.add(matmul, [left, right], { ...attributes, accumulate: true, ...(bias ? { sums: true } : {}) }, {
      name,
      outputs: [input, ...(bias ? [bias] : [])].map((parameter) => backward.accumulator(parameter)),
    });
    return;
  }
  const addend = backward.take(input);
  const x = input === op.inputs[0] ? op.attributes.activated : undefined;
  const [gradient] = backward.add(
    matmul,
    [left, right, ...(addend ? [addend] : []), ...(x ? [x] : [])],
    {
      ...attributes,
      ...(addend ? { addend: true } : {}),
      ...(x ? { activation: "geluGradient" as const } : {}),
      rowUnit: input.rowUnit,
    },
    { name },
  );
  if (elementCount(gradient) !== elementCount(input)) throw new Error(`Gradient of ${input.name} has another shape`);
  backward.give(x ?? input, gradient);
}

function giveColumnSum(backward: Backward, op: Op<MatmulAttributes>, bias: Tensor, dc: Tensor): void {
  const name = `${op.name}.dbias`;
  if (bias.role === "parameter") {
    backward.add(columnSum, [dc], { accumulate: true }, { name, outputs: [backward.accumulator(bias)] });
  } else backward.give(bias, backward.add(columnSum, [dc], {}, { name })[0]);
}
