/**
 * The multiply-add peak of a device: what shares and utilisation are of, and the scale of first guesses.
 *
 * Whatever else runs on the machine only lowers what is measured. A software driver gives each of its threads an equal part of a
 * dispatch, so a core that does something else for some ms halves the rate of the whole, often for several runs on end. So the
 * highest of many short runs counts, and whoever needs the peak for long measures it again now and then.
 * @module
 */

import type { Device } from "./device.ts";
import { type Load, timedMultiplyAdds, usualChains } from "./loads.ts";

/** The peak as known so far. */
export interface Peak {
  /** The highest rate of all runs, in flop/s (a multiply-add counts two). */
  readonly flopsPerSecond: number;
  /** Measures once more, which takes some 5 ms, and tells the rate of this very run. Waits for the device. */
  readonly measure: () => number;
  /** Frees its buffers. */
  readonly destroy: () => void;
}

/** So many runs on end must bring nothing new. */
const patience = 8;
/** What is new, as a share of what was known. */
const news = 0.02;
/** Nothing goes on for longer, in ms. */
const longest = 150;

/** The rate of one run of a load, in what its amount counts, a second. */
function rateOf(device: Device, load: Load): number {
  device.drain();
  const start = performance.now();
  load.run();
  device.drain();
  return load.amount / ((performance.now() - start) / 1e3);
}

/** Takes the highest of runs until `patience` of them on end bring nothing new; at most for `longest` ms by this clock. */
export function highestOf(run: () => number, now: () => number = () => performance.now()): number {
  const began = now();
  let highest = 0;
  for (let waited = 0; waited < patience && now() - began < longest; waited++) {
    const rate = run();
    if (rate > (1 + news) * highest) waited = -1;
    highest = Math.max(highest, rate);
  }
  return highest;
}

/** Measures the peak of a device of which nothing is known, in some 50 ms. */
export async function measureFlops(device: Device): Promise<number> {
  for (let guess = 1e9;;) {
    const load = await timedMultiplyAdds(device, usualChains, guess);
    const rate = highestOf(() => rateOf(device, load));
    load.destroy();
    // A load made for half of the rate is long enough.
    if (rate < 2 * guess) return rate;
    guess = rate;
  }
}

/** The peak as it was when the device was opened, to be measured again. */
export async function openPeak(device: Device): Promise<Peak> {
  let { flopsPerSecond } = device.capabilities;
  const load = await timedMultiplyAdds(device, usualChains, flopsPerSecond);
  return {
    get flopsPerSecond() {
      return flopsPerSecond;
    },
    measure() {
      const rate = rateOf(device, load);
      flopsPerSecond = Math.max(flopsPerSecond, rate);
      return rate;
    },
    destroy: load.destroy,
  };
}
