/**
 * Times subjects in turn, round by round, so that all meet the machine in the same moods.
 * @module
 */

import type { Device } from "../gpu/device.ts";
import { median } from "./roofline.ts";

/** Something timed. */
export interface Subject {
  readonly name: string;
  /** Hands it to the device, or to the host, once. */
  readonly run: () => void | Promise<unknown>;
}

/** How long to measure. */
export interface TimingOptions {
  readonly rounds: number;
  /** Work is repeated until a sample takes about this long, in ms. */
  readonly sampleMilliseconds: number;
}

/** What a measurement takes by default: a whole run stays under a minute. */
export const usualTiming: TimingOptions = { rounds: 5, sampleMilliseconds: 25 };

/** A subject that takes so many samples' time at once is timed in few rounds. */
const longRuns = 4;
const fewRounds = 3;

async function sample({ run }: Subject, device: Device, repeats: number): Promise<number> {
  device.drain();
  const start = performance.now();
  for (let i = 0; i < repeats; i++) {
    const pending = run();
    // Few wait for anything: a turn of the microtask queue is not theirs.
    if (pending) await pending;
  }
  device.drain();
  return (performance.now() - start) / repeats;
}

/** Median times of one run of each, in ms. All have been run before: first runs compile. */
export async function timeAll(
  device: Device,
  subjects: readonly Subject[],
  { rounds, sampleMilliseconds }: TimingOptions,
): Promise<number[]> {
  const repeats: number[] = [];
  const turns: number[] = [];
  for (const subject of subjects) {
    const once = await sample(subject, device, 1);
    repeats.push(Math.max(1, Math.round(sampleMilliseconds / once)));
    turns.push(once > longRuns * sampleMilliseconds ? Math.min(rounds, fewRounds) : rounds);
  }
  const times = subjects.map((): number[] => []);
  for (let round = 0; round < rounds; round++) {
    for (const [i, subject] of subjects.entries()) {
      if (round < turns[i]) times[i].push(await sample(subject, device, repeats[i]));
    }
    await device.settleNowAndThen();
  }
  device.check();
  return times.map(median);
}
