/**
 * The links of a world that is being formed: of each two members the higher rank opens them all at the lower one's door.
 * @module
 */

import { MachineError, messageOf } from "../errors.ts";
import { before, type Deadline, forEach } from "./deadline.ts";
import { type LinkHello, type Membership, nodeName } from "./gathering.ts";
import type { Credentials } from "./handshake.ts";
import { connect } from "./listener.ts";
import { object, receiveMessage, sendMessage, truth } from "./messages.ts";
import type { NamedLink } from "./plain_link.ts";

const answerSchema = object<{ taken: boolean }>({ taken: truth });

/** Makes this node's links to the other members, or as many as it can. */
export class Linking {
  /** By lane, then by rank; lane 0 is for control. */
  readonly links: readonly Map<number, NamedLink>[];
  readonly #complete = Promise.withResolvers<void>();
  readonly #ended = new AbortController();
  #opening: Promise<void> | undefined;

  constructor(
    readonly membership: Membership,
    readonly credentials: Credentials,
    readonly deadline: Deadline,
    /** Told of links that came to nothing, in sentences. */
    readonly report: (sentence: string) => void,
  ) {
    this.links = Array.from({ length: 1 + membership.lanes }, () => new Map());
    this.#ended.signal.addEventListener("abort", () => this.#complete.resolve());
    this.#check();
  }

  /** Resolves when all are there, or it was ended. */
  get complete(): Promise<void> {
    return this.#complete.promise;
  }

  /** The ranks to which links are missing. */
  missing(): number[] {
    const { members, rank } = this.membership;
    return members.map((_, i) => i).filter((i) => i !== rank && this.links.some((lane) => !lane.has(i)));
  }

  /** Opens the links to lower ranks. */
  open(): void {
    const { rank, lanes } = this.membership;
    const wanted = Array.from({ length: rank * (1 + lanes) }, (_, i) => ({ to: i % rank, lane: Math.floor(i / rank) }));
    this.#opening = forEach(wanted, ({ to, lane }) => this.#open(to, lane));
  }

  /** Takes in a link that a higher rank has opened. */
  async accept(link: NamedLink, hello: LinkHello): Promise<void> {
    const { rank, members, lanes } = this.membership;
    const { from, to, lane } = hello;
    if (to !== rank || from <= rank || from >= members.length || lane > lanes || this.links[lane].has(from)) {
      throw new MachineError(
        `${link.peer} wanted link ${lane} from node ${from} to node ${to}, this being node ${rank}`,
      );
    }
    await sendMessage(link, { taken: true });
    this.#add(from, lane, link);
  }

  /** Ends all links, and resolves when none are being opened any more. */
  async close(): Promise<void> {
    this.#ended.abort();
    for (const lane of this.links) for (const link of lane.values()) link.close();
    await this.#opening;
  }

  async #open(to: number, lane: number): Promise<void> {
    const { world, rank: from, members } = this.membership;
    const { deadline, credentials } = this;
    const { signal } = this.#ended;
    const { machine, hostname, port } = members[to].place;
    let link: NamedLink | undefined;
    try {
      const options = { secret: credentials.secret, group: credentials.group, tls: credentials.tls, deadline, signal };
      ({ link } = await connect(`node ${to} on ${machine}`, { hostname, port }, options));
      signal.addEventListener("abort", () => link?.close(), { once: true });
      if (signal.aborted) link.close();
      const hello: LinkHello = { kind: "link", world, from, to, lane };
      await sendMessage(link, hello);
      const late = () => new MachineError(`${link?.peer} does not answer`);
      await before(deadline, receiveMessage(link, answerSchema), late);
      this.#add(to, lane, link);
    } catch (error) {
      link?.close();
      if (!signal.aborted) this.report(messageOf(error));
    }
  }

  #add(rank: number, lane: number, link: NamedLink): void {
    if (this.#ended.signal.aborted || this.links[lane].has(rank)) {
      throw new MachineError(`${link.peer} came twice, or when the world was given up`);
    }
    link.peer = nodeName(rank, this.membership.members[rank].place);
    this.links[lane].set(rank, link);
    this.#check();
  }

  #check(): void {
    const { members, lanes } = this.membership;
    const count = this.links.reduce((sum, lane) => sum + lane.size, 0);
    if (count === (members.length - 1) * (1 + lanes)) this.#complete.resolve();
  }
}
