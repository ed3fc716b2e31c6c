/**
 * What a step does once its gradients are there: sums over ranks, the norm, AdamW, and what makes the weights whole again.
 * @module
 */

import { collective } from "../graph/collective.ts";
import { elementCount, type Tensor } from "../graph/tensor.ts";
import { adamw } from "../kernels/adamw.ts";
import { fillZero } from "../kernels/fill_zero.ts";
import { sumOfSquares } from "../kernels/sum_of_squares.ts";
import type { GraphBuilder } from "./graph_builder.ts";
import { hostNames, type ParameterBank } from "./parameter_banks.ts";
import { reduceGradients } from "./reduce_gradients.ts";

/** The collectives that sum gradients over ranks: under way in backward, or behind it where parts depend on each other. */
export function addReductions({ graph, layout, banks, bankOptions }: GraphBuilder): void {
  const tied = bankOptions.tiedCopy ?? bankOptions.tiedOriginal;
  if (layout.zero >= 2) {
    // What `shardGradients` leaves: a tied table's shards, in a bank of their own, are summed over first and last stage.
    const bank = banks.find(({ members }) => members[0].parameter.name === tied);
    if (!bank) return;
    const { gradients } = bank.optimizer!;
    const name = `all-reduce of ${bank.name} over tied`;
    graph.segment("reduce", () => {
      graph.add(collective, [gradients], { kind: "allReduce", group: "tied" }, { name, outputs: [gradients] });
    });
    return;
  }
  if (layout.total > 1) {
    graph.segment("reduce", () => banks.forEach((bank) => reduceGradients(graph, bank, bankOptions)));
    return;
  }
  graph.rewrite("train", (ops) => {
    const ready = banks.map(({ members }) => {
      const own = new Set(members.map(({ gradient }) => gradient));
      return ops.findLastIndex((op) => op.outputs.some((output) => own.has(output)));
    });
    ops.forEach((op, i) => {
      graph.append(op);
      banks.forEach((bank, b) => ready[b] === i && reduceGradients(graph, bank, bankOptions));
    });
  });
}

/** Norm of the gradients, AdamW, and what makes the weights whole again. */
export function addUpdate(builder: GraphBuilder, squares: Tensor, hyper: Tensor): void {
  const { graph, layout, banks } = builder;
  graph.segment("update", () => {
    const shards = banks.map((bank) => bank.optimizer!);
    const runs = shards.map(({ counted }) => counted);
    graph.add(sumOfSquares, shards.map(({ gradients }) => gradients), { runs }, { outputs: [squares] });
    if (layout.world > 1) {
      graph.add(collective, [squares], { kind: "allReduce", group: "world" }, {
        name: "all-reduce of the gradient norm",
        outputs: [squares],
      });
    }
    for (const bank of banks) updateBank(builder, bank, hyper, squares);
  });
}

function updateBank(
  { graph, layout: { zero, offload } }: GraphBuilder,
  { name, weights, gradients, length, optimizer }: ParameterBank,
  hyper: Tensor,
  squares: Tensor,
): void {
  const { owned, decayed, weightsStart, gradientsStart, firstMoment, secondMoment, copy, ...shard } = optimizer!;
  const masters = copy ? [["master", shard.weights] as const] : [];
  const inHost = offload
    ? [...masters, ["firstMoment", firstMoment] as const, ["secondMoment", secondMoment] as const]
    : [];
  for (const [kind, state] of inHost) {
    const attributes = { kind: "fromHost", group: hostNames[kind](name), shape: state.shape } as const;
    graph.add(collective, [], attributes, { name: `fetch of the ${state.name}`, outputs: [state] });
  }
  const state = [shard.weights, shard.gradients, firstMoment, secondMoment];
  const attributes = {
    decayed,
    weightsStart,
    gradientsStart,
    ...(copy ? { copy: { dtype: copy.tensor.dtype, elements: elementCount(copy.tensor), start: copy.start } } : {}),
  };
  const outputs = copy ? [...state, copy.tensor] : state;
  graph.add(adamw, [...state, hyper, squares], attributes, { outputs });
  for (const [kind, state] of inHost) {
    graph.add(collective, [state], { kind: "toHost", group: hostNames[kind](name) }, {
      name: `store of the ${state.name}`,
    });
  }
  if (zero === 1) graph.add(fillZero, [], { shape: [length] }, { outputs: [gradients!] });
  if (zero === 1 || zero === 2) {
    graph.add(collective, [weights], { kind: "allGather", group: "data", inPlace: true }, {
      name: `all-gather of ${name}`,
      outputs: [weights],
    });
  }
  if (zero === 3) {
    // No barrier of its own: others read it behind the sum of the step's losses over all ranks, and have read what was
    // there before ahead of the sum of the gradient norm.
    const attributes = { kind: "toHost", group: hostNames.weights(name), start: owned.start } as const;
    graph.add(collective, [copy?.tensor ?? shard.weights], attributes, { name: `store of ${name}` });
  }
}
