/**
 * What processes say to each other to meet, whether they fit together, and which rank each gets.
 *
 * A connection to a node's door begins, behind the handshake, with a `Hello`: who comes to meet says `join` and is then
 * answered with what a `HostSays`; who was told of the others says `link`; who hosts elsewhere says `knock`.
 * @module
 */

import { MachineError, messageOf, UserError } from "../errors.ts";
import type { Credentials } from "./handshake.ts";
import { list, nullable, object, type Schema, text, texts, truth, variants, whole } from "./messages.ts";

/** Most processes of a group; ranks are below. */
export const sizeMost = 2048;
/** Most lanes between two nodes. */
const lanesMost = 1024;
/** Time for one who has proven itself to say what it wants, in seconds. */
export const helloSeconds = 10;

/** Who meets, where, and on what terms. */
export interface NodeOptions extends Credentials {
  /** Most processes of the run; the first meeting waits for as many. */
  readonly size: number;
  /** Fewest with which the run goes on (default: all). */
  readonly least?: number;
  /** This one's rank at the first meeting; else the host assigns one. Rank 0 hosts. */
  readonly rank?: number;
  /** `host:port`, the same for all. */
  readonly rendezvous: string;
  /** Address of the interface to listen on; else the one that leads to the rendezvous. */
  readonly listen?: string;
  /** Time for a meeting. */
  readonly timeoutSeconds: number;
  /** How long a member may be silent. */
  readonly peerTimeoutSeconds: number;
  /** Told in sentences of who was refused, lost or left out; the node goes on. */
  readonly report?: (sentence: string) => void;
}

/** What a node comes to a meeting with. */
export interface Offer {
  /** What all must agree in: at most 64 texts of 1024 characters. */
  readonly description: Readonly<Record<string, string>>;
  /** What all are told of this node: at most 16 texts of 256 characters. */
  readonly facts: Readonly<Record<string, string>>;
  /** Links between each two, besides the one for control; the same for all. */
  readonly lanes: number;
}

/** Where to listen or connect. */
export interface Address {
  /** A name or a numeric address. */
  readonly hostname: string;
  /** TCP port. */
  readonly port: number;
}

/** Where a node's door is. */
export interface Place extends Address {
  /** The name of its machine, for messages. */
  readonly machine: string;
}

/** What a process says of itself. */
export interface Join extends Offer {
  readonly place: Place;
  /** The rank it must have at the first meeting, or null for any. */
  readonly rank: number | null;
  readonly size: number;
  readonly least: number;
  /** The world it was in last. */
  readonly last: { readonly world: string; readonly number: number; readonly rank: number } | null;
}

/** Where a run goes on as far as a node knows. */
export interface Whereabouts {
  /** The newest world it was in, with number and size; empty and 0 for none. */
  readonly world: string;
  readonly number: number;
  readonly size: number;
  /** True if that world has not ended. */
  readonly running: boolean;
  /** The host's rank in that world. */
  readonly rank: number;
  /** The host's door, or null for unknown. */
  readonly place: Place | null;
}

/** How one speaks to a door first. */
export type Hello =
  | { readonly kind: "join"; readonly join: Join }
  | LinkHello
  | { readonly kind: "knock"; readonly where: Whereabouts };

/** Says which link of which world a connection is to be; answered with the same. Lane 0 is for control. */
export interface LinkHello {
  readonly kind: "link";
  readonly world: string;
  readonly from: number;
  readonly to: number;
  readonly lane: number;
}

/** A member as all are told of it. */
export interface MemberFacts {
  /** Where its door is. */
  readonly place: Place;
  /** What it told of itself. */
  readonly facts: Readonly<Record<string, string>>;
  /** True if it was in the host's last world, so that it has no other history. */
  readonly survivor: boolean;
}

/** Who is in a world. */
export interface Membership {
  /** Random, so that nothing of another world is taken for one's own. */
  readonly world: string;
  /** From 1 on, rising. */
  readonly number: number;
  /** Whom this is told. */
  readonly rank: number;
  /** By rank. */
  readonly members: readonly MemberFacts[];
  /** Links between each two, besides the one for control. */
  readonly lanes: number;
}

/** What a host says to who came: to wait, where else to go, that it must go, whom to link to, that the world begins. */
export type HostSays =
  | { readonly kind: "wait"; readonly running: boolean }
  | { readonly kind: "elsewhere"; readonly place: Place }
  | { readonly kind: "refused"; readonly sentence: string; readonly mistake: boolean }
  | { readonly kind: "invited"; readonly membership: Membership }
  | { readonly kind: "begin"; readonly world: string };

/** What a member says to its host when its links are made, or when time for it is over: to whom they are not. */
export interface Outcome {
  readonly world: string;
  readonly missing: readonly number[];
}

