/**
 * The roofline (Williams, Waterman and Patterson, "Roofline: An Insightful Visual Performance Model", 2009): work takes at least the
 * time of its arithmetic at the device's peak, and at least that of its traffic at its bandwidth.
 * @module
 */

/** Rates of a device at which nothing is faster. */
export interface Ceilings {
  /** Multiply-adds, in flop/s. */
  readonly flopsPerSecond: number;
  /** Bytes read and written by a copy, in bytes/s. */
  readonly bytesPerSecond: number;
}

/** What a kernel does, and the time it takes. */
export interface Timing {
  readonly flops: number;
  /** Each operand read or written once. */
  readonly bytes: number;
  readonly milliseconds: number;
}

/** A kernel's rates beside the ceiling that bounds it. */
export interface Roofline {
  readonly gflops: number;
  /** GB/s. */
  readonly gigabytes: number;
  readonly bound: "arithmetic" | "memory";
  /** Least time by that ceiling over the time it took. Above 1 where operands stay in a cache. */
  readonly share: number;
}

/** Places a kernel under the roofline: its ceiling is min(peak, flops / bytes · bandwidth). */
export function roofline({ flops, bytes, milliseconds }: Timing, ceilings: Ceilings): Roofline {
  const seconds = milliseconds / 1e3;
  const arithmetic = flops / ceilings.flopsPerSecond;
  const memory = bytes / ceilings.bytesPerSecond;
  return {
    gflops: flops / seconds / 1e9,
    gigabytes: bytes / seconds / 1e9,
    bound: arithmetic > memory ? "arithmetic" : "memory",
    share: Math.max(arithmetic, memory) / seconds,
  };
}

/** The value in the middle of the sorted ones. */
export function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1];
}
