/**
 * The host of a meeting. It waits for those who are to come, invites them, and begins the world once all are linked to
 * each other; who dies meanwhile is left out, and who cannot be linked too, and then the rest are invited anew.
 *
 * The first meeting waits for all, later ones for the members of the last world that are not known to be gone. Once the
 * fewest with which a run goes on are there, the others have `peerTimeoutSeconds` and a margin more, or longer if they are
 * found to live but still have something to do before they come.
 * @module
 */

import { randomBytes } from "node:crypto";
import { MachineError, UserError } from "../errors.ts";
import { disagreements, disagreementSentence, inOrder } from "./agreement.ts";
import { before, type Deadline, forEach, inSeconds, ticking } from "./deadline.ts";
import {
  type HostSays,
  type Join,
  leads,
  type Membership,
  nodeName,
  type NodeOptions,
  type Place,
  placeName,
  refusalOf,
  samePlace,
  several,
  type Whereabouts,
} from "./gathering.ts";
import { knock } from "./knock.ts";
import { Linking } from "./linking.ts";
import type { Comer, Lobby } from "./lobby.ts";
import { linkSeconds } from "./meeting_member.ts";

/** What a host needs. */
export interface HostOptions {
  readonly node: NodeOptions;
  /** Ends it. */
  readonly signal: AbortSignal;
  readonly own: Join;
  readonly lobby: Lobby;
  /** The host's last world, and who of it is gone. */
  readonly last?: { readonly membership: Membership; readonly gone: ReadonlySet<number> };
  readonly deadline: Deadline;
  /** What it says where it knocks. */
  readonly where: () => Whereabouts;
  /** Where links that come in belong. */
  readonly register: (linking: Linking) => void;
}

/** One meeting. */
export class Meeting {
  /** Members of the last world that may still come, by rank. */
  readonly #expected = new Map<number, Place>();
  #elsewhere: Place | undefined;
  #asked = false;
  #over = false;
  #enoughSince: number | undefined;
  /** When a member that is to come was last found to live. */
  #lastSign = 0;

  constructor(readonly options: HostOptions) {
    const { last } = options;
    for (const [rank, { place }] of last?.membership.members.entries() ?? []) {
      if (rank !== last?.membership.rank) this.#expected.set(rank, place);
    }
  }

  /** Sends all to where the run goes on, if it does so there rather than here. */
  moveTo(where: Whereabouts): void {
    const { own, lobby } = this.options;
    if (where.place === null || samePlace(where.place, own.place) || !leads(where, this.options.where())) return;
    this.#elsewhere = where.place;
    lobby.changed();
  }

