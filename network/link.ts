/**
 * What joins two processes: a stream of bytes. Collectives (`parallel/process_group.ts`) know no more of the network.
 * @module
 */

/** A two-way stream of bytes to one peer. */
export interface Link {
  /** The peer in words, for messages: `node 2 (10.0.0.3:29500)`. */
  readonly peer: string;
  /** Sends all of `source`; resolves when the system has taken it. Calls must not overlap. */
  write(source: Uint8Array<ArrayBufferLike>): Promise<void>;
  /** Fills all of `target`; resolves when it is full and, on an authenticated link, proven. Calls must not overlap. */
  read(target: Uint8Array<ArrayBufferLike>): Promise<void>;
  /** Ends the link; pending calls reject. */
  close(): void;
}
