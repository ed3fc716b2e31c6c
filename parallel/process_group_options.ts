/**
 * What a process group is made of, checked and completed.
 * @module
 */

import { UserError } from "../errors.ts";
import type { Link } from "../network/link.ts";
import type { AlgorithmBounds, CollectiveAlgorithm } from "./algorithms.ts";
import { scratchBytes } from "./group_memory.ts";

/** What a process group is made of. */
export interface ProcessGroupOptions {
  /** This member's number, from 0. */
  readonly rank: number;
  /** Number of members. */
  readonly size: number;
  /** A link to each other member, by its rank; the group closes them. */
  readonly links: ReadonlyMap<number, Link>;
  /** Longest time in which a send or receive may make no headway. */
  readonly timeoutSeconds: number;
  /** The same on all members; by size if not given. */
  readonly algorithm?: CollectiveAlgorithm;
  /** Up to so many bytes `auto` is `doubling`; 512 KiB if not given. The same on all members. */
  readonly doublingBytes?: number;
  /** Beyond that and up to so many bytes `auto` is `halving`; 8 MiB if not given among 2, 4, 8, … members, else none. */
  readonly halvingBytes?: number;
  /** Told what the group does from now on, as `reduce-scatter step 1 of 3`; for a timeline. */
  readonly onPhase?: (phase: string) => void;
  /**
   * Shared memory of WebAssembly whose numbers are summed in place, without a copy, and the offset in bytes (a multiple of
   * 64) of `ProcessGroup.scratchBytes` in it that are the group's own. If not given, the group makes memory for itself.
   */
  readonly memory?: { readonly memory: WebAssembly.Memory; readonly scratchOffset: number };
}

/**
 * Up to so many bytes are all-reduced by recursive doubling if not told otherwise. On loopback it takes 0.5 of the ring's time
 * at 64 KiB and 0.8 at 512 KiB among 4 members, and the two are equal at 1 MiB. Where a message's latency is L and the
 * bandwidth B they are equal near 8 L B among 4 or 8 members, later among more.
 */
const defaultDoublingBytes = 512 * 1024;
/**
 * Up to so many bytes are all-reduced by recursive halving. On loopback among 4 members it takes 0.92 of the ring's time at
 * 1 MiB and 0.88 at 4 MiB, and 1.09 at 16 MiB. Where members are no power of two, folding in costs more than it gains.
 */
const defaultHalvingBytes = 8 * 2 ** 20;
/** Options with nothing left open. */
export interface SettledOptions extends Pick<ProcessGroupOptions, "rank" | "size" | "links" | "timeoutSeconds"> {
  readonly algorithm: CollectiveAlgorithm;
  readonly bounds: AlgorithmBounds;
  readonly memory: WebAssembly.Memory;
  readonly scratchOffset: number;
}

/** Completes options; `UserError` if they contradict each other. */
export function settled(options: ProcessGroupOptions): SettledOptions {
  const { rank, size, links, timeoutSeconds, algorithm = "auto", doublingBytes = defaultDoublingBytes } = options;
  if (!Number.isInteger(size) || size < 1 || !Number.isInteger(rank) || rank < 0 || rank >= size) {
    throw new UserError(`A process group of ${size} members has no member ${rank}`);
  }
  if (!(timeoutSeconds > 0 && timeoutSeconds <= 2e6)) {
    throw new UserError(`The limit of waits must be above 0 and at most 2000000 s: it is ${timeoutSeconds}`);
  }
  for (let other = 0; other < size; other++) {
    if (other !== rank && !links.has(other)) {
      throw new UserError(`Member ${rank} of the process group has no link to member ${other}`);
    }
  }
  const { halvingBytes = Number.isInteger(Math.log2(size)) ? defaultHalvingBytes : 0 } = options;
  const pages = Math.ceil(scratchBytes / 65536);
  const { memory, scratchOffset } = options.memory ??
    { memory: new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true }), scratchOffset: 0 };
  if (!(memory.buffer instanceof SharedArrayBuffer)) {
    throw new UserError("The memory given to a process group is not shared");
  }
  if (scratchOffset % 64 !== 0 || !(scratchOffset >= 0 && scratchOffset + scratchBytes <= memory.buffer.byteLength)) {
    throw new UserError(`The memory given to a process group has no ${scratchBytes} bytes at ${scratchOffset}`);
  }
  return {
    rank,
    size,
    links,
    timeoutSeconds,
    algorithm,
    bounds: { doublingBytes, halvingBytes },
    memory,
    scratchOffset,
  };
}
