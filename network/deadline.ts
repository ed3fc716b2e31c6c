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
