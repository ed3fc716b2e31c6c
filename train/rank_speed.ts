/**
 * How fast the ranks of a run are beside each other: shares of the batch that suit them, and machines that hold up the rest.
 * @module
 */

import { rebalance } from "../parallel/balance.ts";
import { coordinatesOf } from "../parallel/mesh.ts";
import type { Run } from "./rank_run.ts";
import { ranksOf } from "./run_world.ts";

/** Steps between looks at how fast everybody is; the first look comes when the first steps are over. */
const lookInterval = 16;

/** Looks now and then at how fast everybody was: `own` is the time that this rank computed in the last step, in ms. */
export function compareSpeeds(run: Run, step: number, own: number): void {
  const { job: { world, firstStep, rebalances } } = run;
  if ((step - firstStep) % lookInterval !== 4) return;
  if (rebalances) balance(run, step, own);
  if (world.machine.size > 1) findStragglers(run, step, own);
}

/** Shares a batch out anew if copies of the model are unequally fast. */
function balance(run: Run, step: number, own: number): void {
  const { job: { mesh, rank, copy }, executor, shares } = run;
  const told = shares.map((_, other) => other === copy && coordinatesOf(mesh, rank).tensor === 0 ? own : 0);
  run.shares = rebalance(shares, executor.sumNumbers("the times of the copies", told));
  if (run.shares !== shares) run.post({ type: "balance", step, shares: run.shares });
}

/** A machine is a straggler if its slowest rank computes so many times as long as that of the machine in the middle. */
const slowness = 1.5;
/** Shorter times than this differ by chance, in ms. */
const leastMilliseconds = 20;

/** The slowest rank of each machine, in ms. */
function findStragglers(run: Run, step: number, own: number): void {
  const { job: { world, rank }, executor } = run;
  const { count, first } = ranksOf(world);
  const told = Array.from({ length: count }, (_, other) => other === first + rank ? own : 0);
  const times = executor.sumNumbers("the times of the machines", told);
  let end = 0;
  const slowest = world.ranks.map((ranks) => Math.max(...times.slice(end, end += ranks)));
  // Of two machines the faster one is the measure.
  const middle = slowest.toSorted((a, b) => a - b)[(slowest.length - 1) >> 1];
  slowest.forEach((milliseconds, machine) => {
    const ratio = milliseconds / Math.max(middle, leastMilliseconds);
    const looks = run.slowLooks[machine] = ratio > slowness ? (run.slowLooks[machine] ?? 0) + 1 : 0;
    // Once may be chance, and to say it again tells nothing.
    if (looks === 2) run.post({ type: "straggler", step, machine, slowness: ratio });
  });
}
