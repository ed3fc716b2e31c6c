/**
 * How the processes of a run find each other, hear who lives, and meet again when that changes.
 *
 * Each node has a door, an address where it listens as long as it lives; one of them is the rendezvous, which all know.
 * Nodes *meet* at one door, whose node hosts the meeting, and so form a *world*: fixed members with ranks, and links
 * between each two. A world ends when a member is lost or one ends it. Then the members meet again, each by the same rule:
 * it goes to the door of the lowest rank that it does not know to be gone, and if that is itself it hosts. So there is no
 * vote. Where two come to host since they know different things, they learn of it by knocking at each other's door
 * (`knock.ts`), and the one that is behind comes to the other.
 *
 * Who comes to a door of which the node is in a world or on its way to another host is sent there; who comes to the
 * host's waits in its lobby (`lobby.ts`), and is taken along into the next world. A host that is not at the rendezvous
 * knocks there every beat, so that whoever gathers there learns where the run goes on.
 *
 * A network that falls in two leaves two parts, and each goes on if it has as many members as a run needs at least; that
 * there are never two is certain only if these are more than half of all. When the network is whole again, their hosts learn
 * of each other at the rendezvous, and one part gives its world up and waits to be let into the other's.
 * @module
 */

import { MachineError, messageOf, UserError } from "../errors.ts";
import { before, type Deadline, inSeconds, pause, ticking, tickMilliseconds } from "./deadline.ts";
import {
  type Address,
  checkOffer,
  checkOptions,
  type Hello,
  helloSeconds,
  type Join,
  type LinkHello,
  type NodeOptions,
  type Offer,
  type Place,
  placeName,
  samePlace,
  type Whereabouts,
} from "./gathering.ts";
import { Door } from "./door.ts";
import { knock } from "./knock.ts";
import type { Linking } from "./linking.ts";
import { Lobby } from "./lobby.ts";
import { Meeting } from "./meeting_host.ts";
import { visit } from "./meeting_member.ts";
import { sendMessage } from "./messages.ts";
import type { NamedLink } from "./plain_link.ts";
import { parseAddress } from "./rendezvous.ts";
import { World } from "./world.ts";

export { type NodeOptions, type Offer, World };

/** This process among those of a run. */
export class Node {
  readonly #options: NodeOptions;
  readonly #rendezvous: Address;
  readonly #door: Door;
  readonly #lobby: Lobby;
  readonly #stop: () => void;
  #world: World | undefined;
  /** The meeting that this node hosts. */
  #meeting: Meeting | undefined;
  #linking: Linking | undefined;
  #nextLinking = Promise.withResolvers<void>();
  readonly #closed = new AbortController();
  #knocking = false;
  /** Where to meet next, if this node knows that it was in the wrong part of a run. */
  #leader: Place | undefined;

