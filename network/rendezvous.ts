/**
 * The address that all processes of a run know.
 * @module
 */

import { messageOf, UserError } from "../errors.ts";
import type { Address, NodeOptions } from "./gathering.ts";
import { isTaken, type LinkListener, listen } from "./listener.ts";
import { addressOf, type NamedLink } from "./plain_link.ts";
import { seldom } from "./refusals.ts";
import { isUnknownName } from "./secret.ts";

/** Splits `host:port` or `[address]:port`. */
export function parseAddress(address: string): Address {
  const match = /^(?:\[([0-9a-f:.]+)\]|([^:[\]\s]+)):(\d{1,5})$/i.exec(address);
  const hostname = match?.[1] ?? match?.[2] ?? "";
  const port = Number(match?.[3]);
  if (!match || port < 1 || port > 65535) throw new UserError(`"${address}" is not an address of the form host:port`);
  if (hostname === "0.0.0.0" || hostname === "::") throw new UserError(`"${address}" names no machine to meet at`);
  return { hostname, port };
}

/** Listens at the rendezvous; undefined if another process is to. That is rank 0, or whoever can when none has a rank. */
export async function listenAtRendezvous(
  { rank, rendezvous, listen: own, secret, group, tls, report }: NodeOptions,
  opened: (link: NamedLink) => void,
): Promise<LinkListener | undefined> {
  if (rank !== undefined && rank !== 0) return undefined;
  const address = parseAddress(rendezvous);
  const hostname = rank === 0 && own !== undefined ? own : address.hostname;
  try {
    return await listen({ hostname, port: address.port, secret, group, tls, opened, refused: seldom(report) });
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
