/**
 * Cross-entropy of logits against tokens: `rowLoss = log Σ exp(logits) - logits[target]`, summed over rows.
 *
 * logits [N, P], of whose columns the first V count; targets i32 [N], negative = ignored (loss and gradient 0);
 * upstream f32 [1]; lossSum [1]; rowLoss [N]; statistics [N, 2] (maximum, 1 / Σ exp). The mean is left to whoever knows how many targets count in the
 * whole step: its reciprocal is the upstream.
 *
 * The gradient overwrites the logits: `(softmax - onehot) upstream`. Row kernel; 4 N P bytes forward (the row is read
 * twice), 8 N P backward.
 * @module
 */

import { ceilDivide, kernel, rowRanges, windowOf } from "../graph/dispatch.ts";
import type { OpDefinition } from "../graph/graph.ts";
import { rowCount, rowSize } from "../graph/tensor.ts";
import gradientText from "./cross_entropy_gradient.wgsl" with { type: "text" };
import text from "./cross_entropy.wgsl" with { type: "text" };
import { rowGrid, rowKernel, rowValues } from "./rows.ts";
import { sumAll } from "./sum_rows.ts";

/** Constants. */
export interface CrossEntropyAttributes {
  /** Number of columns that are real. */
  readonly vocabularySize: number;
  /** The loss sum is added to the output given. */
  readonly accumulate?: boolean;
}

const components = ["x", "y", "z", "w"];

/** Inputs `[logits, targets, upstream]`, outputs `[lossSum, rowLoss, statistics]`. */
export const crossEntropy: OpDefinition<CrossEntropyAttributes> = {
  name: "crossEntropy",
  infer([logits]) {
    const rows = { shape: [rowCount(logits)] };
    return [{ shape: [1] }, rows, { shape: [rowCount(logits), 2] }];
  },
  gradient(backward, op) {
    const [logits, targets, upstream] = op.inputs;
    const { vocabularySize } = op.attributes;
    backward.add(crossEntropyGradient, [targets, op.outputs[2], upstream], { vocabularySize, shape: logits.shape }, {
      name: `${op.name}.dlogits`,
      outputs: [logits],
    });
    backward.give(logits, logits);
  },
  lower({ inputs: [logits, targets], outputs: [lossSum, rowLoss, statistics], attributes }, target) {
    const columns = rowSize(logits);
    const wide = columns % 4 === 0;
    const made = rowKernel("kernels/cross_entropy.wgsl", text, target.capabilities, columns, {
      MASK: wide
        ? components.map((c, i) => `    if (column + ${i}u >= vocabulary) { v.${c} = -1e30; }`).join("\n")
        : "    v = -1e30;",
      TARGET: wide ? "logits[start + column / 4u][column % 4u]" : "logits[start + column]",
    });
    return [
      ...rowRanges(target, [logits]).map((range) => ({
        kernel: made,
        windows: [
          windowOf(logits, range),
          windowOf(targets, range),
          windowOf(rowLoss, range),
          windowOf(statistics, range),
        ],
        uniforms: [range.count, rowValues(columns), attributes.vocabularySize],
        workgroups: rowGrid(target.capabilities, range.count),
        flops: 5 * range.count * columns,
        bytes: 4 * range.count * columns,
      })),
      sumAll(rowLoss, lossSum, attributes.accumulate ?? false),
    ];
  },
};

/** Inputs `[targets, statistics, upstream]`, output `[logits]`, overwritten. */
const crossEntropyGradient: OpDefinition<{ readonly vocabularySize: number; readonly shape: readonly number[] }> = {
  name: "crossEntropyGradient",
  infer: (_, { shape }) => [{ shape }],
  lower({ inputs: [targets, statistics, upstream], outputs: [logits], attributes }, target) {
    const columns = rowSize(logits);
    const wide = columns % 4 === 0;
    const values = rowValues(columns);
    const made = kernel("kernels/cross_entropy_gradient.wgsl", gradientText, {
      TYPE: wide ? "vec4f" : "f32",
      WIDTH: wide ? 4 : 1,
      ADJUST: wide
        ? components.flatMap((c, i) => [
          `    if (column + ${i}u >= p.vocabulary) { d.${c} = 0.0; }`,
          `    if (column + ${i}u == hit) { d.${c} -= 1.0; }`,
        ]).join("\n")
        : "    if (column >= p.vocabulary) { d = 0.0; }\n    if (column == hit) { d -= 1.0; }",
    });
    return rowRanges(target, [logits]).map((range) => ({
      kernel: made,
      windows: [windowOf(targets, range), windowOf(statistics, range), windowOf(upstream), windowOf(logits, range)],
      uniforms: [values, attributes.vocabularySize],
      workgroups: [ceilDivide(values, 64), range.count, 1],
      flops: 4 * range.count * columns,
      bytes: 8 * range.count * columns,
    }));
  },
};
