/**
 * The memory of a group of ranks: counters, then areas, then what the network's thread needs.
 * @module
 */

import { ProcessGroup } from "./process_group.ts";

/** Plain data from which a member makes its `Group`. */
export interface GroupSetup {
  readonly members: readonly number[];
  readonly memory: WebAssembly.Memory;
  /** f32 elements that fit an area. */
  readonly areaElements: number;
  /** Areas of a member, used in turn. */
  readonly turns: number;
  /** This machine's place among those whose sums are added up; undefined if there are none. */
  readonly machines: MachinePlace | undefined;
}

/** A machine's place among all. */
export interface MachinePlace {
  readonly rank: number;
  readonly size: number;
}

/** Counters lie in cache lines of their own. */
export const counterWords = 16;
/** Gives zeroed memory of so many bytes: shared, or of the kind that sums are made in. */
export interface Allocator {
  readonly shared: (bytes: number) => SharedArrayBuffer;
  readonly summed: (bytes: number) => WebAssembly.Memory;
}

const pageBytes = 65536;
/** What 32-bit WebAssembly can address. */
const mostSummedBytes = 65535 * pageBytes;

/** Real memory. */
export const allocator: Allocator = {
  shared: (bytes) => new SharedArrayBuffer(bytes),
  summed(bytes) {
    const pages = Math.ceil(bytes / pageBytes);
    return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  },
};

/** Areas of a member that are used in turn: with other machines several sums are under way. */
const turnsOf = (machines: MachinePlace | undefined) => machines ? 4 : 2;
/** Words of what is asked for of a sum over machines: turn, length, bucket, scale. */
export const requestWords = 4;
/** Behind the members' counters: how many sums over machines are done; how many are asked for, and what of each. */
export const machineWords = 3 * counterWords;

/** Bytes of a group's memory, for each of its members. */
export function groupBytesPerMember({ areaElements, turns }: Pick<GroupSetup, "areaElements" | "turns">): number {
  return counterWords * 4 + turns * areaElements * 4;
}

/** Memory for a group. Areas may be smaller than asked for: what does not fit goes in pieces. */
export function createGroup(
  members: readonly number[],
  areaElements: number,
  { summed } = allocator,
  machines?: MachinePlace,
): GroupSetup {
  const turns = turnsOf(machines);
  const reserved = machineWords * 4 + (machines ? ProcessGroup.scratchBytes + 64 : 0);
  const most = Math.floor(((mostSummedBytes - reserved) / members.length - counterWords * 4) / (4 * turns) / 64) * 64;
  const elements = Math.min(most, Math.ceil(areaElements / 64) * 64);
  const memory = summed(members.length * groupBytesPerMember({ areaElements: elements, turns }) + reserved);
  return { members, memory, areaElements: elements, turns, machines };
}

/** Where the first area begins, in bytes. */
function areasStart({ members }: GroupSetup): number {
  return (members.length * counterWords + machineWords) * 4;
}

/** Member `i`'s area of a turn. */
export function areaOf(setup: GroupSetup, i: number, turn: number): Float32Array {
  const { members, memory, areaElements } = setup;
  const start = areasStart(setup) + (turn * members.length + i) * areaElements * 4;
  return new Float32Array(memory.buffer, start, areaElements);
}

/** Where the network's thread may put what it receives, in bytes: behind the areas. */
export function scratchStart(setup: GroupSetup): number {
  const end = areasStart(setup) + setup.turns * setup.members.length * setup.areaElements * 4;
  return Math.ceil(end / 64) * 64;
}