  private constructor(options: NodeOptions) {
    this.#options = options;
    this.#rendezvous = parseAddress(options.rendezvous);
    this.#door = new Door(options, (link, hello) => this.#greet(link, hello));
    const { peerTimeoutSeconds } = options;
    const beat = 2 * tickMilliseconds(peerTimeoutSeconds);
    this.#lobby = new Lobby({
      beatMilliseconds: beat,
      patienceSeconds: 1.5 * peerTimeoutSeconds,
      report: (sentence) => this.#report(sentence),
      changed: () => this.#showWaiting(),
    });
    this.#stop = ticking(beat, () => this.#showWhereabouts());
  }

  /**
   * Opens this node's door, if it knows yet where.
   *
   * @throws UserError if ranks, sizes or addresses cannot be, or the port is in use
   */
  static async open(options: NodeOptions): Promise<Node> {
    checkOptions(options);
    const node = new Node(options);
    try {
      await node.#door.openAtRendezvous();
    } catch (error) {
      await node.close();
      throw error;
    }
    return node;
  }

  /**
   * Forms a world with the others; one that runs is ended.
   *
   * @throws UserError if the machines do not agree, a rank is there twice, or what answers is a stranger; MachineError if
   *   too few come, or this node is left out
   */
  async meet(offer: Offer): Promise<World> {
    checkOffer(offer);
    await this.#world?.end("this node meets the others anew");
    const { timeoutSeconds, peerTimeoutSeconds } = this.#options;
    this.#lobby.set({});
    let deadline = inSeconds(timeoutSeconds);
    const lost = new Set(this.#world?.gone);
    let elsewhere = this.#leader;
    this.#leader = undefined;
    for (;;) {
      if (this.#closed.signal.aborted) throw new MachineError("This node was closed while it met the others");
      const place = elsewhere ?? this.#hostOf(lost);
      if (!place) {
        const met = await this.#host(offer, lost, deadline);
        if (met instanceof World) return met;
        elsewhere = met;
        continue;
      }
      // Who has been in no world knows only the rendezvous, and waits for it.
      const first = !elsewhere && !this.#world;
      const reached = first ? deadline : Math.min(deadline, inSeconds(peerTimeoutSeconds));
      const came = await visit({
        node: this.#options,
        signal: this.#closed.signal,
        who: first ? "the rendezvous" : "the host",
        address: place,
        reached,
        // Hosts should say first who did not come in time.
        deadline: deadline + 1000,
        join: (near) => this.#join(offer, near),
        accepted: (running) => {
          this.#lobby.set({ elsewhere: { machine: "", ...place } });
          if (running) deadline = inSeconds(timeoutSeconds);
        },
        register: (linking) => this.#register(linking),
      });
      if (came.kind === "linked") return this.#begin(came.linking, offer);
      this.#lobby.set({});
      if (came.kind === "failed") throw came.why;
      const late = performance.now() >= deadline;
      if (came.kind === "elsewhere" && late) {
        throw new MachineError(`The machines sent this one from door to door for ${timeoutSeconds} s`);
      }
      if (came.kind === "lost") {
        if (late || (first && came.why instanceof UserError)) throw came.why;
        if (!first) this.#report(`There is no host any more: ${messageOf(came.why)}`);
        const { members = [] } = this.#world?.membership ?? {};
        const rank = members.findIndex((member) => samePlace(member.place, place));
        if (rank >= 0) lost.add(rank);
      }
      elsewhere = came.kind === "elsewhere" ? came.place : undefined;
      await pause(50);
    }
  }

  /** Shuts the door and leaves the world, if one runs, without ending it for the others. */
  async close(): Promise<void> {
    this.#closed.abort();
    this.#stop();
    this.#door.close();
    this.#lobby.close();
    this.#nextLinking.resolve();
    await this.#world?.leave();
  }

  #report(sentence: string): void {
    if (!this.#closed.signal.aborted) this.#options.report?.(sentence);
  }

  /** Whose door to meet at; undefined if at this node's. */
  #hostOf(lost: ReadonlySet<number>): Address | undefined {
    if (!this.#world) return this.#door.known ? undefined : this.#rendezvous;
    const { members, rank } = this.#world.membership;
    const lowest = members.findIndex((_, i) => !lost.has(i));
    return lowest < 0 || lowest === rank ? undefined : members[lowest].place;
  }

  async #host(offer: Offer, gone: ReadonlySet<number>, deadline: Deadline): Promise<World | Place> {
    const own = await this.#join(offer);
    const membership = this.#world?.membership;
    const meeting = this.#meeting = new Meeting({
      node: this.#options,
      signal: this.#closed.signal,
      own,
      lobby: this.#lobby,
      last: membership && { membership, gone },
      deadline,
      where: () => this.#whereabouts(),
      register: (linking) => this.#register(linking),
    });
    this.#lobby.set({ terms: membership && own });
    try {
      const met = await meeting.run();
      if ("port" in met) return met;
      return this.#begin(met, offer);
    } finally {
      this.#meeting = undefined;
    }
  }

  async #begin(linking: Linking, offer: Offer): Promise<World> {
    const world = this.#world = new World(linking.membership, linking.links, this.#options.peerTimeoutSeconds);
    const { size } = this.#options;
    if (world.rank > 0) this.#lobby.set({ elsewhere: world.membership.members[0].place });
    else this.#lobby.set({ terms: await this.#join(offer), room: size - world.size });
    this.#showWaiting();
    // Who comes now may be a member that knows already that this node is to host.
    world.lost.then(() => this.#world === world && !this.#closed.signal.aborted && this.#lobby.set({}));
    return world;
  }

  /** What this node says of itself; its door is opened at the interface that leads to the others, if it is not yet. */
  async #join(offer: Offer, near = this.#rendezvous.hostname): Promise<Join> {
    const { size, least = size, rank = null } = this.#options;
    const place = await this.#door.open(near);
    const membership = this.#world?.membership;
    const last = membership ? { world: membership.world, number: membership.number, rank: membership.rank } : null;
    const { description, facts, lanes } = offer;
    return { place, rank: this.#door.known ? 0 : rank, size, least, last, description, facts, lanes };
  }

  /** Does what somebody wants who came to the door. */
  async #greet(link: NamedLink, hello: Hello): Promise<void> {
    if (hello.kind === "join") return await this.#lobby.receive(link, hello.join);
    if (hello.kind === "link") return await this.#take(link, hello);
    this.#heed(hello.where, false);
    await sendMessage(link, this.#whereabouts());
    link.close();
  }

  /** Takes in a link of a world that is being formed, of which this node may hear a little later. */
  async #take(link: NamedLink, hello: LinkHello): Promise<void> {
    const deadline = inSeconds(helloSeconds);
    while (this.#linking?.membership.world !== hello.world) {
      const unknown = () => new MachineError(`${link.peer} wanted a link of a world that is not being formed here`);
      await before(deadline, this.#nextLinking.promise, unknown);
      if (this.#closed.signal.aborted) throw unknown();
    }
    await this.#linking.accept(link, hello);
  }

  #register(linking: Linking): void {
    this.#linking = linking;
    const next = this.#nextLinking;
    this.#nextLinking = Promise.withResolvers();
    next.resolve();
  }

  #whereabouts(): Whereabouts {
    const { world = "", number = 0, rank = 0, members = [] } = this.#world?.membership ?? {};
    const known = { world, number, size: members.length };
    if (this.#world?.running) return { ...known, running: true, rank: 0, place: members[0].place };
    return { ...known, running: false, rank, place: this.#meeting && this.#door.place || null };
  }

  /**
   * Learns where others know the run to be. Of two worlds that run, since the network had parted, one ends: the older one,
   * or the smaller one, or that which has nobody at the rendezvous.
   */
  #heed(theirs: Whereabouts, atRendezvous: boolean): void {
    this.#meeting?.moveTo(theirs);
    const own = this.#whereabouts();
    if (!own.running || !theirs.running || theirs.place === null || theirs.world === own.world) return;
    const ahead = theirs.number - own.number || theirs.size - own.size || (atRendezvous ? 1 : -1);
    if (ahead < 0) return;
    this.#leader = theirs.place;
    const there = placeName(theirs.place);
    this.#world?.end(`the network had parted it from the others, with whom the run goes on at ${there}`);
  }

  #showWaiting(): void {
    if (this.#world?.running && this.#world.rank === 0) this.#world.setWaiting(this.#lobby.waiting());
  }

  /** A host that is elsewhere knocks at the rendezvous. */
  async #showWhereabouts(): Promise<void> {
    const hosts = this.#world && (this.#meeting || (this.#world.running && this.#world.rank === 0));
    if (this.#door.known || !hosts || this.#knocking) return;
    this.#knocking = true;
    try {
      const answer = await knock(this.#rendezvous, this.#whereabouts(), this.#options, this.#closed.signal);
      if (typeof answer !== "string") this.#heed(answer, true);
    } finally {
      this.#knocking = false;
    }
  }
}
