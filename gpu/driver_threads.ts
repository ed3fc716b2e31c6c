/**
 * How many threads Mesa's software driver (lavapipe) computes with. It cuts a dispatch into one share of workgroups for each thread and
 * waits for all of them: a share is not divided further.
 * @module
 */

/** Mesa's own variable, read when a device is opened; what the user has set stays. */
const variable = "LP_NUM_THREADS";
/** What Mesa takes at most (`LP_MAX_THREADS`). */
const most = 32;

/**
 * Threads for each of `devices` software devices on `cores` cores; undefined where Mesa's own number, the cores, is right.
 *
 * One device has twice the cores: with as many threads as cores Linux often wakes two on the same core, and then one thread does both
 * shares while a core is idle (2 cores: a third of all dispatches, steps of 66 to 71 ms instead of 59 to 62). Of smaller shares, a
 * core that is free takes the next.
 */
export function threadsOf(cores: number, devices: number): number | undefined {
  if (devices > 1) return Math.max(1, Math.floor(cores / devices));
  return cores > 1 && 2 * cores <= most ? 2 * cores : undefined;
}

/** What the user had set, or, in a Worker, whoever started it. */
const given = Deno.env.get(variable);

/**
 * Has lavapipe take that many from the next device on; other drivers do not know the variable. Before Workers compute: new names in the
 * environment while other threads compute have crashed the C library.
 */
export function prepareThreads(devices = 1): void {
  if (given !== undefined) return;
  const threads = threadsOf(navigator.hardwareConcurrency, devices);
  // A device that was tried or tuned before may have had another number.
  if (threads === undefined) Deno.env.delete(variable);
  else Deno.env.set(variable, String(threads));
}
