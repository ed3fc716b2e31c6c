/**
 * A link over one TCP connection, as it is: nothing is proven, so for loopback, or under an authenticated link.
 * @module
 */

import { setImmediate } from "node:timers";
import { MachineError, messageOf } from "../errors.ts";
import type { Link } from "./link.ts";
import { type SystemSocket, systemSocket, yieldCore } from "./system_socket.ts";

/**
 * Most bytes given to the system at once. One connection on loopback moved 3.4 to 3.8 GB/s with pieces of 1 to 4 MiB
 * and 1.2 GB/s with 64 KiB.
 */
const pieceBytes = 1 << 20;

/** A link whose peer gets its name after it was opened. */
export interface NamedLink extends Link {
  peer: string;
}

/** What the peer's end of a connection is called until it says who it is. */
export function addressOf({ hostname, port }: { hostname: string; port: number }): string {
  return hostname.includes(":") ? `[${hostname}]:${port}` : `${hostname}:${port}`;
}

/**
 * Time in µs for which bytes are asked for again and again before the thread waits for them, which takes longer than that
 * when the peer is about to answer.
 */
const patience = 50;
/** Time in ms for which a thread may go on without having waited; then it looks after timers and other links. */
const withoutWaiting = 5;
/** Who only sends messages of up to so many bytes, and gets none, may be a stranger. */
const openingMost = 64;
/** When this thread last waited. */
let waited = 0;

/** A link over `connection`, which belongs to it from then on. */
export class PlainLink implements NamedLink {
  readonly #connection: Deno.TcpConn;
  /** What moves bytes without waiting; null where there is none. It takes a while to find, which strangers are not worth. */
  #socket: SystemSocket | null | undefined;
  #closed = false;

  constructor(connection: Deno.TcpConn, public peer: string) {
    this.#connection = connection;
    connection.setNoDelay(true);
  }

  async write(source: Uint8Array<ArrayBufferLike>): Promise<void> {
    this.#findSocket();
    let sent = 0;
    while (sent < source.length) {
      // The system may take less than it is offered.
      const piece = source.subarray(sent, sent + pieceBytes);
      sent += this.#atOnce((socket) => socket.send(piece)) ||
        await this.#soon((socket) => socket.send(piece)) ||
        await this.#connection.write(piece).catch((error) => this.#fail(error));
    }
  }

  async read(target: Uint8Array<ArrayBufferLike>): Promise<void> {
    if (target.length > openingMost) this.#findSocket();
    let filled = 0;
    while (filled < target.length) {
      const rest = filled === 0 ? target : target.subarray(filled);
      const count = this.#atOnce((socket) => socket.receive(rest)) ||
        await this.#soon((socket) => socket.receive(rest)) ||
        await this.#connection.read(rest).catch((error) => this.#fail(error));
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

  #findSocket(): void {
    if (this.#socket === undefined && !this.#closed) this.#socket = systemSocket(this.#connection) ?? null;
  }

  /** What can be moved now. */
  #atOnce(move: (socket: SystemSocket) => number): number {
    return this.#socket && !this.#closed ? move(this.#socket) : 0;
  }

  /** What can be moved within a short while; other calls that are under way on this thread take turns. */
  async #soon(move: (socket: SystemSocket) => number): Promise<number> {
    if (!this.#socket) return 0;
    const start = performance.now();
    if (start - waited > withoutWaiting) {
      await new Promise<void>((resolve) => setImmediate(resolve));
      waited = performance.now();
    }
    do {
      await null;
      const count = this.#atOnce(move);
      if (count > 0) return count;
      yieldCore();
    } while (performance.now() - start < patience / 1000);
    return 0;
  }

  #fail(error: unknown): never {
    if (this.#closed) throw new MachineError(`The connection to ${this.peer} was closed here`, { restartable: true });
    throw new MachineError(`The connection to ${this.peer} broke: ${messageOf(error)}`, { restartable: true });
  }
}
