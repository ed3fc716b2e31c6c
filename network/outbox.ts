/**
 * Messages to one peer, one behind the other.
 * @module
 */

import type { Link } from "./link.ts";
import { sendMessage } from "./messages.ts";

/** What is to be sent over a link. That it cannot be sent is for the link's reader to notice. */
export class Outbox {
  #last: Promise<void> = Promise.resolve();
  #waiting = 0;

  constructor(readonly link: Link) {}

  /** Sends a message behind those before it; resolves when the system has taken it, or never will. */
  send(message: unknown): Promise<void> {
    this.#waiting++;
    this.#last = this.#last.then(() => sendMessage(this.link, message)).catch(() => {}).finally(() => this.#waiting--);
    return this.#last;
  }

  /** Sends a message unless another is still on its way: with a peer that does not read they would pile up. */
  beat(message: unknown): void {
    if (this.#waiting === 0) this.send(message);
  }
}
