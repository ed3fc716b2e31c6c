/**
 * A link over one TCP connection, as it is: nothing is proven, so for loopback, or under an authenticated link.
 * @module
 */

import { MachineError, messageOf } from "../errors.ts";
import type { Link } from "./link.ts";

/**
 * Most bytes given to the system at once. One connection on loopback moved 3.4 to 3.8 GB/s with pieces of 1 to 4 MiB
 * and 1.2 GB/s with 64 KiB.
 */
const pieceBytes = 1 << 20;

/** A link whose peer gets its name after it was opened. */
export interface NamedLink extends Link {
  peer: string;
  /** What only the two ends of this connection have, if there is such: goes into what they prove to each other. */
  readonly binding?: Uint8Array;
}

/** What the peer's end of a connection is called until it says who it is. */
export function addressOf({ hostname, port }: { hostname: string; port: number }): string {
  return hostname.includes(":") ? `[${hostname}]:${port}` : `${hostname}:${port}`;
}

/** A link over `connection`, which belongs to it from then on. */
export class PlainLink implements NamedLink {
  readonly #connection: Deno.TcpConn;
  #closed = false;

  constructor(connection: Deno.TcpConn, public peer: string) {
    this.#connection = connection;
    connection.setNoDelay(true);
  }

  async write(source: Uint8Array<ArrayBufferLike>): Promise<void> {
    let sent = 0;
    while (sent < source.length) {
      // The system may take less than it is offered.
      const piece = source.subarray(sent, sent + pieceBytes);
      sent += await this.#connection.write(piece).catch((error) => this.#fail(error));
    }
  }

  async read(target: Uint8Array<ArrayBufferLike>): Promise<void> {
    let filled = 0;
    while (filled < target.length) {
      const count = await this.#connection.read(filled === 0 ? target : target.subarray(filled))
        .catch((error) => this.#fail(error));
      if (count === null) {
        throw new MachineError(`${this.peer} ended the connection when ${filled} of ${target.length} bytes had come`, {
          restartable: true,
        });
      }
      filled += count;
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#connection.close();
  }

  #fail(error: unknown): never {
    if (this.#closed) throw new MachineError(`The connection to ${this.peer} was closed here`, { restartable: true });
    throw new MachineError(`The connection to ${this.peer} broke: ${messageOf(error)}`, { restartable: true });
  }
}
