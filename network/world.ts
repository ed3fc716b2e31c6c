/**
 * A fixed membership of nodes that watch each other. Over the control link between each two goes a beat every fifth of
 * the time for which silence is borne, and otherwise a `Notice`. A world ends once, for all: with the first member that
 * is lost, or that ends it. Who learns why tells all others before it closes its links, so that they hear the cause
 * itself and not that their neighbour has gone.
 * @module
 */

import { MachineError, messageOf, UserError } from "../errors.ts";
import { before, inSeconds, silentTicks, ticking, tickMilliseconds } from "./deadline.ts";
import { errorOf, type Membership, nodeName, sizeMost } from "./gathering.ts";
import type { Link } from "./link.ts";
import { list, receiveMessage, type Schema, text, truth, variants, whole } from "./messages.ts";
import { Outbox } from "./outbox.ts";
import type { NamedLink } from "./plain_link.ts";

/** What members tell each other. */
type Notice =
  /** Nothing but that the sender lives. */
  | { readonly kind: "alive" }
  /** From rank 0: who waits to be let in. */
  | { readonly kind: "waiting"; readonly names: readonly string[] }
  /** A member was lost. */
  | { readonly kind: "lost"; readonly rank: number; readonly why: string }
  /** A member has ended the world. */
  | { readonly kind: "ended"; readonly rank: number; readonly sentence: string; readonly mistake: boolean }
  /** The sender has nothing more to do in this world; the others may still read what it sent. */
  | { readonly kind: "left" };

const sentenceMost = 4096;
const noticeSchema: Schema<Notice> = variants<Notice>({
  alive: {},
  waiting: { names: list(text(600), sizeMost) },
  lost: { rank: whole(0, sizeMost - 1), why: text(sentenceMost) },
  ended: { rank: whole(0, sizeMost - 1), sentence: text(sentenceMost), mistake: truth },
  left: {},
});

/** When a link has failed word of the reason comes within so many seconds. */
const wordSeconds = 2;
/** Time for the others to take the last notice, in seconds. */
const farewellSeconds = 1;

/** The members of a run from one meeting to the next. */
export class World {
  /** From 1 on, rising. */
  readonly number: number;
  /** This node's. */
  readonly rank: number;
  /** Number of nodes. */
  readonly size: number;
  /** The nodes in words, by rank. */
  readonly machines: readonly string[];
  /** What each node told of itself, by rank. */
  readonly facts: readonly Readonly<Record<string, string>>[];
  /** Ranks that were in rank 0's last world; none at the first meeting. The others may have another history, or none. */
  readonly survivors: readonly number[];
  /** By lane, the links to all other ranks. */
  readonly lanes: readonly ReadonlyMap<number, Link>[];
  /** Resolves, never rejects, when the world has ended, with the reason; its links are closed then. */
  readonly lost: Promise<Error>;
  /** Ranks that are not there any more, as far as this node knows. */
  readonly gone: Set<number> = new Set();
  readonly #control: ReadonlyMap<number, Outbox>;
  readonly #links: readonly ReadonlyMap<number, NamedLink>[];
  readonly #lost = Promise.withResolvers<Error>();
  /** For how many ticks nothing came, by rank. */
  readonly #silent: number[];
  #waiting: readonly string[] = [];
  #ending: Promise<void> | undefined;
  readonly #stop: () => void;

