/**
 * Collectives: ops that ranks carry out together. They stand in the graph among the others and cut a program: the host
 * runs them between dispatches, through whatever joins the ranks.
 *
 * A collective moves runs of elements; of halves it moves the bits, or sums them in f32 and rounds once. `allReduce` works in place; `reduceScatter` leaves this rank's part
 * of a sum in its output, `allGather` all ranks' parts; `send` and `receive` join two ranks; `toHost` and `fromHost` put
 * a tensor into host memory, which ranks may share, and take one from there.
 * @module
 */

import type { Op, OpDefinition } from "./graph.ts";

/** The collectives. */
export type CollectiveKind =
  | "allReduce"
  | "reduceScatter"
  | "allGather"
  | "send"
  | "receive"
  | "toHost"
  | "fromHost";

/** Constants of a collective. */
export interface CollectiveAttributes {
  readonly kind: CollectiveKind;
  /** Name of the group of ranks that takes part, of the channel, or of the host memory. */
  readonly group: string;
  /** First element of the input, or of the host memory; 0 if left out. */
  readonly start?: number;
  /** Elements; all from `start` on if left out. */
  readonly length?: number;
  /** Of reduceScatter and allGather: input and output are one whole tensor, of which this rank has its part. */
  readonly inPlace?: boolean;
  /** Only in the last micro-batch of a step. */
  readonly last?: boolean;
  /** Nothing behind it in the segment reads the result: the host's share goes on under the next dispatches. */
  readonly deferred?: boolean;
  /** Shape of the output where it is not given. */
  readonly shape?: readonly number[];
}

/** The op of all collectives. Inputs `[x]` (none for `receive` and `fromHost`), outputs as the kind says. */
export const collective: OpDefinition<CollectiveAttributes> = {
  name: "collective",
  infer([x], { kind, shape }) {
    if (kind === "send" || kind === "toHost") return [];
    return [{ shape: shape ?? x.shape, ...(x ? { dtype: x.dtype } : {}) }];
  },
  gradient(backward, op) {
    const { kind, group } = op.attributes;
    // What a sum's parts contribute to has the same gradient everywhere: in place, nothing is left to do.
    if (kind !== "allGather" && kind !== "reduceScatter") return;
    const [x] = op.inputs;
    const dy = backward.gradientOf(op.outputs[0])!;
    const other = kind === "allGather" ? "reduceScatter" : "allGather";
    const [dx] = backward.add(collective, [dy], { kind: other, group, shape: x.shape }, { name: `${op.name}.dinput` });
    backward.give(x, dx);
  },
  lower: () => [],
};

const kindNames: Readonly<Record<CollectiveKind, string>> = {
  allReduce: "all-reduce",
  reduceScatter: "reduce-scatter",
  allGather: "all-gather",
  send: "send",
  receive: "receive",
  toHost: "store",
  fromHost: "fetch",
};

/** A collective in words, for reports: what it does, and to which tensor. */
export function collectiveName({ name, attributes, inputs, outputs }: Op<CollectiveAttributes>): string {
  const kind = kindNames[attributes.kind];
  if (name.startsWith(kind)) return name;
  const between = attributes.kind === "send" || attributes.kind === "receive";
  return `${kind} of ${between ? attributes.group : (inputs[0] ?? outputs[0]).name}`;
}

/** True for ops that the host carries out. */
export function isCollective(op: Op): op is Op<CollectiveAttributes> {
  return (op.definition as unknown) === collective;
}

/**
 * The start of a part of the model that is split over a group: what all ranks have alike goes in, and the gradients that
 * each then has a part of are summed (the operator f of Shoeybi et al., "Megatron-LM", 2019). Works in place.
 */
export const enterGroup: OpDefinition<{ readonly group: string }> = {
  name: "enterGroup",
  infer: ([x]) => [{ shape: x.shape, dtype: x.dtype, rowUnit: x.rowUnit }],
  gradient(backward, op) {
    const [x] = op.inputs;
    const dx = backward.take(x);
    if (!dx) return;
    backward.add(collective, [dx], { kind: "allReduce", group: op.attributes.group }, {
      name: `${op.name}.dinput`,
      outputs: [dx],
    });
    backward.give(x, dx);
  },
  lower: () => [],
};

/** A run of elements. */
export interface Run {
  readonly start: number;
  readonly length: number;
}

/** The common part of a run and runs that do not overlap. */
export function clip(run: Run, runs: readonly Run[]): Run[] {
  return runs.flatMap(({ start, length }) => {
    const from = Math.max(run.start, start);
    const to = Math.min(run.start + run.length, start + length);
    return from < to ? [{ start: from, length: to - from }] : [];
  });
}
