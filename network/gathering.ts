/**
 * What the host of a rendezvous learns of those who come, whether they fit together, and which rank each gets.
 * @module
 */

import { MachineError, messageOf, UserError } from "../errors.ts";
import type { Credentials } from "./handshake.ts";
import type { Link } from "./link.ts";
import { list, nullable, object, type Schema, text, texts, truth, whole } from "./messages.ts";

/** Most processes of a group; ranks are below. */
export const sizeMost = 2048;

/** Who meets, where, and on what terms. */
export interface MeetOptions extends Credentials {
  /** Processes of the group. */
  readonly size: number;
  /** This one's rank; else the host assigns one. Rank 0 hosts. */
  readonly rank?: number;
  /** `host:port`, the same for all. */
  readonly rendezvous: string;
  /** Address of the interface to listen on; else the one that leads to the rendezvous. */
  readonly listen?: string;
  /** What all must agree in: at most 64 texts of 1024 characters. */
  readonly description: Readonly<Record<string, string>>;
  /** Time for all to come together. */
  readonly timeoutSeconds: number;
  /** Told in sentences of what was refused; the meeting goes on. */
  readonly report?: (sentence: string) => void;
}

/** A group that has met. */
export interface Meeting {
  readonly rank: number;
  readonly size: number;
  /** To every other rank. */
  readonly links: ReadonlyMap<number, Link>;
}

/** Time for one who has proven itself to say what it wants, in seconds. */
export const helloSeconds = 10;

/** What a process says of itself. */
export interface Join {
  /** The rank it must have, or null for any. */
  readonly rank: number | null;
  /** The size of the group it expects. */
  readonly size: number;
  /** The name of its machine, for messages. */
  readonly machine: string;
  /** Where the others reach it. */
  readonly hostname: string;
  readonly port: number;
  /** What all must agree in: version, model, data, settings. */
  readonly description: Readonly<Record<string, string>>;
}

/** Checks what a process says of itself. */
export const joinSchema: Schema<Join> = object<Join>({
  rank: nullable(whole(0, sizeMost - 1)),
  size: whole(1, sizeMost),
  machine: text(255),
  hostname: text(64),
  port: whole(1, 65535),
  description: texts(64, 1024),
});

/** Throws a TypeError if the description is larger than others would take. */
export function checkDescription(description: Readonly<Record<string, string>>): void {
  texts(64, 1024)(description);
}

/** Why a group does not come about. */
export interface Refusal {
  readonly sentence: string;
  /** True if somebody asked for what cannot be, false if a machine failed. */
  readonly mistake: boolean;
}

/** Most characters of a refusal's sentence. */
const sentenceMost = 4096;

/** The refusal that an error is for the others. */
export function refusalOf(error: unknown): Refusal {
  return { sentence: messageOf(error).slice(0, sentenceMost), mistake: error instanceof UserError };
}

const refusalSchema = nullable(object<Refusal>({ sentence: text(sentenceMost), mistake: truth }));

/** What the host says: a refusal, or the rank of whom it tells and where all ranks are. */
export interface Invitation {
  readonly refusal: Refusal | null;
  readonly rank: number;
  /** Machine, address and port by rank. */
  readonly places: readonly Place[];
}

/** Where a rank is. */
export type Place = Pick<Join, "machine" | "hostname" | "port">;

/** Checks what the host says. */
export const invitationSchema: Schema<Invitation> = object<Invitation>({
  refusal: refusalSchema,
  rank: whole(0, sizeMost - 1),
  places: list(object<Place>({ machine: text(255), hostname: text(64), port: whole(1, 65535) }), sizeMost),
});

/** Checks what a member answers once it is linked to all others, or has failed to: null, or why. */
export const outcomeSchema: Schema<{ refusal: Refusal | null }> = object({ refusal: refusalSchema });

/** A place in words. */
export function placeName({ machine, hostname, port }: Place): string {
  return `${machine}, ${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;
}

/** A rank and its place in words. */
export function nodeName(rank: number, place: Place): string {
  return `node ${rank} (${placeName(place)})`;
}

/** The error that a refusal is. */
export function refusalError({ sentence, mistake }: Refusal): Error {
  return mistake ? new UserError(sentence) : new MachineError(sentence, { restartable: true });
}

function said(value: string | undefined): string {
  if (value === undefined) return "none";
  return value.length > 100 ? `"${value.slice(0, 100)}…"` : `"${value}"`;
}

/** Several things one behind the other; of many the first. */
export function several(things: readonly string[], separator = "; "): string {
  const more = things.length > 8 ? `${separator}and ${things.length - 8} more` : "";
  return things.slice(0, 8).join(separator) + more;
}

/** What does not fit together among those who came, the host first; in sentences. */
export function disagreements([host, ...others]: readonly Join[]): string[] {
  const found: string[] = [];
  const known = new Map<number, Join>();
  for (const join of [host, ...others]) {
    if (join.rank === null) continue;
    const other = known.get(join.rank);
    if (other) found.push(`${placeName(other)} and ${placeName(join)} both have rank ${join.rank}`);
    else if (join.rank >= host.size) found.push(`${placeName(join)} has rank ${join.rank} of a group of ${host.size}`);
    known.set(join.rank, join);
  }
  const facts = ({ size, description }: Join): Map<string, string> =>
    new Map([["nodes", String(size)], ...Object.entries(description)]);
  const expected = facts(host);
  for (const join of others) {
    const given = facts(join);
    for (const name of new Set([...expected.keys(), ...given.keys()])) {
      const [own, theirs] = [expected.get(name), given.get(name)];
      if (own === theirs) continue;
      found.push(`${name} is ${said(theirs)} at ${placeName(join)} and ${said(own)} at ${placeName(host)}`);
    }
  }
  return found;
}

/** What does not fit together, in a sentence. */
export function disagreementSentence(found: readonly string[]): string {
  return `The machines do not agree: ${several(found)}`;
}

/** A rank for each: the given ones, and for the others the lowest that are free, in order. */
export function assignRanks(given: readonly (number | null)[]): number[] {
  const taken = new Set(given);
  let next = 0;
  return given.map((rank) => {
    if (rank !== null) return rank;
    while (taken.has(next)) next++;
    return next++;
  });
}
