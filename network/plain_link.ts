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
  /** What only the two ends of this connection have, if there is such: goes into what they prove to each other. */
  readonly binding?: Uint8Array;
  /** Told that the peer has proven itself. */
  proven?(): void;
}

/** What the peer's end of a connection is called until it says who it is. */
export function addressOf({ hostname, port }: { hostname: string; port: number }): string {
  return hostname.includes(":") ? `[${hostname}]:${port}` : `${hostname}:${port}`;
}

/**
 * Time in ms for which bytes are asked for again and again before the event loop waits for them, which takes longer than
 * that when the peer is about to answer. All-reduce of 4 KiB among 4 processes on two cores that others used too: 246 µs
 * with 0, 209 with 20 µs, 199 with 50 µs, 181 with 200 µs, 173 with 1 ms; without yielding the core 462 with 50 µs.
 */
const patience = 0.1;
/** Time in ms for which links may keep a thread from its event loop, on which timers and other connections wait. */
const withoutTurn = 5;
/** When the event loop of this thread last had a turn, as far as links know. */
let turned = 0;

/** A link over `connection`, which belongs to it from then on. */
export class PlainLink implements NamedLink {
  readonly #connection: Deno.TcpConn;
  readonly #socketOf: typeof systemSocket;
  /** What moves bytes without waiting, where there is such a thing. */
  #socket: SystemSocket | undefined;
  #closed = false;

  /** `socketOf` gives what moves bytes without waiting; tests have their own. */
  constructor(connection: Deno.TcpConn, public peer: string, socketOf = systemSocket) {
    this.#connection = connection;
    connection.setNoDelay(true);
    this.#socketOf = socketOf;
  }

  /** Has bytes moved by the system itself from now on. To look for its socket takes up to 12 ms: too long for any stranger. */
  proven(): void {
    if (!this.#closed) this.#socket ??= this.#socketOf(this.#connection);
  }

  async write(source: Uint8Array<ArrayBufferLike>): Promise<void> {
    let sent = 0;
    while (sent < source.length) {
      const piece = source.subarray(sent, sent + pieceBytes);
      // The system may take less than it is offered.
      sent += await this.#some((socket) => socket.send(piece), () => this.#connection.write(piece));
    }
  }

  async read(target: Uint8Array<ArrayBufferLike>): Promise<void> {
    let filled = 0;
    while (filled < target.length) {
      const rest = filled === 0 ? target : target.subarray(filled);
      const count = await this.#some((socket) => socket.receive(rest), () => this.#connection.read(rest));
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

  /** Moves some bytes: at once, within a short while, or when the event loop finds that it can be done. */
  async #some<T>(move: (socket: SystemSocket) => number, wait: () => Promise<T>): Promise<number | T> {
    if (this.#socket) {
      const start = performance.now();
      if (start - turned > withoutTurn) {
        await new Promise<void>((resolve) => setImmediate(resolve));
        turned = performance.now();
      }
      do {
        if (this.#closed) break;
        const count = move(this.#socket);
        if (count > 0) return count;
        // Other calls that are under way on this thread take their turns, and other threads on this core.
        await null;
        yieldCore();
      } while (performance.now() - start < patience);
    }
    return await wait().catch((error) => this.#fail(error));
  }

  #fail(error: unknown): never {
    if (this.#closed) throw new MachineError(`The connection to ${this.peer} was closed here`, { restartable: true });
    throw new MachineError(`The connection to ${this.peer} broke: ${messageOf(error)}`, { restartable: true });
  }
}
