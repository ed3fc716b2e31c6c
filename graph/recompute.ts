/**
 * Activations that are computed again in backward instead of being kept from forward (Chen et al., "Training Deep Nets
 * with Sublinear Memory Cost", 2016). A rewrite of ops: works for any model and any choice of tensors.
 * @module
 */

import type { Graph, Op } from "./graph.ts";
import type { Tensor } from "./tensor.ts";

/**
 * Appends `backwardOps` to the segment under construction such that none reads a tensor of `discarded`: before the first op
 * that would, the ops of `forwardOps` that make the tensor are repeated, from what is kept, into a tensor of its own.
 */
export function appendRecomputing(
  graph: Graph,
  forwardOps: readonly Op[],
  backwardOps: readonly Op[],
  discarded: ReadonlySet<Tensor>,
): void {
  const writers = new Map<Tensor, Op[]>();
  for (const op of forwardOps) {
    for (const output of op.outputs) {
      if (discarded.has(output)) writers.set(output, [...(writers.get(output) ?? []), op]);
    }
  }
  const again = new Map<Tensor, Tensor>();
  const repeated = new Set<Op>();
  const ensure = (tensor: Tensor) => {
    if (!discarded.has(tensor) || again.has(tensor)) return;
    // Ops that work in place come behind the one that made the tensor.
    for (const op of writers.get(tensor)!) {
      if (repeated.has(op)) continue;
      repeated.add(op);
      for (const input of op.inputs) if (input !== tensor) ensure(input);
      const swapped = new Map(again);
      for (const output of op.outputs) {
        if (!swapped.has(output)) {
          const { name, shape, dtype, rowUnit } = output;
          swapped.set(output, graph.tensor(`${name} again`, shape, "activation", { dtype, rowUnit }));
        }
        if (discarded.has(output)) again.set(output, swapped.get(output)!);
      }
      graph.append(op, swapped);
    }
  };
  for (const op of backwardOps) {
    for (const tensor of [...op.inputs, ...op.outputs]) ensure(tensor);
    graph.append(op, again);
  }
}
