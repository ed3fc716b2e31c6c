/**
 * Sharded gradients and parameters (Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter
 * Models", 2020, stages 2 and 3) as rewrites of a segment: whole banks live only from their first use to their last.
 * @module
 */

import { collective } from "../graph/collective.ts";
import type { Graph, Op } from "../graph/graph.ts";
import type { Tensor } from "../graph/tensor.ts";
import { accumulate } from "../kernels/accumulate.ts";
import { fillZero } from "../kernels/fill_zero.ts";
import { type BankOptions, bankUnit, hostNames, type ParameterBank } from "./parameter_banks.ts";
import { reduceInside } from "./reduce_gradients.ts";

/** A bank's tensors anew, as activations: the flat one, and by the tensors whose places the members take. */
function transientBank(
  graph: Graph,
  { flat, members }: { flat: Tensor; members: readonly Tensor[] },
  unit: number,
): { flat: Tensor; replaced: Map<Tensor, Tensor> } {
  const own = members.map(({ name, shape, dtype }) => graph.tensor(name, shape, "activation", { dtype }));
  return {
    flat: graph.bank(flat.name, "activation", own, unit),
    replaced: new Map(members.map((member, i) => [member, own[i]])),
  };
}

/**
 * Has a segment that makes gradients sum each bank over the data-parallel ranks as soon as it is complete, in every
 * micro-batch, and add this rank's part to its shard.
 */
export function shardGradients(
  graph: Graph,
  segment: string,
  banks: readonly ParameterBank[],
  options: BankOptions,
): void {
  graph.rewrite(segment, (ops) => {
    const uses = banks.flatMap((bank) => {
      const members = bank.members.map(({ gradient }) => gradient!);
      const writes = (op: Op) => op.outputs.some((output) => members.includes(output));
      const first = ops.findIndex(writes);
      if (first < 0) return [];
      const made = transientBank(graph, { flat: bank.gradients!, members }, bankUnit(options));
      return [{ bank, first, last: ops.findLastIndex(writes), ...made }];
    });
    const replaced = new Map(uses.flatMap((use) => [...use.replaced]));
    const open = new Set(uses);
    let before: (() => void) | undefined;
    ops.forEach((op, i) => {
      for (const { bank, first, flat } of uses) {
        if (first === i) graph.add(fillZero, [], { shape: [bank.length] }, { outputs: [flat] });
      }
      graph.append(op, replaced);
      for (const use of uses) {
        if (use.last !== i) continue;
        open.delete(use);
        const { bank, flat } = use;
        const { gradients: shard, owned } = bank.optimizer!;
        reduceInside(graph, bank, flat, options, {});
        // A sum over machines may be under way for longer than to the next collective.
        const deferred = open.size > 0 && options.machines === 1;
        const [part] = graph.add(
          collective,
          [flat],
          { kind: "reduceScatter", group: "data", shape: [owned.length], deferred },
          { name: `reduce-scatter of ${bank.name}` },
        );
        // What is deferred is there once the next collective has been carried out.
        before?.();
        const add = () => void graph.add(accumulate, [part, shard], {}, { outputs: [shard] });
        if (!deferred) add();
        before = deferred ? add : undefined;
      }
    });
  });
}

/** Banks that are there at once: what is used again before two others have been is not fetched anew. */
const banksAtOnce = 2;

/**
 * Has a segment take each bank's weights from host memory, where the ranks that share a batch have left their parts, just
 * before it needs them: the host copies a bank while the device computes with the one before.
 */
export function gatherWeights(
  graph: Graph,
  segment: string,
  banks: readonly ParameterBank[],
  options: BankOptions,
): void {
  const bankOf = new Map(banks.flatMap((bank) => bank.members.map(({ tensor }) => [tensor, bank] as const)));
  graph.rewrite(segment, (ops) => {
    // Least recently used first.
    const here = new Map<ParameterBank, Map<Tensor, Tensor>>();
    for (const op of ops) {
      const needed = new Set(op.inputs.flatMap((input) => bankOf.get(input) ?? []));
      for (const bank of needed) {
        let replaced = here.get(bank);
        here.delete(bank);
        if (!replaced) {
          const members = bank.members.map(({ tensor }) => tensor);
          const made = transientBank(graph, { flat: bank.weights, members }, bankUnit(options));
          replaced = made.replaced;
          graph.add(
            collective,
            [],
            { kind: "fromHost", group: hostNames.weights(bank.name), shape: [bank.length] },
            { name: `gather of ${bank.name}`, outputs: [made.flat] },
          );
        }
        here.set(bank, replaced);
        const [oldest] = here.keys();
        if (here.size > Math.max(banksAtOnce, needed.size)) here.delete(oldest);
      }
      graph.append(op, new Map([...needed].flatMap((bank) => [...here.get(bank)!])));
    }
  });
}
