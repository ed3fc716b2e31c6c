/**
 * Sums of gradients between machines beside a step: when each bucket is ready, against the work of the network threads.
 * Pure functions.
 *
 * A machine sums a bucket over its own ranks first; the network thread then sums it over the machines, on a lane for each
 * group of data-parallel ranks, while backward goes on; ranks upload what has come. The optimizer waits for all.
 * @module
 */

import {
  algorithmsFor,
  allReduceCost,
  type CollectiveCost,
  type GradientCompression,
  type LaneSum,
  type LinkModel,
  type PlannedAlgorithm,
  playLanes,
} from "../parallel/link_model.ts";

/** A bucket in a segment: `ready` counts from the segment's beginning. */
export interface BucketSum extends LaneSum {
  /** What a rank's host does when the sum has come, in seconds. */
  readonly uploadSeconds: number;
  /** Summed once a step, behind the last micro-batch; else in each. */
  readonly last: boolean;
  /** The ranks go on while it is made; else they wait. */
  readonly deferred: boolean;
}

/** Sums of a group of ranks in a segment. */
export interface Lane {
  /** Of the segment, where these sums are made, if no other machine had to be waited for. */
  readonly seconds: number;
  /** In the order in which they are made. */
  readonly sums: readonly BucketSum[];
}

/** A part of the step whose sums must have come at its end. */
export interface Phase {
  /** How often there is one in a step. */
  readonly times: number;
  /** Of all groups of data-parallel ranks of a machine. */
  readonly lanes: readonly Lane[];
}

/** Machines that train together. */
export interface Machines {
  /** How many. */
  readonly machines: number;
  /** What joins them. */
  readonly link: LinkModel;
  /** How gradients are written on the way. */
  readonly compression: GradientCompression;
  /** How sums are made; `auto`: each by the faster. */
  readonly algorithm: PlannedAlgorithm | "auto";
}

/** What the sums between machines cost a step. */
export interface Exchange {
  /** While sums are under way. */
  readonly seconds: number;
  /** By which the step is longer than if others' gradients came at once. */
  readonly exposedSeconds: number;
  /** Payload that the machine that sends most sends; as much comes in. */
  readonly sentBytes: number;
}

/** Loss and the wish to stop, summed behind each step. */
const numbersBytes = 8;

/** Phases of a step, from the lanes of each stage's slowest rank, of which there are `tensor` alike. */
export function phasesOf(stages: readonly (readonly Lane[])[], tensor: number, microBatches: number): Phase[] {
  const most = Math.max(...stages.map(({ length }) => length));
  return Array.from({ length: most }, (_, i) => {
    const lanes = stages.flatMap((lanes) => lanes[i] ?? []);
    const each = lanes.some(({ sums }) => sums.some(({ last }) => !last));
    return { times: each ? microBatches : 1, lanes: lanes.flatMap((lane) => new Array<Lane>(tensor).fill(lane)) };
  });
}

/** When a phase is over: its work, and uploads one after another, each when its sum has come. */
function endOf(lanes: readonly Lane[], ends: readonly (readonly number[])[]): number {
  return Math.max(...lanes.map(({ seconds, sums }, lane) => {
    let uploaded = 0;
    sums.forEach(({ uploadSeconds }, i) => uploaded = Math.max(uploaded, ends[lane][i]) + uploadSeconds);
    return Math.max(seconds, uploaded);
  }));
}

/** Plays a step's sums. */
export function exchangeOver(phases: readonly Phase[], { machines, link, compression, algorithm }: Machines): Exchange {
  if (machines === 1) return { seconds: 0, exposedSeconds: 0, sentBytes: 0 };
  const known = new Map<number, CollectiveCost>();
  const cost = (bytes: number): CollectiveCost => {
    let found = known.get(bytes);
    if (found === undefined) {
      found = (algorithm === "auto" ? algorithmsFor(compression) : [algorithm])
        .map((one) => allReduceCost(one, machines, bytes, link, compression))
        .reduce((a, b) => b.seconds < a.seconds ? b : a);
      known.set(bytes, found);
    }
    return found;
  };
  const numbers = allReduceCost("doubling", machines, numbersBytes, link);
  let [seconds, exposedSeconds, sentBytes] = [numbers.seconds, numbers.seconds, numbers.sentBytes];
  for (const { times, lanes } of phases) {
    const only = (deferred: boolean) =>
      lanes.map((lane) => ({ ...lane, sums: lane.sums.filter((sum) => sum.deferred === deferred) }));
    const beside = only(true);
    const { ends, busy } = playLanes(beside.map(({ sums }) => sums), cost);
    const atOnce = beside.map(({ sums }) => sums.map(({ ready }) => ready));
    // What ranks wait for shows from its beginning to its end.
    const waits = playLanes(only(false).map(({ sums }) => sums.map((sum) => ({ ...sum, ready: 0 }))), cost).busy;
    seconds += times * (busy + waits);
    exposedSeconds += times * (waits + Math.max(0, endOf(beside, ends) - endOf(beside, atOnce)));
    for (const { bytes } of lanes.flatMap(({ sums }) => sums)) sentBytes += times * cost(bytes).sentBytes;
  }
  return { seconds, exposedSeconds, sentBytes };
}
