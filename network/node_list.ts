/**
 * Slurm's short forms of lists: hosts as `n[1-2,7],gpu[001-010]`, counts as `3(x2),1`.
 * @module
 */

import { UserError } from "../errors.ts";

/** Most hosts of a list, so that `n[1-9999999999]` is refused and not written out. */
const hostsMost = 65536;

/** A whole number from the first to the last of a range, written as wide as the first. */
function expandRange(range: string, list: string): string[] {
  const [, first, last = first] = /^(\d+)(?:-(\d+))?$/.exec(range) ?? [];
  const count = Number(last) - Number(first) + 1;
  if (!(count >= 1)) {
    throw new UserError(`The list of hosts ${list} is not one of Slurm's form: [${range}] is no range`);
  }
  if (count > hostsMost) throw new UserError(`The list of hosts ${list} has more than ${hostsMost}`);
  return Array.from({ length: count }, (_, i) => String(Number(first) + i).padStart(first.length, "0"));
}

/** Each of `heads` with each of `tails` behind it, the last changing fastest. */
function combine(heads: readonly string[], tails: readonly string[], list: string): string[] {
  if (heads.length * tails.length > hostsMost) {
    throw new UserError(`The list of hosts ${list} has more than ${hostsMost}`);
  }
  return heads.flatMap((head) => tails.map((tail) => head + tail));
}

/**
 * The hosts of a list, as `scontrol show hostnames` writes them out. Numbers keep their leading zeros; of several brackets
 * in one name the last changes fastest.
 *
 * @throws UserError if it is not of that form, or has more than 65536 hosts
 */
export function expandNodeList(list: string): string[] {
  const hosts: string[] = [];
  // Commas between names, not those within brackets.
  for (const name of list.split(/,(?![^[]*\])/)) {
    const parts = name.match(/\[[^[\]]*\]|[^[\]\s]+/g) ?? [];
    if (parts.length === 0 || parts.join("") !== name) {
      throw new UserError(`The list of hosts ${JSON.stringify(list)} is not one of Slurm's form, like n[1-3,7]`);
    }
    let names = [""];
    for (const part of parts) {
      const tails = part.startsWith("[")
        ? part.slice(1, -1).split(",").flatMap((range) => expandRange(range, list))
        : [part];
      names = combine(names, tails, list);
    }
    hosts.push(...names);
    if (hosts.length > hostsMost) throw new UserError(`The list of hosts ${list} has more than ${hostsMost}`);
  }
  return hosts;
}

/**
 * The counts of a list like `3(x2),1`: 3, 3, 1.
 *
 * @throws UserError if it is not of that form
 */
export function expandCounts(list: string): number[] {
  return list.split(",").flatMap((item) => {
    const [, count, times = "1"] = /^(\d+)(?:\(x(\d+)\))?$/.exec(item) ?? [];
    if (count === undefined || !(Number(times) >= 1 && Number(times) <= hostsMost)) {
      throw new UserError(`${JSON.stringify(list)} is not a list of counts of Slurm's form, like 3(x2),1`);
    }
    return Array<number>(Number(times)).fill(Number(count));
  });
}
