/**
 * The loss of the part of a model that has the head: output projection and cross-entropy of some rows after the other, so that
 * no logits are there but those of the rows at hand. Training makes their gradients before it goes on to the next rows:
 * logits are computed once, and their gradient overwrites them (Hsu et al., "Liger Kernel", 2024, section 3.2).
 *
 * Rows are taken rather than columns of the vocabulary because a row's softmax needs all of its logits: with columns they
 * would have to be computed twice, a third more arithmetic in what is often a model's largest product.
 * @module
 */

import { backward } from "../graph/backward.ts";
import { collective } from "../graph/collective.ts";
import type { Graph } from "../graph/graph.ts";
import { bytesOf, rowCount, rowSize, type Tensor } from "../graph/tensor.ts";
import { crossEntropy, crossEntropyOfShares, crossEntropyShare } from "../kernels/cross_entropy.ts";
import { addTensors } from "../kernels/residual_add.ts";
import { outputProjection } from "../model/model.ts";
import { localSizes, type ModelPart } from "../model/part.ts";
import type { ModelGraphOptions } from "./rank_layout.ts";

/** What a builder of graphs brings. */
export interface LossTensors {
  readonly graph: Graph;
  readonly options: Pick<ModelGraphOptions, "configuration" | "logitsBytes">;
  /** By name. */
  readonly parameters: ReadonlyMap<string, Tensor>;
  /** f32 [1]: added to. */
  readonly lossSum: Tensor;
  /** f32 [1]. */
  readonly lossGradient: Tensor;
}

/** Bytes of logits that are there at once, if that is 64 rows or more. */
const logitsBytes = 64 * 2 ** 20;

/** Views begin at multiples of this many rows. */
const rowUnit = 64;

/** How many of `rows` are taken at a time: about equally many, a multiple of 64. */
function rowsAtOnce(rows: number, rowBytes: number, bytes: number): number {
  const most = Math.max(1, Math.floor(bytes / rowBytes / rowUnit)) * rowUnit;
  return Math.ceil(rows / Math.ceil(rows / most) / rowUnit) * rowUnit;
}

/** Adds the losses of logits to the sum. */
function addLosses(
  { graph, lossGradient, lossSum, options }: LossTensors,
  part: ModelPart,
  logits: Tensor,
  targets: Tensor,
) {
  const { vocabulary: vocabularySize, firstToken } = localSizes(options.configuration, part.tensor);
  const inputs = [logits, targets, lossGradient];
  if (part.tensor.size === 1) {
    graph.add(crossEntropy, inputs, { vocabularySize, accumulate: true }, { outputs: [lossSum] });
    return;
  }
  const attributes = { vocabularySize, firstToken };
  const [share] = graph.add(crossEntropyShare, [logits, targets], attributes);
  const shape = [rowCount(share) * part.tensor.size, rowSize(share)];
  const [shares] = graph.add(collective, [share], { kind: "allGather", group: "tensor", shape });
  graph.add(crossEntropyOfShares, [...inputs, shares], attributes, { outputs: [lossSum] });
}

/** Calls `after` with the first op of some rows, these rows of `x`, and their logits, behind the ops that add their losses. */
function sweep(
  builder: LossTensors,
  part: ModelPart,
  x: Tensor,
  targets: Tensor,
  after: (begun: number, rows: Tensor, logits: Tensor) => void,
): void {
  const { graph, parameters, options: { configuration, logitsBytes: bytes = logitsBytes } } = builder;
  const total = rowCount(x);
  const { vocabularyRows } = localSizes(configuration, part.tensor);
  const step = rowsAtOnce(total, bytesOf(graph.activationType) * vocabularyRows, bytes);
  for (let start = 0; start < total; start += step) {
    const count = Math.min(step, total - start);
    const begun = graph.current.length;
    const rows = graph.rows(x, start, count);
    const logits = outputProjection({ graph, configuration, parameters }, rows);
    addLosses(builder, part, logits, graph.rows(targets, start, count));
    after(begun, rows, logits);
  }
}

/** Adds the losses of `x`, of which the logits are a projection, and returns the logits of the rows in turn. */
export function evaluateLoss(builder: LossTensors, part: ModelPart, x: Tensor, targets: Tensor): Tensor[] {
  const all: Tensor[] = [];
  sweep(builder, part, x, targets, (_, __, logits) => all.push(logits));
  return all;
}

/** Adds the losses of `x`, accumulates the projection's gradient, and returns that of `x`. */
export function trainLoss(
  builder: LossTensors,
  part: ModelPart,
  x: Tensor,
  targets: Tensor,
  accumulators: ReadonlyMap<Tensor, Tensor>,
): Tensor {
  const { graph, lossSum, lossGradient } = builder;
  const seeds = new Map([[lossSum, lossGradient]]);
  const gradients: Tensor[] = [];
  sweep(builder, part, x, targets, (begun, rows) => {
    const ops = graph.current.slice(begun);
    gradients.push(backward(graph, seeds, accumulators, addTensors, [rows], ops).get(rows)!);
  });
  return graph.stack(`${x.name}.dloss`, gradients);
}
