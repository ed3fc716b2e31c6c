/**
 * Whether those who come to a meeting fit together, and which rank each gets.
 * @module
 */

import { type Join, placeName, several } from "./gathering.ts";

function said(value: string | undefined): string {
  if (value === undefined) return "none";
  return value.length > 100 ? `"${value.slice(0, 100)}…"` : `"${value}"`;
}

function termsOf({ size, least, lanes, description }: Join): Map<string, string> {
  const terms = { nodes: size, "least nodes": least, lanes };
  return new Map([
    ...Object.entries(terms).map(([name, value]) => [name, String(value)] as const),
    ...Object.entries(description),
  ]);
}

/** In what others do not agree with the host; in sentences. */
export function differences(host: Join, others: readonly Join[]): string[] {
  const found: string[] = [];
  const expected = termsOf(host);
  for (const join of others) {
    const given = termsOf(join);
    for (const name of new Set([...expected.keys(), ...given.keys()])) {
      const [own, theirs] = [expected.get(name), given.get(name)];
      if (own === theirs) continue;
      found.push(`${name} is ${said(theirs)} at ${placeName(join.place)} and ${said(own)} at ${placeName(host.place)}`);
    }
  }
  return found;
}

/** What does not fit together among those of a first meeting, the host first; in sentences. */
export function disagreements([host, ...others]: readonly Join[]): string[] {
  const found: string[] = [];
  const known = new Map<number, Join>();
  for (const join of [host, ...others]) {
    if (join.rank === null) continue;
    const other = known.get(join.rank);
    if (other) found.push(`${placeName(other.place)} and ${placeName(join.place)} both have rank ${join.rank}`);
    else if (join.rank >= host.size) {
      found.push(`${placeName(join.place)} has rank ${join.rank} of a group of ${host.size}`);
    }
    known.set(join.rank, join);
  }
  return [...found, ...differences(host, others)];
}

/** What does not fit together, in a sentence. */
export function disagreementSentence(found: readonly string[]): string {
  return `The machines do not agree: ${several(found)}`;
}

/**
 * Those who meet in the order of their new ranks, the host first. Members of the host's last world keep their order;
 * others get the rank they ask for if it is free, or the lowest free one in the order in which they came. Ranks that are
 * free then are closed up.
 */
export function inOrder(host: Join, others: readonly Join[]): Join[] {
  const byRank = new Map([[0, host]]);
  const add = (rank: number | null, join: Join) => {
    if (rank === null || byRank.has(rank)) return false;
    byRank.set(rank, join);
    return true;
  };
  const survives = ({ last }: Join) =>
    host.last !== null && last?.world === host.last.world && last.rank > host.last.rank;
  const rest = others.filter((join) => !(survives(join) && add(join.last!.rank, join)));
  const open = rest.filter((join) => !add(join.rank, join));
  let next = 0;
  for (const join of open) {
    while (byRank.has(next)) next++;
    add(next, join);
  }
  return [...byRank].sort(([a], [b]) => a - b).map(([, join]) => join);
}
