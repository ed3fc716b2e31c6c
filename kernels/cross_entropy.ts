/**
 * Cross-entropy of logits against tokens: `rowLoss = log Σ exp(logits) - logits[target]`, summed over rows.
 *
 * logits [N, P], of whose columns the first V count; targets i32 [N], negative = ignored (loss and gradient 0);
 * upstream f32 [1]; lossSum [1]; rowLoss [N]; statistics [N, 2] (maximum, 1 / Σ exp). The mean is left to whoever knows how many targets count in the
 * whole step: its reciprocal is the upstream.
 *
 * The gradient overwrites the logits: `(softmax - onehot) upstream`. Row kernel, which sums while it looks for the maximum
 * (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018); 4 N P bytes forward, 8 N P backward.
 * @module
 */

import { ceilDivide, type Dispatch, kernel, rowRanges, type Target, windowOf } from "../graph/dispatch.ts";
import type { Backward, OpDefinition } from "../graph/graph.ts";
import { bytesOf, rowCount, rowSize, type Tensor, type TensorDescription } from "../graph/tensor.ts";
import combineText from "./cross_entropy_combine.wgsl" with { type: "text" };
import gradientText from "./cross_entropy_gradient.wgsl" with { type: "text" };
import text from "./cross_entropy.wgsl" with { type: "text" };
import { shareOf } from "./elementwise.ts";
import { rowGrid, rowKernel, rowValues } from "./rows.ts";
import { sumAll } from "./sum_rows.ts";

/** Constants. */
export interface CrossEntropyAttributes {
  /** Number of columns that are real. */
  readonly vocabularySize: number;
  /** The loss sum is added to the output given. */
  readonly accumulate?: boolean;
}

/** Of logits whose columns are split over ranks. */
export interface SplitVocabulary {
  /** Number of this rank's columns that are real. */
  readonly vocabularySize: number;
  /** Token of its first column. */
  readonly firstToken: number;
}

const components = ["x", "y", "z", "w"];

/** Loss sum, losses and statistics, whatever the type of the logits. */
function lossOutputs(rows: number): TensorDescription[] {
  return [[1], [rows], [rows, 2]].map((shape) => ({ shape, dtype: "f32" }));
}

/** Inputs `[logits, targets, upstream]`, outputs `[lossSum, rowLoss, statistics]`. */
export const crossEntropy: OpDefinition<CrossEntropyAttributes> = {
  name: "crossEntropy",
  infer([logits]) {
    return lossOutputs(rowCount(logits));
  },
  gradient(backward, op) {
    const [logits, targets, upstream] = op.inputs;
    const { vocabularySize } = op.attributes;
    giveLogits(backward, op.name, [logits, targets, op.outputs[2], upstream], { vocabularySize, firstToken: 0 });
  },
  lower({ inputs: [logits, targets], outputs: [lossSum, rowLoss, statistics], attributes }, target) {
    const { vocabularySize } = attributes;
    return [
      ...statisticsOf(target, logits, targets, rowLoss, statistics, { vocabularySize, firstToken: 0 }, false),
      sumAll(rowLoss, lossSum, attributes.accumulate ?? false),
    ];
  },
};

/**
 * The share of a rank in the cross-entropy of split logits (Shoeybi et al., "Megatron-LM", 2019, section 3):
 * inputs `[logits, targets]`, output `[N, 4]`: maximum, Σ exp, logit of the target or 0, 0.
 */
export const crossEntropyShare: OpDefinition<SplitVocabulary> = {
  name: "crossEntropyShare",
  infer: ([logits]) => [{ shape: [rowCount(logits), 4], dtype: "f32" }],
  lower: ({ inputs: [logits, targets], outputs: [share], attributes }, target) =>
    statisticsOf(target, logits, targets, undefined, share, attributes, true),
};

/** Inputs `[logits, targets, upstream, shares [ranks N, 4]]`, outputs `[lossSum, rowLoss, statistics]`; added to the sum. */
export const crossEntropyOfShares: OpDefinition<SplitVocabulary> = {
  name: "crossEntropyOfShares",
  infer: ([logits]) => lossOutputs(rowCount(logits)),
  gradient(backward, op) {
    const [logits, targets, upstream] = op.inputs;
    giveLogits(backward, op.name, [logits, targets, op.outputs[2], upstream], op.attributes);
  },
  lower({ inputs: [logits, targets, _, shares], outputs: [lossSum, rowLoss, statistics] }) {
    const rows = rowCount(logits);
    const combine: Dispatch = {
      kernel: kernel("kernels/cross_entropy_combine.wgsl", combineText),
      windows: [shares, targets, rowLoss, statistics].map((tensor) => windowOf(tensor)),
      uniforms: [rows, rowCount(shares) / rows],
      workgroups: [ceilDivide(rows, 64), 1, 1],
      flops: 20 * rowCount(shares),
      bytes: 16 * rowCount(shares),
    };
    return [combine, sumAll(rowLoss, lossSum, true)];
  },
};