  /**
   * Links to all members, or the place where the run goes on.
   *
   * @throws UserError if the machines do not agree; MachineError if too few come in time: all who came are told
   */
  async run(): Promise<Linking | Place> {
    const { lobby, last, signal } = this.options;
    const members = [...this.#expected];
    for (const rank of last?.gone ?? []) this.#expected.delete(rank);
    let asking = false;
    const ask = async () => {
      if (asking) return;
      asking = true;
      await this.#ask(members);
      asking = false;
    };
    ask();
    const stop = ticking(1000, ask);
    const wake = () => lobby.changed();
    signal.addEventListener("abort", wake, { once: true });
    try {
      for (;;) {
        const members = await this.#gather();
        if (!members) return this.#elsewhere!;
        const linking = await this.#link(members);
        if (linking) return linking;
      }
    } catch (error) {
      const told = Promise.all(lobby.comers.map((comer) => lobby.dismiss(comer, refusalOf(error))));
      await before(inSeconds(1), told, () => new MachineError("unheard")).catch(() => {});
      throw error;
    } finally {
      this.#over = true;
      stop();
      signal.removeEventListener("abort", wake);
    }
  }

  /** Asks those who have not come where they are: they may be ahead, or gone. */
  async #ask(members: readonly (readonly [number, Place])[]): Promise<void> {
    const { node, where, lobby, last, signal } = this.options;
    await forEach(members, async ([rank, place]) => {
      if (this.#over || this.#came().has(rank)) return;
      const answer = await knock(place, where(), node, signal);
      if (answer === "gone") this.#expected.delete(rank);
      if (typeof answer === "string") return;
      if (this.#expected.has(rank) && answer.number === last!.membership.number) this.#lastSign = performance.now();
      this.moveTo(answer);
    });
    this.#asked = true;
    lobby.changed();
  }

  /** The members of the last world that have come, by rank. */
  #came(): Set<number> {
    const { lobby, own } = this.options;
    const comrades = lobby.comers.filter(({ join }) => own.last !== null && join.last?.world === own.last.world);
    return new Set(comrades.map(({ join }) => join.last!.rank));
  }

  /** Waits for members; undefined if the run goes on elsewhere. */
  async #gather(): Promise<readonly Comer[] | undefined> {
    const { node, own, lobby, last, deadline, signal } = this.options;
    const { peerTimeoutSeconds } = node;
    for (;;) {
      if (this.#elsewhere) return undefined;
      if (signal.aborted) throw new MachineError("This node was closed while it met the others");
      const { comers } = lobby;
      const count = 1 + comers.length;
      const came = this.#came();
      const enough = count >= own.least;
      this.#enoughSince = enough ? this.#enoughSince ?? performance.now() : undefined;
      const all = last ? this.#asked && [...this.#expected.keys()].every((rank) => came.has(rank)) : count >= own.size;
      // Others may notice the end of a world later by that time and a beat.
      const patience = Math.max(this.#enoughSince ?? Infinity, this.#lastSign) + 1200 * peerTimeoutSeconds;
      const late = performance.now() >= deadline;
      if (enough && (all || late || performance.now() >= patience)) return this.#chosen();
      if (late) throw this.#missing();
      await lobby.change(Math.min(deadline, patience));
    }
  }

  /** Who takes part: members of the last world before others, and no more than there is room for. */
  #chosen(): readonly Comer[] {
    const { own, lobby, last } = this.options;
    const { comers } = lobby;
    const isComrade = ({ join }: Comer) => own.last !== null && join.last?.world === own.last.world;
    const [comrades, others] = [comers.filter(isComrade), comers.filter((comer) => !isComrade(comer))];
    const members = [...comrades, ...others].slice(0, own.size - 1);
    const found = last ? [] : disagreements([own, ...members.map(({ join }) => join)]);
    if (found.length > 0) throw new UserError(disagreementSentence(found));
    return members;
  }

  /** Invites members; undefined if they could not all be linked. */
  async #link(members: readonly Comer[]): Promise<Linking | undefined> {
    const { node, own, lobby, register } = this.options;
    const { report = () => {} } = node;
    const order = inOrder(own, members.map(({ join }) => join));
    const byJoin = new Map(members.map((comer) => [comer.join, comer]));
    const comers = order.slice(1).map((join) => byJoin.get(join)!);
    const membership: Membership = {
      world: randomBytes(16).toString("hex"),
      number: 1 + Math.max(...order.map(({ last }) => last?.number ?? 0)),
      rank: 0,
      members: order.map(({ place, facts, last }) => ({
        place,
        facts,
        survivor: own.last !== null && last?.world === own.last.world,
      })),
      lanes: own.lanes,
    };
    const { world } = membership;
    const linking = new Linking(membership, node, inSeconds(linkSeconds(node)), report);
    register(linking);
    for (const [i, { outbox }] of comers.entries()) {
      outbox.send({ kind: "invited", membership: { ...membership, rank: i + 1 } } satisfies HostSays);
    }
    linking.complete.then(() => lobby.changed());
    // Members say what they lack when their time is over, and have as much again to say it.
    const until = inSeconds(2 * linkSeconds(node));
    const isDone = ({ outcome }: Comer) => outcome?.world === world;
    let missing: readonly number[][];
    for (;;) {
      if (this.#elsewhere || !comers.every((comer) => lobby.has(comer))) {
        await linking.close();
        return undefined;
      }
      missing = [linking.missing(), ...comers.map((comer) => isDone(comer) ? [...comer.outcome!.missing] : [0])];
      if (missing.every((ranks) => ranks.length === 0)) {
        for (const comer of comers) lobby.dismiss(comer, { kind: "begin", world } satisfies HostSays);
        return linking;
      }
      const now = performance.now();
      if (now >= until || (now >= linking.deadline && comers.every(isDone))) break;
      await lobby.change(now < linking.deadline ? linking.deadline : until);
    }
    await linking.close();
    for (const rank of unlinkable(missing)) {
      const comer = comers[rank - 1];
      const name = nodeName(rank, comer.join.place);
      if (!isDone(comer)) {
        // It was stopped, or is out of reach: once it goes on it may come again.
        report(`${name} did not answer for ${2 * linkSeconds(node)} s and is left out`);
        lobby.drop(comer);
        continue;
      }
      const others = missing.flatMap((ranks, i) => i === rank ? ranks : ranks.includes(rank) ? [i] : []);
      const names = [...new Set(others)].map((i) => nodeName(i, order[i].place));
      const sentence = `${name} could not be linked to ${several(names, ", ")} within ${linkSeconds(node)} s and is ` +
        "left out; does a firewall let these machines through to each other?";
      lobby.refuse(comer, new MachineError(sentence, { restartable: true }));
    }
    return undefined;
  }

  /** Who did not come. What does not fit among the others is said too: it may be the reason. */
  #missing(): Error {
    const { node, own, lobby, last } = this.options;
    const { size, rendezvous, timeoutSeconds } = node;
    const joins = [own, ...lobby.comers.map(({ join }) => join)];
    const there = `there are ${several(joins.map(({ place }) => placeName(place)))}`;
    const atLeast = own.least < size ? `; at least ${own.least} are needed (--min-nodes)` : "";
    if (last) {
      const sentence = `${joins.length} of ${size} machines met again within ${timeoutSeconds} s${atLeast}; ${there}`;
      return new MachineError(sentence, { restartable: true });
    }
    const count = size - joins.length;
    const ranks = new Set(joins.map(({ rank }) => rank));
    const free = Array.from({ length: size }, (_, i) => i).filter((rank) => !ranks.has(rank)).map(String);
    const names = several(free, ", ");
    const which = free.length === count ? `rank ${names}` : `${count} of the ranks ${names}`;
    const sentence = `${count} of ${size} machines did not come to ${rendezvous} within ${timeoutSeconds} s: ` +
      `${which}${atLeast}; ${there}`;
    const found = [...disagreements(joins)];
    return found.length > 0
      ? new UserError(`${sentence}. ${disagreementSentence(found)}`)
      : new MachineError(sentence, { restartable: true });
  }
}

/** Whom to leave out so that all others are linked, given to whom each rank is not; never rank 0. */
export function unlinkable(missing: readonly (readonly number[])[]): number[] {
  const pairs = missing.flatMap((ranks, i) => ranks.map((other) => [i, other] as const));
  const left: number[] = [];
  for (;;) {
    const counts = missing.map(() => 0);
    for (const [a, b] of pairs) {
      if (left.includes(a) || left.includes(b)) continue;
      counts[a]++;
      counts[b]++;
    }
    counts[0] = 0;
    const most = Math.max(...counts);
    if (most === 0) return left;
    left.push(counts.lastIndexOf(most));
  }
}
