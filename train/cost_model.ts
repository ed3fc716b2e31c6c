/**
 * How long a step takes, from counted work and a device's rates. A pure function.
 *
 * A dispatch takes the longer of its arithmetic and its traffic, and an overhead. A collective goes through the host: it
 * waits for the device, reads what this rank brings, writes what it gets. A pipeline is played through by its schedule.
 * @module
 */

import type { CollectiveAttributes } from "../graph/collective.ts";
import type { Op } from "../graph/graph.ts";
import type { Plan, PlannedDispatch, Stretch } from "../graph/plan.ts";
import { elementCount, type Tensor } from "../graph/tensor.ts";
import type { Action, StageCosts } from "../parallel/schedules.ts";
import type { Hardware } from "./hardware.ts";
import { type RankLayout, segmentName } from "./rank_layout.ts";

/** Ranks of each group, by the names that collectives use. */
export type Groups = ReadonlyMap<string, readonly number[]>;

/** Seconds of a dispatch. */
export function dispatchSeconds(
  { flops, bytes }: Pick<PlannedDispatch, "flops" | "bytes">,
  hardware: Hardware,
): number {
  return Math.max(flops / hardware.productFlops, bytes / hardware.memoryRate) + hardware.dispatchSeconds;
}

const bytesOf = (tensor: Tensor | undefined) => tensor ? 4 * elementCount(tensor) : 0;

/** Bytes that a collective takes from the device and brings to it; groups of one rank do nothing. */
export function collectiveBytes(op: Op<CollectiveAttributes>, groups: Groups): { read: number; write: number } {
  const { kind, group, start = 0, length } = op.attributes;
  // Channels are in no group: they join two ranks.
  if (groups.get(group)?.length === 1) return { read: 0, write: 0 };
  const [x] = op.inputs;
  if (kind === "allReduce") {
    const bytes = 4 * (length ?? elementCount(x) - start);
    return { read: bytes, write: bytes };
  }
  return { read: bytesOf(x), write: bytesOf(op.outputs[0]) };
}

/** Seconds of a collective, others being there. */
export function collectiveSeconds(op: Op<CollectiveAttributes>, groups: Groups, hardware: Hardware): number {
  const { read, write } = collectiveBytes(op, groups);
  if (read + write === 0) return 0;
  const { group, deferred } = op.attributes;
  // What is deferred goes on under the next dispatches: nobody waits to meet.
  const meeting = groups.has(group) && !deferred ? hardware.meetSeconds : 0;
  return hardware.waitSeconds + meeting + read / hardware.readRate + write / hardware.writeRate;
}

/** Seconds of a segment for each micro-batch, and those that its collectives take once a step. */
function segmentSeconds(stretches: readonly Stretch[] | undefined, groups: Groups, hardware: Hardware) {
  let each = 0;
  let once = 0;
  for (const { dispatches, collective } of stretches ?? []) {
    for (const dispatch of dispatches) each += dispatchSeconds(dispatch, hardware);
    if (!collective) continue;
    const seconds = collectiveSeconds(collective, groups, hardware);
    if (collective.attributes.last) once += seconds;
    else each += seconds;
  }
  return { each, once };
}

/** Times of a rank's work, in seconds. */
export interface RankTimes {
  /** Of an action on one micro-batch. */
  readonly action: (kind: Action["kind"], chunk: number) => number;
  /** Once a step: sums of gradients over ranks, the optimizer. */
  readonly once: number;
}

/** Predicts a rank's times from its plan. A whole model's forward and backward count as `forward`. */
export function rankTimes(plan: Plan, layout: RankLayout, groups: Groups, hardware: Hardware): RankTimes {
  const of = (name: string) => segmentSeconds(plan.segments.get(name), groups, hardware);
  const actions = new Map<string, number>();
  let once = 0;
  for (const name of ["reduce", "update"]) once += of(name).each + of(name).once;
  layout.parts.forEach((_, chunk) => {
    for (const kind of ["forward", "backward", "weights"] as const) {
      if (layout.total === 1 && kind !== "forward") continue;
      const { each, once: last } = of(segmentName(kind, layout, chunk, 0));
      actions.set(`${kind} ${chunk}`, each);
      once += last;
    }
  });
  return { action: (kind, chunk) => actions.get(`${kind} ${chunk}`) ?? 0, once };
}

/** Costs of a schedule: each stage is as slow as its slowest rank. */
export function slowestRanks(stages: readonly (readonly RankTimes[])[]): StageCosts {
  return (stage, { kind, chunk }) => Math.max(...stages[stage].map(({ action }) => action(kind, chunk)));
}
