/**
 * Those who came to a node's door to meet. They are told every beat to wait, or where else to go. Who hosts the next
 * meeting finds them here.
 * @module
 */

import { messageOf, UserError } from "../errors.ts";
import { differences, disagreementSentence } from "./agreement.ts";
import { type Deadline, inSeconds, ticking } from "./deadline.ts";
import {
  type HostSays,
  type Join,
  type Outcome,
  outcomeSchema,
  type Place,
  placeName,
  refusalOf,
  sizeMost,
} from "./gathering.ts";
import { ownBytes, receiveMessage } from "./messages.ts";
import { Outbox } from "./outbox.ts";
import type { NamedLink } from "./plain_link.ts";

/** Time for who must go to do so, in seconds. */
const leavingSeconds = 5;

/** Who came. */
export interface Comer {
  readonly join: Join;
  readonly outbox: Outbox;
  /** By when there must be room. */
  readonly patience: Deadline;
  /** What it said last of its links. */
  outcome?: Outcome;
}

/** What a lobby depends on. */
export interface LobbyOptions {
  readonly beatMilliseconds: number;
  /** How long who is one too many may hope that a member is lost, in seconds. */
  readonly patienceSeconds: number;
  readonly report: (sentence: string) => void;
  /** Called when somebody came or left. */
  readonly changed: () => void;
}

/** The lobby of a node. */
export class Lobby {
  /** What who comes must agree with at once; undefined while a first meeting gathers all of them to compare. */
  #terms: Join | undefined;
  #elsewhere: Place | undefined;
  #room: number | undefined;
  readonly #comers = new Set<Comer>();
  /** Links to those who have been told to leave, and by when they must have. */
  readonly #leaving = new Map<NamedLink, Deadline>();
  #change = Promise.withResolvers<void>();
  readonly #stop: () => void;

  constructor(readonly options: LobbyOptions) {
    this.#stop = ticking(options.beatMilliseconds, () => this.#beat());
  }

  /** Who is there, in the order in which they came. */
  get comers(): readonly Comer[] {
    return [...this.#comers];
  }

  /** True if somebody is still there. */
  has(comer: Comer): boolean {
    return this.#comers.has(comer);
  }

  /** The names of those who wait for the running world to let them in. */
  waiting(): string[] {
    return this.comers.slice(0, this.#room ?? 0).map(({ join }) => placeName(join.place));
  }

  /**
   * Sets what becomes of comers: they are sent elsewhere, or wait; for a running world if it has `room` for so many, or
   * for a meeting.
   */
  set({ elsewhere, terms, room }: { elsewhere?: Place; terms?: Join; room?: number }): void {
    this.#elsewhere = elsewhere;
    this.#terms = terms;
    this.#room = room;
    for (const comer of this.#comers) this.#check(comer);
    this.#beat();
  }

  /** Takes in who came. */
  async receive(link: NamedLink, join: Join): Promise<void> {
    link.peer = placeName(join.place);
    const patience = inSeconds(this.options.patienceSeconds);
    const comer: Comer = { join, outbox: new Outbox(link), patience };
    if (this.#comers.size >= sizeMost) {
      return this.refuse(comer, new UserError(`${sizeMost} processes are waiting already`));
    }
    this.#comers.add(comer);
    this.#check(comer);
    this.#tell(comer);
    this.changed();
    try {
      for (;;) {
        comer.outcome = await receiveMessage(link, outcomeSchema, ownBytes);
        this.changed();
      }
    } catch {
      // Who leaves may come again.
      link.close();
      this.#leaving.delete(link);
      if (this.#comers.delete(comer)) this.changed();
    }
  }

  /** Tells who came that it cannot take part. */
  refuse(comer: Comer, error: Error): Promise<void> {
    this.options.report(`Refused ${comer.outbox.link.peer}: ${messageOf(error)}`);
    return this.dismiss(comer, refusalOf(error));
  }

  /** Tells who came the last that it needs to know; it leaves then. */
  dismiss(comer: Comer, word: HostSays): Promise<void> {
    if (this.#comers.delete(comer)) this.changed();
    this.#leaving.set(comer.outbox.link, inSeconds(leavingSeconds));
    return comer.outbox.send(word);
  }

  /** Ends the link to who came, who may come again. */
  drop(comer: Comer): void {
    // Its reader notices.
    comer.outbox.link.close();
    if (this.#comers.delete(comer)) this.changed();
  }

  /** Resolves at the next change, or at the deadline. */
  async change(deadline: Deadline): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const due = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, Math.max(0, Math.min(deadline - performance.now(), 2 ** 31 - 1)));
    });
    await Promise.race([this.#change.promise, due]);
    clearTimeout(timer);
  }

  /** Wakes who waits for a change. */
  changed(): void {
    const change = this.#change;
    this.#change = Promise.withResolvers();
    change.resolve();
    this.options.changed();
  }

  /** Lets everybody go. */
  close(): void {
    this.#stop();
    for (const comer of this.#comers) comer.outbox.link.close();
    for (const link of this.#leaving.keys()) link.close();
    this.#comers.clear();
    this.#leaving.clear();
  }

  #check(comer: Comer): void {
    const found = this.#terms && !this.#elsewhere ? differences(this.#terms, [comer.join]) : [];
    if (found.length > 0) this.refuse(comer, new UserError(disagreementSentence(found)));
  }

  #tell(comer: Comer): void {
    if (!this.#comers.has(comer)) return;
    if (this.#elsewhere) this.dismiss(comer, { kind: "elsewhere", place: this.#elsewhere });
    else comer.outbox.beat({ kind: "wait", running: this.#room !== undefined } satisfies HostSays);
  }

  #beat(): void {
    for (const [link, deadline] of this.#leaving) {
      if (performance.now() > deadline) link.close();
    }
    for (const [i, comer] of this.comers.entries()) {
      if (this.#room !== undefined && i >= this.#room && performance.now() > comer.patience) {
        this.refuse(comer, new UserError(`The group of ${comer.join.size} is complete without this process`));
      } else this.#tell(comer);
    }
  }
}
