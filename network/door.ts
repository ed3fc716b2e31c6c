/**
 * A node's door: the address at which it listens as long as it lives. At the rendezvous it is opened at once; elsewhere
 * when the interface is known that leads to the others.
 * @module
 */

import { MachineError, messageOf } from "../errors.ts";
import { before, inSeconds } from "./deadline.ts";
import { type Address, type Hello, helloSchema, helloSeconds, type NodeOptions, type Place } from "./gathering.ts";
import { type LinkListener, listen } from "./listener.ts";
import { ownBytes, receiveMessage } from "./messages.ts";
import type { NamedLink } from "./plain_link.ts";
import { seldom } from "./refusals.ts";
import { listenAtRendezvous, parseAddress } from "./rendezvous.ts";

/** The door of a node. */
export class Door {
  /** True if it is at the rendezvous, where all look for it. */
  known = false;
  /** Where others find it; undefined until it is open. */
  place: Place | undefined;
  #listener: LinkListener | undefined;
  #closed = false;
  /** Links to those who have not said yet what they want. */
  readonly #silent = new Set<NamedLink>();

  constructor(
    readonly options: NodeOptions,
    /** Takes over a link from which somebody has said what it wants; what it throws refuses it. */
    readonly greet: (link: NamedLink, hello: Hello) => Promise<void>,
  ) {}

  /**
   * Opens it at the rendezvous if this node is to listen there.
   *
   * @throws UserError if it should and cannot
   */
  async openAtRendezvous(): Promise<void> {
    const listener = await listenAtRendezvous(this.options, (link) => this.#receive(link));
    if (!listener) return;
    this.known = true;
    this.#open(listener, parseAddress(this.options.rendezvous));
  }

  /** Opens it, if it is not, at the interface with the address `near`, or the one that was asked for. */
  async open(near: string): Promise<Place> {
    if (this.place) return this.place;
    const { listen: own, secret, group, tls, report } = this.options;
    const opened = (link: NamedLink) => this.#receive(link);
    const listener = await listen({
      hostname: own ?? near,
      port: 0,
      secret,
      group,
      tls,
      opened,
      refused: seldom(report),
    });
    const all = listener.hostname === "0.0.0.0" || listener.hostname === "::";
    return this.#open(listener, { hostname: all ? near : listener.hostname, port: listener.port });
  }

  /** Shuts it. */
  close(): void {
    this.#closed = true;
    this.#listener?.close();
    for (const link of this.#silent) link.close();
  }

  #open(listener: LinkListener, address: Address): Place {
    this.#listener = listener;
    if (this.#closed) listener.close();
    return this.place = { machine: Deno.hostname(), ...address };
  }

  async #receive(link: NamedLink): Promise<void> {
    this.#silent.add(link);
    try {
      const late = () => new MachineError(`${link.peer} said nothing for ${helloSeconds} s`);
      const hello = await before(inSeconds(helloSeconds), receiveMessage(link, helloSchema, ownBytes), late);
      if (this.#closed) throw new MachineError("This node is closed");
      this.#silent.delete(link);
      await this.greet(link, hello);
    } catch (error) {
      this.#silent.delete(link);
      link.close();
      if (!this.#closed) this.options.report?.(`Refused a connection: ${messageOf(error)}`);
    }
  }
}