const rankSchema = whole(0, sizeMost - 1);
const numberSchema = whole(0, 2 ** 48);
const worldSchema = text(32);
const placeSchema = object<Place>({ machine: text(255), hostname: text(255), port: whole(1, 65535) });
const factsSchema = texts(16, 256);
/** Most characters of a sentence. */
const sentenceMost = 4096;

/** Checks what a process says of itself. */
export const joinSchema: Schema<Join> = object<Join>({
  place: placeSchema,
  rank: nullable(rankSchema),
  size: whole(1, sizeMost),
  least: whole(1, sizeMost),
  last: nullable(object({ world: worldSchema, number: numberSchema, rank: rankSchema })),
  description: texts(64, 1024),
  facts: factsSchema,
  lanes: whole(0, lanesMost),
});

/** Checks what a knock is answered with. */
export const whereaboutsSchema: Schema<Whereabouts> = object<Whereabouts>({
  world: worldSchema,
  number: numberSchema,
  size: whole(0, sizeMost),
  running: truth,
  rank: rankSchema,
  place: nullable(placeSchema),
});

/** Checks what is said to a door. */
export const helloSchema: Schema<Hello> = variants<Hello>({
  join: { join: joinSchema },
  link: { world: worldSchema, from: rankSchema, to: rankSchema, lane: whole(0, lanesMost) },
  knock: { where: whereaboutsSchema },
});

/** Checks what a host says. */
export const hostSchema: Schema<HostSays> = variants<HostSays>({
  wait: { running: truth },
  elsewhere: { place: placeSchema },
  refused: { sentence: text(sentenceMost), mistake: truth },
  invited: {
    membership: object<Membership>({
      world: worldSchema,
      number: numberSchema,
      rank: rankSchema,
      members: list(object<MemberFacts>({ place: placeSchema, facts: factsSchema, survivor: truth }), sizeMost),
      lanes: whole(0, lanesMost),
    }),
  },
  begin: { world: worldSchema },
});

/** Checks what a member says to its host. */
export const outcomeSchema: Schema<Outcome> = object<Outcome>({
  world: worldSchema,
  missing: list(rankSchema, sizeMost),
});

/** Throws a UserError if a node asks for a size or rank that cannot be. */
export function checkOptions(options: NodeOptions): void {
  const { size, least = size, rank } = options;
  if (!(Number.isInteger(size) && size >= 1 && size <= sizeMost)) {
    throw new UserError(`A group has 1 to ${sizeMost} machines, not ${size}`);
  }
  if (!(Number.isInteger(least) && least >= 1 && least <= size)) {
    throw new UserError(`A group of ${size} goes on with 1 to ${size} machines, not with at least ${least}`);
  }
  if (rank !== undefined && !(Number.isInteger(rank) && rank >= 0 && rank < size)) {
    throw new UserError(`Rank ${rank} is not one of a group of ${size}: ranks are 0 to ${size - 1}`);
  }
}

/** Throws a TypeError if an offer is larger than others would take. */
export function checkOffer({ description, facts, lanes }: Offer): void {
  texts(64, 1024)(description);
  factsSchema(facts);
  whole(0, lanesMost)(lanes);
}

/** The refusal that an error is for others. */
export function refusalOf(error: unknown): HostSays {
  return {
    kind: "refused",
    sentence: messageOf(error).slice(0, sentenceMost),
    mistake: error instanceof UserError,
  };
}

/** The error for what another says has happened. */
export function errorOf({ sentence, mistake }: { readonly sentence: string; readonly mistake: boolean }): Error {
  return mistake ? new UserError(sentence) : new MachineError(sentence, { restartable: true });
}

/**
 * True if a node that meets should do so where `theirs` says rather than at its own door: in a newer world, in a running one
 * that parted from its own, or by a lower rank.
 */
export function leads(theirs: Whereabouts, own: Whereabouts): boolean {
  if (theirs.place === null || theirs.number !== own.number) return theirs.place !== null && theirs.number > own.number;
  if (theirs.world !== own.world) return theirs.running || theirs.world < own.world;
  return !theirs.running && theirs.rank < own.rank;
}

/** True if two places are one. */
export function samePlace(a: Address, b: Address): boolean {
  return a.hostname === b.hostname && a.port === b.port;
}

/** A place in words. */
export function placeName({ machine, hostname, port }: Place): string {
  return `${machine}, ${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;
}

/** A rank and its place in words. */
export function nodeName(rank: number, place: Place): string {
  return `node ${rank} (${placeName(place)})`;
}

/** Several things one behind the other; of many the first. */
export function several(things: readonly string[], separator = "; "): string {
  const more = things.length > 8 ? `${separator}and ${things.length - 8} more` : "";
  return things.slice(0, 8).join(separator) + more;
}
