/**
 * A member of a process group on a host: `member.ts JSON`. Meets the others, all-reduces again and again, prints `round N`
 * after each, and at the end what came of it.
 */

import { MachineError } from "../../errors.ts";
import { Node } from "../../network/node.ts";
import { ProcessGroup } from "../../parallel/process_group.ts";
import { broughtBy, hashOf } from "../parallel/process_groups.ts";
import type { Host } from "./hosts.ts";
import type { Running } from "./running.ts";

/** What the members do. */
export interface MemberTask {
  readonly size: number;
  readonly rank: number;
  readonly rendezvous: string;
  /** Numbers that are summed. */
  readonly length: number;
  readonly rounds: number;
  readonly timeoutSeconds: number;
}

/** What a member prints last. */
export type MemberResult =
  | { readonly kind: "summed"; readonly hash: string }
  | { readonly kind: "failed"; readonly restartable: boolean; readonly message: string };

/** The secret of all members. */
export const secret = "a secret of sixteen bytes and more";

/** Starts a member on each host, at most 1000 rounds unless told otherwise. */
export function startMembers(
  hosts: readonly Host[],
  { rounds = 1000, length = 250_000, timeoutSeconds }: Partial<MemberTask> & Pick<MemberTask, "timeoutSeconds">,
): Running[] {
  const rendezvous = `${hosts[0].address}:29500`;
  return hosts.map((host, rank) => {
    const task: MemberTask = { size: hosts.length, rank, rendezvous, length, rounds, timeoutSeconds };
    return host.run([Deno.execPath(), "run", "-A", "--quiet", import.meta.filename!, JSON.stringify(task)]);
  });
}

/** What a member that has ended has printed last. */
export function resultOf(stdout: string): MemberResult {
  return JSON.parse(stdout.trim().split("\n").at(-1)!);
}

async function main({ size, rank, rendezvous, length, rounds, timeoutSeconds }: MemberTask): Promise<MemberResult> {
  const node = await Node.open({
    size,
    rank,
    rendezvous,
    secret: new TextEncoder().encode(secret),
    group: "tests",
    timeoutSeconds: 30,
    peerTimeoutSeconds: timeoutSeconds,
  });
  const world = await node.meet({ description: {}, facts: {}, lanes: 1 });
  // The world's limit comes first: its members know whom they have lost, neighbours in a collective only suppose it.
  const limits = { timeoutSeconds: 2 * timeoutSeconds, algorithm: "ring" } as const;
  const group = new ProcessGroup({ rank, size, links: world.lanes[0], ...limits });
  let hash = "";
  try {
    for (let round = 0; round < rounds; round++) {
      const data = broughtBy(rank + round, length);
      await group.allReduce(data);
      hash = hashOf(data);
      console.log(`round ${round}`);
    }
    await group.barrier();
    return { kind: "summed", hash };
  } catch (error) {
    if (!(error instanceof MachineError)) throw error;
    return { kind: "failed", restartable: error.restartable, message: (await world.lost).message };
  } finally {
    group.close();
    await node.close();
  }
}

if (import.meta.main) console.log(JSON.stringify(await main(JSON.parse(Deno.args[0]))));