  /** Begins it over the links of those who have met: by lane, that for control first. */
  constructor(
    readonly membership: Membership,
    links: readonly ReadonlyMap<number, NamedLink>[],
    readonly peerTimeoutSeconds: number,
  ) {
    const { number, rank, members } = membership;
    [this.number, this.rank, this.size] = [number, rank, members.length];
    this.machines = members.map(({ place }, i) => nodeName(i, place));
    this.facts = members.map(({ facts }) => facts);
    this.survivors = members.map((_, i) => i).filter((i) => members[i].survivor);
    this.#links = links.map((lane) => new Map([...lane].sort(([a], [b]) => a - b)));
    this.lanes = this.#links.slice(1);
    this.lost = this.#lost.promise;
    this.#control = new Map([...this.#links[0]].map(([rank, link]) => [rank, new Outbox(link)]));
    this.#silent = members.map(() => 0);
    let beats = false;
    this.#stop = ticking(tickMilliseconds(peerTimeoutSeconds), () => this.#tick(beats = !beats));
    for (const [rank, link] of this.#links[0]) this.#hear(rank, link);
  }

  /** True until the world has ended. */
  get running(): boolean {
    return this.#ending === undefined;
  }

  /** Those who want to be let in and for whom there is room; all members know of them. */
  waiting(): readonly string[] {
    return this.#waiting;
  }

  /** Tells all members who waits; for rank 0. */
  setWaiting(names: readonly string[]): void {
    if (!this.running || names.join("\n") === this.#waiting.join("\n")) return;
    this.#waiting = names;
    this.#tell({ kind: "waiting", names });
  }

  /**
   * Ends the world for all members; resolves when this node's links are closed.
   *
   * @param mistake true if somebody asked for what cannot be, so that nobody should go on
   */
  end(reason: string, mistake = false): Promise<void> {
    const sentence = reason.slice(0, sentenceMost);
    return this.#end(errorOf({ sentence, mistake }), { kind: "ended", rank: this.rank, sentence, mistake });
  }

  /** Takes this node out of the world without ending it: what it has sent can still be read by the others. */
  leave(): Promise<void> {
    return this.#end(new MachineError("This node has left the others"), { kind: "left" });
  }

  /** What a fault of a link came from: word of who was lost comes soon, if anybody was. */
  async cause(fault: unknown): Promise<unknown> {
    const untold = () => new MachineError("no word");
    return await before(inSeconds(wordSeconds), this.lost, untold).catch(() => fault);
  }

  #end(reason: Error, notice: Notice): Promise<void> {
    this.#ending ??= (async () => {
      this.#stop();
      // Who has stopped takes nothing more.
      const told = before(inSeconds(farewellSeconds), this.#tell(notice), () => new MachineError("unheard"));
      await told.catch(() => {});
      for (const lane of this.#links) for (const link of lane.values()) link.close();
      this.#lost.resolve(reason);
    })();
    return this.#ending;
  }

  async #tell(notice: Notice): Promise<void> {
    await Promise.all([...this.#control.values()].map((outbox) => outbox.send(notice)));
  }

  #tick(beats: boolean): void {
    const most = silentTicks(this.peerTimeoutSeconds);
    if (beats) { for (const outbox of this.#control.values()) outbox.beat({ kind: "alive" } satisfies Notice); }
    for (const rank of this.#control.keys()) {
      if (!this.gone.has(rank) && ++this.#silent[rank] >= most) {
        return this.#lose(rank, `silent for ${this.peerTimeoutSeconds} s`);
      }
    }
  }

  async #hear(rank: number, link: NamedLink): Promise<void> {
    const name = this.machines[rank];
    try {
      while (this.running && !this.gone.has(rank)) {
        const notice = await receiveMessage(link, noticeSchema);
        this.#silent[rank] = 0;
        if (notice.kind === "waiting" && rank === 0) this.#waiting = notice.names;
        if (notice.kind === "left") this.gone.add(rank);
        if (notice.kind === "lost") this.#lose(notice.rank, notice.why);
        if (notice.kind === "ended") {
          const reason = `${this.machines[notice.rank] ?? name} ended the world: ${notice.sentence}`;
          this.#end(notice.mistake ? new UserError(reason) : errorOf({ sentence: reason, mistake: false }), notice);
        }
      }
    } catch (error) {
      this.#lose(rank, messageOf(error).replaceAll(name, "it"));
    }
  }

  /** Ends the world because a member was lost, maybe this one as the others have it. */
  #lose(rank: number, why: string): void {
    if (!this.running || rank >= this.size) return;
    this.gone.add(rank);
    const sentence = rank === this.rank
      ? `The other nodes went on without this one (${this.machines[rank]}): ${why}`
      : `Lost ${this.machines[rank]}: ${why}`;
    this.#end(new MachineError(sentence, { restartable: true }), { kind: "lost", rank, why });
  }
}