const storeLoss = `    statistics[row] = vec2f(m, 1.0 / z);
    let target_ = targets[row];
    var loss = 0.0;
    if (target_ >= 0) {
      let column = u32(target_);
      loss = log(z) - ({{TARGET}} - m);
    }
    rowLoss[row] = loss;`;
const storeShare = `    let target_ = targets[row];
    let column = u32(target_) - p.firstToken;
    var hit = 0.0;
    if (target_ >= 0 && column < p.vocabulary) { hit = {{TARGET}}; }
    statistics[row] = vec4f(m, z, hit, 0.0);`;

function statisticsOf(
  target: Target,
  logits: Tensor,
  targets: Tensor,
  rowLoss: Tensor | undefined,
  statistics: Tensor,
  { vocabularySize, firstToken }: SplitVocabulary,
  share: boolean,
): Dispatch[] {
  const columns = rowSize(logits);
  const wide = columns % 4 === 0;
  const at = wide ? "load_logits(start + column / 4u)[column % 4u]" : "load_logits(start + column)";
  const made = rowKernel("kernels/cross_entropy.wgsl", text, target.capabilities, columns, {
    TYPE: wide ? "vec4f" : "f32",
    LOADS: Array.from({ length: 8 }, (_, i) => `    let v${i} = load_logits(i + ${i}u * LANES);`).join("\n"),
    MASK: wide
      ? components.map((c, i) => `      if (column + ${i}u >= p.vocabulary) { v.${c} = -1e30; }`).join("\n")
      : "      v = -1e30;",
    STORE: (share ? storeShare : storeLoss).replace("{{TARGET}}", at),
    STATISTICS: share ? "vec4f" : "vec2f",
  }, [logits.dtype]);
  return rowRanges(target, [logits]).map((range) => ({
    kernel: made,
    windows: [
      windowOf(logits, range),
      windowOf(targets, range),
      rowLoss && windowOf(rowLoss, range),
      windowOf(statistics, range),
    ],
    uniforms: [range.count, rowValues(columns), vocabularySize, firstToken],
    workgroups: rowGrid(target.capabilities, range.count),
    flops: 5 * range.count * columns,
    bytes: bytesOf(logits.dtype) * range.count * columns,
  }));
}

function giveLogits(
  backward: Backward,
  name: string,
  [logits, targets, statistics, upstream]: readonly Tensor[],
  { vocabularySize, firstToken }: SplitVocabulary,
): void {
  backward.add(
    crossEntropyGradient,
    [targets, statistics, upstream],
    { vocabularySize, firstToken, shape: logits.shape },
    { name: `${name}.dlogits`, outputs: [logits] },
  );
  backward.give(logits, logits);
}

/** Inputs `[targets, statistics, upstream]`, output `[logits]`, overwritten. */
const crossEntropyGradient: OpDefinition<SplitVocabulary & { readonly shape: readonly number[] }> = {
  name: "crossEntropyGradient",
  infer: (_, { shape }) => [{ shape }],
  lower({ inputs: [targets, statistics, upstream], outputs: [logits], attributes }, target) {
    const columns = rowSize(logits);
    const wide = columns % 4 === 0;
    const values = rowValues(columns);
    const share = shareOf(target.capabilities);
    // Short rows are taken several by a workgroup.
    const rows = target.capabilities.type === "gpu" ? 1 : Math.max(1, Math.floor(share.vectors / values));
    const made = kernel("kernels/cross_entropy_gradient.wgsl", gradientText, {
      TYPE: wide ? "vec4f" : "f32",
      WIDTH: wide ? 4 : 1,
      THREADS: share.threads,
      VALUES: share.vectors,
      ROWS: rows,
      ADJUST: wide
        ? components.flatMap((c, i) => [
          `    if (column + ${i}u >= p.vocabulary) { d.${c} = 0.0; }`,
          `    if (column + ${i}u == hit) { d.${c} -= 1.0; }`,
        ]).join("\n")
        : "    if (column >= p.vocabulary) { d = 0.0; }\n    if (column == hit) { d -= 1.0; }",
    }, [undefined, undefined, undefined, logits.dtype]);
    return rowRanges(target, [logits]).map((range) => ({
      kernel: made,
      windows: [windowOf(targets, range), windowOf(statistics, range), windowOf(upstream), windowOf(logits, range)],
      uniforms: [range.count, values, attributes.vocabularySize, attributes.firstToken],
      workgroups: [ceilDivide(values, share.vectors), ceilDivide(range.count, rows), 1],
      flops: 4 * range.count * columns,
      bytes: 2 * bytesOf(logits.dtype) * range.count * columns,
    }));
  },
};
