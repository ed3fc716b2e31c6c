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
import { byteCount, bytesOf, elementCount, type Tensor } from "../graph/tensor.ts";
import type { Action, StageCosts } from "../parallel/schedules.ts";
import type { Hardware } from "./hardware.ts";
import type { BucketSum, Lane } from "./exchange.ts";
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

const bytesIn = (tensor: Tensor | undefined) => tensor ? byteCount(tensor) : 0;

/** Bytes that a collective takes from the device and brings to it; groups of one rank do nothing. */
export function collectiveBytes(op: Op<CollectiveAttributes>, groups: Groups): { read: number; write: number } {
  const { kind, group, start = 0, length } = op.attributes;
  // Channels are in no group: they join two ranks.
  if (groups.get(group)?.length === 1) return { read: 0, write: 0 };
  const [x] = op.inputs;
  if (kind === "allReduce") {
    const bytes = bytesOf(x.dtype) * (length ?? elementCount(x) - start);
    return { read: bytes, write: bytes };
  }
  const [read, write] = [bytesIn(x), bytesIn(op.outputs[0])];
  if (!op.attributes.inPlace) return { read, write };
  // Of the whole tensor a rank reads, or writes, its part only.
  const part = read / groups.get(group)!.length;
  return kind === "allGather" ? { read: part, write: write - part } : { read, write: part };
}

/** Seconds of a collective: `now`, and `later` what may go on under the next dispatches. */
function collectiveSeconds(op: Op<CollectiveAttributes>, groups: Groups, hardware: Hardware) {
  const { read, write } = collectiveBytes(op, groups);
  if (read + write === 0) return { now: 0, later: 0 };
  const now = (read > 0 ? hardware.waitSeconds : 0) + read / hardware.readRate;
  const rest = write / hardware.writeRate;
  // Channels hold what was sent: nobody meets there.
  const meeting = groups.has(op.attributes.group) ? hardware.meetSeconds : 0;
  return op.attributes.deferred ? { now, later: rest } : { now: now + rest + meeting, later: 0 };
}

/** True for what data-parallel ranks sum, on several machines over all of these. */
function sumsGradients({ attributes: { kind, group } }: Op<CollectiveAttributes>): boolean {
  return group === "data" && (kind === "allReduce" || kind === "reduceScatter");
}

/**
 * Seconds of a segment for each micro-batch, those that its collectives take once a step, and the sums of gradients in it:
 * with when this rank has brought its part.
 */
function segmentSeconds(stretches: readonly Stretch[] | undefined, groups: Groups, hardware: Hardware) {
  let each = 0;
  let once = 0;
  let waiting = 0;
  const sums: BucketSum[] = [];
  for (const { dispatches, collective } of stretches ?? []) {
    const work = dispatches.reduce((sum, dispatch) => sum + dispatchSeconds(dispatch, hardware), 0);
    each += work;
    once += Math.max(0, waiting - work);
    waiting = 0;
    if (!collective) continue;
    const { now, later } = collectiveSeconds(collective, groups, hardware);
    if (collective.attributes.last) once += now;
    else each += now;
    waiting = later;
    if (!sumsGradients(collective)) continue;
    const { last = false, deferred = false } = collective.attributes;
    sums.push({ ready: each + once, bytes: bytesIn(collective.inputs[0]), uploadSeconds: later, last, deferred });
  }
  return { each, once: once + waiting, sums };
}

/** Times of a rank's work, in seconds. */
export interface RankTimes {
  /** Of an action on one micro-batch. */
  readonly action: (kind: Action["kind"], chunk: number) => number;
  /** Once a step: sums of gradients over ranks, the optimizer. */
  readonly once: number;
  /** Sums of gradients, by the segments in which they are. */
  readonly lanes: readonly Lane[];
}

/** Predicts a rank's times from its plan. A whole model's forward and backward count as `forward`. */
export function rankTimes(plan: Plan, layout: RankLayout, groups: Groups, hardware: Hardware): RankTimes {
  const of = (name: string) => segmentSeconds(plan.segments.get(name), groups, hardware);
  const actions = new Map<string, number>();
  let once = 0;
  const lanes: Lane[] = [];
  const add = ({ each, once, sums }: ReturnType<typeof of>) => {
    if (sums.length > 0) lanes.push({ seconds: each + once, sums });
  };
  for (const name of ["reduce", "update"]) {
    const segment = of(name);
    once += segment.each + segment.once;
    add(segment);
  }
  layout.parts.forEach((_, chunk) => {
    for (const kind of ["forward", "backward", "weights"] as const) {
      if (layout.total === 1 && kind !== "forward") continue;
      const segment = of(segmentName(kind, layout, chunk, 0));
      actions.set(`${kind} ${chunk}`, segment.each);
      once += segment.once;
      add(segment);
    }
  });
  return { action: (kind, chunk) => actions.get(`${kind} ${chunk}`) ?? 0, once, lanes };
}

/** Costs of a schedule: each stage is as slow as its slowest rank. */
export function slowestRanks(stages: readonly (readonly RankTimes[])[]): StageCosts {
  return (stage, { kind, chunk }) => Math.max(...stages[stage].map(({ action }) => action(kind, chunk)));
}
