/**
 * The collectives that make a bank's gradients the sum over ranks.
 * @module
 */

import { collective, type CollectiveAttributes, type Run } from "../graph/collective.ts";
import type { Graph } from "../graph/graph.ts";
import { elementCount, rowSize, type Tensor } from "../graph/tensor.ts";
import type { Parameter } from "../model/parameters.ts";
import type { BankOptions, ParameterBank } from "./parameter_banks.ts";

/**
 * Appends the collectives that make `gradients` (flat, of all of a bank) the sum over the ranks of other groups than
 * `data`, once they are complete on each.
 */
export function reduceInside(
  graph: Graph,
  bank: ParameterBank,
  gradients: Tensor,
  options: BankOptions,
  more: Partial<CollectiveAttributes>,
): void {
  const add = (group: string, run: Run) =>
    graph.add(collective, [gradients], { kind: "allReduce", group, ...run, ...more }, {
      name: `all-reduce of ${bank.name} over ${group}`,
      outputs: [gradients],
    });
  bank.members.forEach(({ parameter }, i) => {
    const start = bank.offsets[i];
    if (parameter.alike) {
      const [row, rows] = parameter.alike;
      const width = rowSize(parameter);
      add("keyValue", { start: start + row * width, length: rows * width });
    }
    // Each rank has seen its share of the rows only. (Embeddings see all.)
    if (options.sequenceParallel && !parameter.split && parameter.unit > 0 && needsRows(parameter)) {
      add("tensor", { start, length: elementCount(parameter) });
    }
    const tied = parameter.name === options.tiedCopy || parameter.name === options.tiedOriginal;
    if (tied && options.zero < 2) add("tied", { start, length: elementCount(parameter) });
  });
}

/** Appends what makes a bank's gradients, complete on each rank, the sum over all ranks: once in a step. */
export function reduceGradients(graph: Graph, bank: ParameterBank, options: BankOptions): void {
  const { gradients, optimizer } = bank;
  if (!gradients || !optimizer) return;
  reduceInside(graph, bank, gradients, options, { last: true });
  if (options.data.size === 1 && options.machines === 1) return;
  const attributes = { group: "data", last: true, deferred: true } as const;
  if (options.zero === 0) {
    graph.add(collective, [gradients], { kind: "allReduce", ...attributes }, {
      name: `all-reduce of ${bank.name} over data`,
      outputs: [gradients],
    });
  } else {
    graph.add(collective, [gradients], { kind: "reduceScatter", ...attributes, inPlace: true }, {
      name: `reduce-scatter of ${bank.name}`,
      outputs: [gradients],
    });
  }
}

/** Norms work on a share of the rows; the biases that stand behind a sum are added before it, where all rows are. */
function needsRows(parameter: Parameter): boolean {
  return /norm|ln_/.test(parameter.name);
}
