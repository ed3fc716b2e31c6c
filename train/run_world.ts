/**
 * The machines that train one model together, as the ranks of one of them need to know them.
 * @module
 */

import type { MachinePlace } from "../parallel/group_setup.ts";
import { type Mesh, worldSize } from "../parallel/mesh.ts";

/** The machines of a run, until one comes or goes. */
export interface RunWorld {
  /** Tells it from all others, on all its machines alike. */
  readonly id: string;
  /** This machine among them. */
  readonly machine: MachinePlace;
  /** Their names, in order. */
  readonly names: readonly string[];
  /** Data-parallel copies of the model on each. */
  readonly copies: readonly number[];
  /** Ranks of each. */
  readonly ranks: readonly number[];
  /** True if their GPUs differ. */
  readonly unequal: boolean;
}

const total = (counts: readonly number[]) => counts.reduce((a, b) => a + b, 0);

/** The world of one machine alone. */
export function soleMachine(mesh: Mesh): RunWorld {
  return {
    id: "",
    machine: { rank: 0, size: 1 },
    names: [Deno.hostname()],
    copies: [mesh.data],
    ranks: [worldSize(mesh)],
    unequal: false,
  };
}

/** Copies of the model on all machines, and the place of this machine's first among them. */
export function copiesOf({ machine, copies }: RunWorld): { count: number; first: number } {
  return { count: total(copies), first: total(copies.slice(0, machine.rank)) };
}

/** Ranks of all machines, and the place of this machine's first among them. */
export function ranksOf({ machine, ranks }: RunWorld): { count: number; first: number } {
  return { count: total(ranks), first: total(ranks.slice(0, machine.rank)) };
}

/** The machine of a rank that is counted over all machines. */
export function machineOf({ ranks }: RunWorld, rank: number): number {
  let end = 0;
  return ranks.findIndex((count) => rank < (end += count));
}
