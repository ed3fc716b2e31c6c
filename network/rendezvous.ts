/**
 * How the processes of a group find each other: one hosts an address that all know, the others come to it and are told
 * of each other, and then each has a link to each. Either all get theirs or none.
 *
 * The host is rank 0: who was told so, or whoever can listen at the address when none has a rank. A member's link to the
 * host is the one it came by; of two other members the lower rank listens. Every wait ends with the group's deadline and
 * names whom it was for.
 * @module
 */

import { messageOf, UserError } from "../errors.ts";
import { inSeconds } from "./deadline.ts";
import { checkDescription, type Meeting, type MeetOptions, sizeMost } from "./gathering.ts";
import { isTaken, type LinkListener, listen } from "./listener.ts";
import { Host } from "./meeting_host.ts";
import { join } from "./meeting_member.ts";
import { addressOf, type NamedLink } from "./plain_link.ts";
import { isUnknownName } from "./secret.ts";

/**
 * Finds the others.
 *
 * @throws UserError if the machines do not agree, a rank is there twice, the port is in use, or the peer is a stranger;
 *   MachineError if somebody does not come, or leaves, before all are linked
 */
export async function meet(options: MeetOptions): Promise<Meeting> {
  const { size, rank, rendezvous } = options;
  if (!(Number.isInteger(size) && size >= 1 && size <= sizeMost)) {
    throw new UserError(`A group has 1 to ${sizeMost} machines, not ${size}`);
  }
  checkDescription(options.description);
  if (rank !== undefined && !(Number.isInteger(rank) && rank >= 0 && rank < size)) {
    throw new UserError(`Rank ${rank} is not one of a group of ${size}: ranks are 0 to ${size - 1}`);
  }
  const address = parseAddress(rendezvous);
  if (size === 1) return { rank: 0, size, links: new Map() };
  const deadline = inSeconds(options.timeoutSeconds);
  if (rank === undefined || rank === 0) {
    const host = new Host(options, address, deadline);
    const listener = await tryHosting(address, options, (link) => host.receive(link));
    if (listener) return await host.run(listener);
  }
  return await join(options, address, deadline);
}

export type { Meeting, MeetOptions };

/** Splits `host:port` or `[address]:port`. */
export function parseAddress(address: string): { hostname: string; port: number } {
  const match = /^(?:\[([0-9a-f:.]+)\]|([^:[\]\s]+)):(\d{1,5})$/i.exec(address);
  const hostname = match?.[1] ?? match?.[2] ?? "";
  const port = Number(match?.[3]);
  if (!match || port < 1 || port > 65535) throw new UserError(`"${address}" is not an address of the form host:port`);
  if (hostname === "0.0.0.0" || hostname === "::") throw new UserError(`"${address}" names no machine to meet at`);
  return { hostname, port };
}

/** Listens at the rendezvous; undefined if another process is to host it. */
async function tryHosting(
  address: { hostname: string; port: number },
  { rank, listen: own, secret, group, tls, report }: MeetOptions,
  opened: (link: NamedLink) => void,
): Promise<LinkListener | undefined> {
  const hostname = rank === 0 && own !== undefined ? own : address.hostname;
  try {
    return await listen({ hostname, port: address.port, secret, group, tls, opened, refused: report });
  } catch (error) {
    const elsewhere = isTaken(error) || isUnknownName(error);
    if (elsewhere && rank === undefined) return undefined;
    if (error instanceof UserError) throw error;
    throw new UserError(
      `Rank 0 hosts the rendezvous but cannot listen on ${addressOf({ hostname, port: address.port })}: ` +
        `${messageOf(error)}; is the port in use by another program, or the address another machine's?`,
    );
  }
}
