/**
 * The host of a rendezvous.
 * @module
 */

import { MachineError, messageOf, UserError } from "../errors.ts";
import { before, type Deadline, inSeconds } from "./deadline.ts";
import {
  assignRanks,
  disagreements,
  disagreementSentence,
  helloSeconds,
  type Invitation,
  type Join,
  joinSchema,
  type Meeting,
  type MeetOptions,
  nodeName,
  outcomeSchema,
  type Place,
  placeName,
  type Refusal,
  refusalError,
  refusalOf,
  several,
} from "./gathering.ts";
import type { LinkListener } from "./listener.ts";
import { receiveMessage, sendMessage } from "./messages.ts";
import type { NamedLink } from "./plain_link.ts";

/** A process that came to the host. */
interface Member {
  readonly link: NamedLink;
  readonly join: Join;
  /** What became of its links to the others. */
  readonly outcome: Promise<{ refusal: Refusal | null }>;
}

/** Gathers the others. */
export class Host {
  readonly #members = new Set<Member>();
  readonly #complete = Promise.withResolvers<void>();
  #open = true;

  constructor(
    readonly options: MeetOptions,
    /** The rendezvous; the others have their link to here, so it is for messages only. */
    readonly address: { readonly hostname: string; readonly port: number },
    readonly deadline: Deadline,
  ) {}

  /** Takes in one who came. */
  async receive(link: NamedLink): Promise<void> {
    const { size, report } = this.options;
    try {
      const late = () => new MachineError(`${link.peer} said nothing for ${helloSeconds} s`);
      const join = await before(inSeconds(helloSeconds), receiveMessage(link, joinSchema), late);
      link.peer = placeName(join);
      if (!this.#open) {
        const sentence =
          `The group of ${size} that meets at ${this.options.rendezvous} is complete without this process`;
        await sendMessage(link, invitation({ sentence, mistake: true }));
        throw new UserError(`${link.peer} is one more than the group's ${size}`);
      }
      const member = { link, join, outcome: receiveMessage(link, outcomeSchema) };
      this.#members.add(member);
      // Who leaves before all are there, with a word or without, may come again.
      const left = () => {
        if (this.#open && this.#members.delete(member)) link.close();
      };
      member.outcome.then(left, left);
      if (this.#members.size === size - 1) {
        this.#open = false;
        this.#complete.resolve();
      }
    } catch (error) {
      link.close();
      report?.(`Refused a connection: ${messageOf(error)}`);
    }
  }

  /** Waits for all, tells them of each other, and waits until all are linked. */
  async run(listener: LinkListener): Promise<Meeting> {
    const { size, description } = this.options;
    const own: Join = { rank: 0, size, machine: Deno.hostname(), ...this.address, description };
    const all = () => [own, ...[...this.#members].map(({ join }) => join)];
    try {
      await before(this.deadline, this.#complete.promise, () => missing(all(), this.options));
      const found = disagreements(all());
      if (found.length > 0) throw new UserError(disagreementSentence(found));
      const members = [...this.#members];
      const ranks = assignRanks(all().map((join) => join.rank));
      const places: Place[] = [];
      for (const [i, { machine, hostname, port }] of all().entries()) places[ranks[i]] = { machine, hostname, port };
      const links = new Map(members.map(({ link }, i) => [ranks[i + 1], link]));
      for (const [rank, link] of links) link.peer = nodeName(rank, places[rank]);
      await this.#tell(members, (i) => ({ refusal: null, rank: ranks[i + 1], places }));
      await Promise.all(members.map(async ({ link, outcome }) => {
        const late = () => new MachineError(`Waited in vain for ${link.peer} to be linked to the others`);
        const { refusal } = await before(this.deadline, outcome, late);
        if (refusal) throw refusalError(refusal);
      }));
      await this.#tell(members, (i) => ({ refusal: null, rank: ranks[i + 1], places }));
      return { rank: 0, size, links: new Map([...links].sort(([a], [b]) => a - b)) };
    } catch (error) {
      this.#open = false;
      const told = this.#tell([...this.#members], () => invitation(refusalOf(error))).catch(() => {});
      await before(inSeconds(1), told, () => new MachineError("unheard")).catch(() => {});
      for (const { link } of this.#members) link.close();
      throw error;
    } finally {
      listener.close();
    }
  }

  async #tell(members: readonly Member[], what: (i: number) => Invitation): Promise<void> {
    await Promise.all(members.map(({ link }, i) => sendMessage(link, what(i))));
  }
}

function invitation(refusal: Refusal): Invitation {
  return { refusal, rank: 0, places: [] };
}

/** Who did not come. What does not fit among the others is said too: it may be the reason. */
function missing(joins: readonly Join[], { size, rendezvous, timeoutSeconds }: MeetOptions): Error {
  const count = size - joins.length;
  const ranks = new Set(joins.map(({ rank }) => rank));
  const free = Array.from({ length: size }, (_, i) => i).filter((rank) => !ranks.has(rank)).map(String);
  const which = free.length === count ? `rank ${several(free, ", ")}` : `${count} of the ranks ${several(free, ", ")}`;
  const found = disagreements(joins);
  const sentence = `${count} of ${size} machines did not come to ${rendezvous} within ${timeoutSeconds} s: ${which}; ` +
    `there are ${several(joins.map(placeName))}`;
  return found.length > 0
    ? new UserError(`${sentence}. ${disagreementSentence(found)}`)
    : new MachineError(sentence, { restartable: true });
}
