/**
 * Reverse-mode differentiation of a segment: walks its ops from last to first and lets each append its own gradient.
 * @module
 */

import type { Backward, Graph, Op } from "./graph.ts";
import type { Tensor } from "./tensor.ts";

/**
 * Appends the backward ops of everything in the segment under construction, or of `forwardOps`.
 *
 * @param seeds gradients of the results: what starts the walk
 * @param accumulators gradient tensor of each parameter that is trained
 * @param sum appends an op that adds two gradients (graph/ knows no kernels)
 * @param wanted inputs whose gradients are asked for besides
 * @param forwardOps the ops to differentiate, where they are in another segment
 * @returns the gradients of `wanted`, by tensor
 */
export function backward(
  graph: Graph,
  seeds: ReadonlyMap<Tensor, Tensor>,
  accumulators: ReadonlyMap<Tensor, Tensor>,
  sum: (graph: Graph, a: Tensor, b: Tensor) => Tensor,
  wanted: readonly Tensor[] = [],
  forwardOps: readonly Op[] = graph.current,
): Map<Tensor, Tensor> {
  const ops: Op[] = [...forwardOps];
  const needed = new Set<Tensor>([...accumulators.keys(), ...wanted]);
  for (const op of ops) {
    if (op.definition.gradient && op.inputs.some((input) => needed.has(input))) {
      for (const output of op.outputs) needed.add(output);
    }
  }
  const sums = new Map<Tensor, Tensor>(seeds);
  const context: Backward = {
    graph,
    gradientOf: (tensor) => sums.get(tensor),
    needs: (tensor) => needed.has(tensor),
    accumulator: (parameter) => {
      const gradient = accumulators.get(parameter);
      if (!gradient) throw new Error(`Parameter ${parameter.name} has no gradient tensor`);
      return gradient;
    },
    take: (tensor) => {
      const before = sums.get(tensor);
      sums.delete(tensor);
      return before;
    },
    give: (tensor, gradient) => {
      const before = sums.get(tensor);
      sums.set(tensor, before ? sum(graph, before, gradient) : gradient);
    },
    add: (definition, inputs, attributes, options) => graph.add(definition, inputs, attributes, options),
  };
  for (const op of ops.reverse()) {
    if (op.definition.gradient && op.outputs.some((output) => sums.has(output) && needed.has(output))) {
      op.definition.gradient(context, op);
    }
  }
  return new Map(wanted.filter((tensor) => sums.has(tensor)).map((tensor) => [tensor, sums.get(tensor)!]));
}
