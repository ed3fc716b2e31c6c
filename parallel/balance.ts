/**
 * How copies of the model share a batch: any split gives the same result, since losses are weighted by tokens.
 * @module
 */

import { UserError } from "../errors.ts";

/** Whole parts of `total` in proportion to `weights`, none below `least` (by largest remainders, Hamilton's method). */
export function apportion(total: number, weights: readonly number[], least = 1): number[] {
  const spare = total - least * weights.length;
  if (spare < 0) throw new RangeError(`${total} cannot be split into ${weights.length} parts of ${least} at least`);
  const sum = weights.reduce((a, b) => a + b, 0);
  // What is due beyond the least; whoever is due less than that gets the least.
  const due = weights.map((weight) => Math.max(0, total * weight / sum - least));
  const all = due.reduce((a, b) => a + b, 0);
  const exact = due.map((part) => all > 0 ? spare * part / all : spare / weights.length);
  const parts = exact.map(Math.floor);
  // Weights that differ by less than rounding shows are still told apart: the heavier one is never given less.
  const order = exact.map((part, i) => [part - parts[i], i])
    .sort((a, b) => b[0] - a[0] || weights[b[1]] - weights[a[1]] || a[1] - b[1]);
  const left = spare - parts.reduce((a, b) => a + b, 0);
  for (const [, i] of order.slice(0, left)) parts[i]++;
  return parts.map((part) => part + least);
}

/** Sequences of a batch for each of `copies`, as `--balance` says; `auto` starts even. `UserError` on what does not fit. */
export function splitBatch(balance: string, batchSize: number, copies: number): number[] {
  if (batchSize < copies) {
    throw new UserError(`--batch-size ${batchSize} is less than one sequence for each of --dp ${copies} copies`);
  }
  if (balance === "auto" || balance === "even") return apportion(batchSize, new Array(copies).fill(1));
  const weights = balance.split(":").map((part) => part.trim() === "" ? NaN : Number(part));
  if (!weights.every((weight) => weight > 0 && Number.isFinite(weight))) {
    throw new UserError(`--balance ${balance} must be auto, even or positive parts like 3:1`);
  }
  if (weights.length !== copies) {
    throw new UserError(
      `--balance ${balance} has ${weights.length} parts, but there are ${copies} data-parallel copies`,
    );
  }
  return apportion(batchSize, weights);
}

/** A split pays if it makes steps shorter by this share; smaller gains are noise. */
const worthwhile = 0.1;

/**
 * The split of a batch that suits copies that took `milliseconds` for `shares`; `shares` itself if the gain is small. All
 * ranks that are given the same numbers find the same.
 */
export function rebalance(shares: readonly number[], milliseconds: readonly number[]): readonly number[] {
  const speeds = shares.map((share, i) => share / Math.max(1e-3, milliseconds[i]));
  const next = apportion(shares.reduce((a, b) => a + b, 0), speeds);
  const longest = (split: readonly number[]) => Math.max(...split.map((share, i) => share / speeds[i]));
  return longest(next) < (1 - worthwhile) * longest(shares) ? next : shares;
}
