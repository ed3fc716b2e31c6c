/**
 * Limits of waits for other processes.
 * @module
 */

/** A moment by which something must have happened, on the clock of `performance.now()`, in ms. */
export type Deadline = number;

/** The moment in so many seconds. */
export function inSeconds(seconds: number): Deadline {
  return performance.now() + seconds * 1000;
}

/** Waits for `work` until the deadline; behind it calls `expired`, which should end the work, and throws what it gives. */
export async function before<T>(deadline: Deadline, work: Promise<T>, expired: () => Error): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(expired()), Math.max(0, deadline - performance.now()));
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
    // What comes of the work behind its deadline interests nobody.
    work.catch(() => {});
  }
}

/** Waits for a while. */
export function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/**
 * Calls `tick` every so many ms until what it returns is called. Calls that are late are not made up for: a process that
 * was stopped for a minute counts one when it goes on, so that it does not hold its own absence for the others'.
 */
export function ticking(milliseconds: number, tick: () => void): () => void {
  let timer: ReturnType<typeof setTimeout>;
  let stopped = false;
  const again = () => {
    timer = setTimeout(() => {
      tick();
      if (!stopped) again();
    }, milliseconds);
  };
  again();
  return () => {
    stopped = true;
    clearTimeout(timer);
  };
}

/**
 * How often those who watch others count, in ms, given how long silence is borne. At every other tick they show that
 * they live.
 */
export function tickMilliseconds(peerTimeoutSeconds: number): number {
  return Math.min(1500, peerTimeoutSeconds * 100);
}

/** For how many ticks silence is borne. */
export function silentTicks(peerTimeoutSeconds: number): number {
  return Math.ceil(peerTimeoutSeconds * 1000 / tickMilliseconds(peerTimeoutSeconds));
}

/** Does the work for each item, for at most 32 at once. */
export async function forEach<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const rest = [...items].reverse();
  const worker = async () => {
    for (let item = rest.pop(); item !== undefined; item = rest.pop()) await work(item);
  };
  await Promise.all(Array.from({ length: Math.min(32, items.length) }, worker));
}
