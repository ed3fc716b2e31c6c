/**
 * Which way an all-reduce goes, by its size; and the measurement that settles it on the links at hand.
 * @module
 */

import { UserError } from "../errors.ts";

/** By recursive doubling, by recursive halving and doubling, or around a ring. */
export type AllReduceAlgorithm = "doubling" | "halving" | "ring";

/** The ways, from the one with the fewest steps to the one that is fastest for much data. */
export const allReduceAlgorithms: readonly AllReduceAlgorithm[] = ["doubling", "halving", "ring"];

/** How an all-reduce goes: always the same way, or by size. */
export type CollectiveAlgorithm = "auto" | AllReduceAlgorithm;

/** Up to how many bytes the first two ways are taken. */
export interface AlgorithmBounds {
  /** Up to so many bytes by doubling. */
  readonly doublingBytes: number;
  /** Beyond these and up to so many by halving, and all that is larger around the ring. */
  readonly halvingBytes: number;
}

/** The way for so many bytes. */
export function algorithmFor(
  algorithm: CollectiveAlgorithm,
  { doublingBytes, halvingBytes }: AlgorithmBounds,
  bytes: number,
): AllReduceAlgorithm {
  if (algorithm !== "auto") return algorithm;
  if (bytes <= doublingBytes) return "doubling";
  return bytes <= halvingBytes ? "halving" : "ring";
}

/** Reads the name of a way. */
export function readAlgorithm(name: string): CollectiveAlgorithm {
  const names: readonly CollectiveAlgorithm[] = ["auto", ...allReduceAlgorithms];
  const found = names.find((known) => known === name);
  if (found === undefined) throw new UserError(`An all-reduce goes by ${names.join(", ")}, not by "${name}"`);
  return found;
}

/** What was measured of one size. */
export interface AlgorithmTimes {
  /** Bytes that were all-reduced. */
  readonly bytes: number;
  /** Median over rounds of the slowest member's time by each way, in µs. */
  readonly microseconds: Readonly<Record<AllReduceAlgorithm, number>>;
}

/** What a measurement has settled, the same on all members. */
export interface AlgorithmChoice {
  /** Up to how many bytes which way is taken from then on. */
  readonly bounds: AlgorithmBounds;
  /** What was measured, the smallest size first; on slow links the largest are left out. */
  readonly times: readonly AlgorithmTimes[];
}

/** What is measured of a group: `parallel/process_group.ts` gives it. */
export interface MeasuredGroup {
  /** This member's number. */
  readonly rank: number;
  /** Number of members. */
  readonly size: number;
  /** Sums in place, one certain way. */
  allReduce(data: Float32Array, algorithm: AllReduceAlgorithm): Promise<void>;
  /** Resolves when all have come. */
  barrier(): Promise<void>;
}

/** Sizes that are measured, in bytes: 4 KiB to 4 MiB. */
const measuredSizes = Array.from({ length: 6 }, (_, i) => 4096 * 4 ** i);
/** Seconds in which the rounds of one size are repeated; what takes longer is done `roundsLeast` times. */
const sizeBudget = 0.12;
const roundsLeast = 3;
const roundsMost = 25;
/** When so many seconds have gone, no larger size is measured: on slow links the first sizes tell enough. */
const budget = 1;

/** Measures all ways; all members call it at once. */
export async function measureAlgorithms(group: MeasuredGroup): Promise<AlgorithmTimes[]> {
  const measured: AlgorithmTimes[] = [];
  let seconds = 0;
  for (const bytes of measuredSizes) {
    if (seconds > budget) break;
    const data = new Float32Array(bytes / 4);
    // The first round opens windows and warms caches; all know its time, so all do as many rounds.
    const first = await timeRound(group, data);
    const roundSeconds = first.reduce((sum, time) => sum + time);
    const rounds = Math.max(roundsLeast, Math.min(roundsMost, Math.round(sizeBudget / roundSeconds)));
    const times: number[][] = [];
    while (times.length < rounds) times.push(await timeRound(group, data));
    const medianOf = (i: number) => times.map((round) => round[i]).toSorted((a, b) => a - b)[rounds >> 1];
    const microseconds = Object.fromEntries(
      allReduceAlgorithms.map((algorithm, i) => [algorithm, Number((medianOf(i) * 1e6).toPrecision(4))]),
    ) as Record<AllReduceAlgorithm, number>;
    measured.push({ bytes, microseconds });
    seconds += first.concat(...times).reduce((sum, time) => sum + time);
  }
  return measured;
}

/** The slowest member's time for each way in turn, in seconds: the same bits on all members. */
async function timeRound(group: MeasuredGroup, data: Float32Array): Promise<number[]> {
  const ways = allReduceAlgorithms.length;
  const times = new Float32Array(ways * group.size);
  for (const [i, algorithm] of allReduceAlgorithms.entries()) {
    await group.barrier();
    const start = performance.now();
    await group.allReduce(data, algorithm);
    times[i * group.size + group.rank] = (performance.now() - start) / 1e3;
  }
  await group.allReduce(times, "doubling");
  return allReduceAlgorithms.map((_, i) => Math.max(...times.subarray(i * group.size, (i + 1) * group.size)));
}

/**
 * The bounds with which the measured sizes would take the least time, each size counted alike. Between two sizes that go
 * different ways the bound is their geometric mean.
 */
export function chooseBounds(times: readonly AlgorithmTimes[]): AlgorithmBounds {
  const cost = (from: number, to: number, algorithm: AllReduceAlgorithm) =>
    times.slice(from, to).reduce((sum, { microseconds }) => sum + Math.log(microseconds[algorithm]), 0);
  let best = { cost: Infinity, doubling: 0, halving: 0 };
  for (let doubling = 0; doubling <= times.length; doubling++) {
    for (let halving = doubling; halving <= times.length; halving++) {
      const sum = cost(0, doubling, "doubling") + cost(doubling, halving, "halving") +
        cost(halving, times.length, "ring");
      if (sum < best.cost) best = { cost: sum, doubling, halving };
    }
  }
  // Sizes are four times the one before.
  const bound = (count: number) => count === 0 ? 0 : 2 * times[count - 1].bytes;
  return { doublingBytes: bound(best.doubling), halvingBytes: bound(best.halving) };
}
