/**
 * Opening connections to and from other processes of the group. Strangers are refused without disturbing anybody.
 * @module
 */

import { hasCode, MachineError, messageOf, UserError } from "../errors.ts";
import { before, type Deadline, inSeconds, pause } from "./deadline.ts";
import { admit, type Credentials, introduce } from "./handshake.ts";
import { addressOf, type NamedLink, PlainLink } from "./plain_link.ts";
import { isUnknownName, resolve } from "./secret.ts";
import { type Role, TlsLink } from "./tls_link.ts";

/** Where and for whom to listen. */
export interface ListenOptions extends Credentials {
  /** Address or name of the interface; 0.0.0.0 for all. */
  readonly hostname: string;
  /** 0 for any that is free. */
  readonly port: number;
  /** Time for an opener to prove itself (default: 10). */
  readonly openingSeconds?: number;
  /** Openers that may be at it at once; one more ends the one that has been at it longest (default: 256). */
  readonly openersMost?: number;
  /** Given each link whose opener has proven itself. */
  readonly opened: (link: NamedLink) => void;
  /** Told of each opener that was refused, in a sentence. */
  readonly refused?: (reason: string) => void;
}

/** True if credentials keep strangers out, so that not only loopback may be used. */
function isGuarded({ secret, tls }: Credentials): boolean {
  return secret !== undefined || tls !== undefined;
}

function linkOver(connection: Deno.TcpConn, peer: string, role: Role, { tls }: Credentials): NamedLink {
  return tls ? new TlsLink(connection, peer, role, tls) : new PlainLink(connection, peer);
}

/** An address where links can be opened. */
export interface LinkListener {
  readonly hostname: string;
  readonly port: number;
  /** Stops listening and ends links whose openers have not proven themselves. */
  close(): void;
}

/**
 * Listens on one interface.
 *
 * @throws UserError if the address is not loopback and neither secret nor certificate; what the system throws, as for a port in use
 */
export async function listen(options: ListenOptions): Promise<LinkListener> {
  const { openingSeconds = 10, openersMost = 256, refused = () => {} } = options;
  const listener = Deno.listen({ hostname: await resolve(options.hostname, isGuarded(options)), port: options.port });
  const openers = new Set<NamedLink>();
  let closed = false;
  const refuse = (reason: string) => {
    if (!closed) refused(`Refused a connection: ${reason}`);
  };

  const receive = async (link: NamedLink) => {
    if (openers.size >= openersMost) {
      // The oldest has had the most time; were newcomers refused, a few idle strangers would keep everybody out.
      const [oldest] = openers;
      openers.delete(oldest);
      oldest.close();
      refuse(`${oldest.peer} had not proven itself when ${openersMost} more came`);
    }
    openers.add(link);
    try {
      const late = () => new UserError(`${link.peer} did not prove itself within ${openingSeconds} s`);
      const proven = await before(inSeconds(openingSeconds), admit(link, options), late);
      if (openers.delete(link)) options.opened(proven);
    } catch (error) {
      link.close();
      if (openers.delete(link)) refuse(messageOf(error));
    }
  };

  const run = async () => {
    while (!closed) {
      try {
        const connection = await listener.accept();
        receive(linkOver(connection, addressOf(connection.remoteAddr), "listener", options));
      } catch (error) {
        if (closed) return;
        // As when the system has no more file handles: others may give some back.
        refused(`Could not take a connection: ${messageOf(error)}`);
        await pause(100);
      }
    }
  };
  run();

  return {
    hostname: listener.addr.hostname,
    port: listener.addr.port,
    close() {
      if (closed) return;
      closed = true;
      listener.close();
      for (const link of openers) link.close();
      openers.clear();
    },
  };
}

/** A link that was opened from here, and this side's address on it. */
export interface OpenedLink {
  readonly link: NamedLink;
  /** Address of the interface that leads to the peer. */
  readonly hostname: string;
}

/** How long to try to open a link. */
export interface ConnectOptions extends Credentials {
  readonly deadline: Deadline;
  /** Not to try again, but to throw what the first attempt ends with. */
  readonly once?: boolean;
  /** Ends it sooner. */
  readonly signal?: AbortSignal;
}

/**
 * Opens a link, trying until the deadline while nobody answers.
 *
 * @param who whom the connection is for, for messages: `the rendezvous`
 * @throws UserError if the peer is a stranger, or not on loopback and there is neither secret nor certificate;
 *   MachineError if it is silent
 */
export async function connect(
  who: string,
  address: { readonly hostname: string; readonly port: number },
  options: ConnectOptions,
): Promise<OpenedLink> {
  const { deadline, signal } = options;
  const peer = `${who} (${addressOf(address)})`;
  const start = performance.now();
  let last: string | undefined;
  while (performance.now() < deadline && !signal?.aborted) {
    try {
      return await attempt(peer, address, options);
    } catch (error) {
      if (error instanceof UserError || options.once) throw error;
      // An attempt that the deadline cut short says less than the one before.
      if (performance.now() >= deadline && last !== undefined) break;
      last = isUnknownName(error) ? `the name ${address.hostname} is unknown` : messageOf(error);
    }
    await pause(Math.min(100, Math.max(0, deadline - performance.now())));
  }
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  throw new MachineError(
    `${peer} could not be reached in ${seconds} s; is it running, and does a firewall let this machine through? ` +
      `The last attempt ended with: ${last ?? "no answer"}`,
    { restartable: true },
  );
}

/** Longest time for one attempt, in seconds: the first packets may have been lost. */
const attemptSeconds = 10;

async function attempt(
  peer: string,
  address: { readonly hostname: string; readonly port: number },
  { deadline: end, signal, ...credentials }: ConnectOptions,
): Promise<OpenedLink> {
  const deadline = Math.min(end, inSeconds(attemptSeconds));
  const silent = (what: string) => () => new MachineError(what);
  const resolving = resolve(address.hostname, isGuarded(credentials));
  const hostname = await before(deadline, resolving, silent(`no answer about the name ${address.hostname}`));
  const abort = new AbortController();
  const stop = () => abort.abort();
  signal?.addEventListener("abort", stop, { once: true });
  const connecting = Deno.connect({ hostname, port: address.port, signal: abort.signal });
  let link: NamedLink | undefined;
  try {
    const connection = await before(deadline, connecting, silent("no answer"));
    link = linkOver(connection, peer, "opener", credentials);
    abort.signal.addEventListener("abort", () => link?.close(), { once: true });
    const proving = introduce(link, credentials);
    const opened = await before(deadline, proving, silent("something answered, but said nothing"));
    signal?.removeEventListener("abort", stop);
    return { link: opened, hostname: connection.localAddr.hostname };
  } catch (error) {
    signal?.removeEventListener("abort", stop);
    stop();
    link?.close();
    connecting.then((connection) => link ?? connection.close(), () => {});
    throw error;
  }
}

/** True if an address cannot be listened on because something else does, or because it is another machine's. */
export function isTaken(error: unknown): boolean {
  return error instanceof Deno.errors.AddrInUse || error instanceof Deno.errors.AddrNotAvailable ||
    hasCode(error, "EADDRINUSE");
}
