/**
 * One link over several: for lines on which one connection does not fill the line, because of its window, its losses or
 * the core that serves it. It remains a stream, whatever the sizes of reads and writes: of every `unitBytes` of the stream the
 * first go over the first connection, the next over the next, and so on around.
 * @module
 */

import { MachineError } from "../errors.ts";
import type { NamedLink } from "./plain_link.ts";

/** Bytes that go over one connection before it is the next one's turn: smaller messages need no more than one or two. */
const unitBytes = 256 * 1024;

/** Where each direction of the stream has come to. */
interface Position {
  at: number;
}

class StripedLink implements NamedLink {
  readonly #links: readonly NamedLink[];
  readonly #written: Position = { at: 0 };
  readonly #read: Position = { at: 0 };
  /** Why the link has ended. */
  #broken: Error | undefined;

  constructor(links: readonly NamedLink[]) {
    this.#links = links;
  }

  get peer(): string {
    return this.#links[0].peer;
  }

  set peer(name: string) {
    for (const link of this.#links) link.peer = name;
  }

  write(source: Uint8Array<ArrayBufferLike>): Promise<void> {
    return this.#move(source, this.#written, (link, part) => link.write(part));
  }

  read(target: Uint8Array<ArrayBufferLike>): Promise<void> {
    return this.#move(target, this.#read, (link, part) => link.read(part));
  }

  close(): void {
    this.#broken ??= new MachineError(`The connections to ${this.peer} were closed here`, { restartable: true });
    for (const link of this.#links) link.close();
  }

  /** Moves each connection's parts one behind the other, all connections at once. */
  async #move(
    bytes: Uint8Array<ArrayBufferLike>,
    position: Position,
    part: (link: NamedLink, bytes: Uint8Array<ArrayBufferLike>) => Promise<void>,
  ): Promise<void> {
    if (this.#broken) throw this.#broken;
    const parts = this.#links.map((): Uint8Array<ArrayBufferLike>[] => []);
    for (let from = 0; from < bytes.length;) {
      const to = Math.min(bytes.length, from + unitBytes - position.at % unitBytes);
      parts[Math.floor(position.at / unitBytes) % parts.length].push(bytes.subarray(from, to));
      position.at += to - from;
      from = to;
    }
    // All are waited for, so that nothing touches the bytes any more when a fault is told.
    await Promise.all(this.#links.map(async (link, i) => {
      try {
        for (const each of parts[i]) await part(link, each);
      } catch (error) {
        // The first fault is the reason for the others.
        this.#broken ??= error as Error;
        for (const each of this.#links) each.close();
      }
    }));
    if (this.#broken) throw this.#broken;
  }
}

/**
 * A link over the given ones, which belong to it from then on; both sides must give them in the same order. A fault of one
 * ends all.
 */
export function stripe(links: readonly NamedLink[]): NamedLink {
  if (links.length === 0) throw new RangeError("a striped link needs at least one connection");
  return links.length === 1 ? links[0] : new StripedLink(links);
}
