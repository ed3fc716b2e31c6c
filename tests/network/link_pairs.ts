/** Pairs of links on loopback, with something in between if wanted. */

import { inSeconds } from "../../network/deadline.ts";
import { connect, type LinkListener, listen, type ListenOptions } from "../../network/listener.ts";
import type { Link } from "../../network/link.ts";
import { type NamedLink, PlainLink } from "../../network/plain_link.ts";
import type { TlsIdentity } from "../../network/tls_identity.ts";
import { TlsLink } from "../../network/tls_link.ts";
import type { systemSocket } from "../../network/system_socket.ts";

export const secret = new TextEncoder().encode("a secret of the tests, long enough");
export const group = "tests";

/** Bytes that look random, the same for each seed. */
export function noise(length: number, seed = 1): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  let state = seed | 1;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

/** A listener on a free port of loopback that keeps what was opened and why others were refused. */
export async function openListener(options: Partial<ListenOptions> = {}) {
  const refusals: string[] = [];
  const ready: NamedLink[] = [];
  const waiting: ((link: NamedLink) => void)[] = [];
  const listener = await listen({
    hostname: "127.0.0.1",
    port: 0,
    secret,
    group,
    opened: (link) => waiting.length > 0 ? waiting.shift()!(link) : ready.push(link),
    refused: (reason) => refusals.push(reason),
    ...options,
  });
  const accepted = () =>
    ready.length > 0 ? Promise.resolve(ready.shift()!) : new Promise<NamedLink>((resolve) => waiting.push(resolve));
  return { listener, refusals, accepted, addressed: { hostname: "127.0.0.1", port: listener.port } };
}

/** Opens a link to a listener. */
export async function open(
  port: number,
  credentials: { secret?: Uint8Array; group?: string; tls?: TlsIdentity; seconds?: number } = {},
) {
  const { link } = await connect("the listener", { hostname: "127.0.0.1", port }, {
    secret: "secret" in credentials ? credentials.secret : secret,
    group: credentials.group ?? group,
    tls: credentials.tls,
    deadline: inSeconds(credentials.seconds ?? 5),
  });
  return link;
}

/** Two ends of one connection. */
export async function connectionPair(): Promise<[Deno.TcpConn, Deno.TcpConn]> {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  const pair = await Promise.all([Deno.connect({ hostname: "127.0.0.1", port }), listener.accept()]);
  listener.close();
  return pair;
}

/** Two ends of one plain link, whose bytes go the way that `socketOf` gives. */
export async function plainPair(socketOf?: typeof systemSocket): Promise<[PlainLink, PlainLink]> {
  const [a, b] = await connectionPair();
  const links: [PlainLink, PlainLink] = [new PlainLink(a, "peer b", socketOf), new PlainLink(b, "peer a", socketOf)];
  for (const link of links) link.proven();
  return links;
}

/** Sends `bytes` in pieces of given lengths, and gives what is read at the other end, in others. */
export async function carry(
  from: Link,
  to: Link,
  bytes: Uint8Array,
  writes: readonly number[],
  reads: readonly number[],
): Promise<Uint8Array> {
  const target = new Uint8Array(new SharedArrayBuffer(bytes.length + 7)).subarray(3, 3 + bytes.length);
  const each = async (lengths: readonly number[], what: (from: number, to: number) => Promise<void>) => {
    let at = 0;
    for (let i = 0; at < bytes.length; i++) {
      const length = lengths[i % lengths.length];
      await what(at, Math.min(bytes.length, at + length));
      at += length;
    }
  };
  await Promise.all([
    each(writes, (a, b) => from.write(bytes.subarray(a, b))),
    each(reads, (a, b) => to.read(target.subarray(a, b))),
  ]);
  return target;
}

/** Two ends of one connection with TLS; peer a opened it. */
export async function tlsPair(of: TlsIdentity, to: TlsIdentity): Promise<[TlsLink, TlsLink]> {
  const [a, b] = await connectionPair();
  return [new TlsLink(a, "peer b", "opener", of), new TlsLink(b, "peer a", "listener", to)];
}

/** Of the certificates beside this file (`certificates/make.sh`); the key may be another's. */
export function identity(name: string, { key = name, authority = "authority" } = {}): TlsIdentity {
  const text = (file: string) => Deno.readTextFileSync(new URL(`certificates/${file}`, import.meta.url));
  return { certificate: text(`${name}.pem`), key: text(`${key}.key`), authority: text(`${authority}.pem`) };
}

/** Both ends of a link that went through the handshake; with `between`, its way leads through what that returns. */
export async function handshakenPair(between?: (listener: LinkListener) => Relay) {
  const { listener, accepted } = await openListener();
  const relay = between?.(listener);
  const [opener, acceptor] = await Promise.all([open(relay?.port ?? listener.port), accepted()]);
  listener.close();
  return { opener, acceptor, relay, close: () => [opener, acceptor, relay].forEach((end) => end?.close()) };
}

/** What stands on the way of one connection. */
export interface Relay {
  readonly port: number;
  /** Bytes that the opener sent, as they came. */
  readonly recorded: Uint8Array[];
  close(): void;
}

/** Bytes of a handshake from the opener: opening and proof. */
export const handshakeBytes = 44 + 32;

/**
 * Passes one connection on to `port`. What the opener sends behind its handshake is taken apart into frames, and what
 * `attack` makes of the first two is sent in their place; null cuts the connection.
 */
export function relayTo(port: number, attack: (frames: [Uint8Array, Uint8Array]) => (Uint8Array | null)[]): Relay {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const recorded: Uint8Array[] = [];
  const ends: Deno.TcpConn[] = [];
  const close = () => {
    for (const end of [listener, ...ends]) {
      try {
        end.close();
      } catch {
        // closed already
      }
    }
  };
  const run = async () => {
    const [a, b] = [await listener.accept(), await Deno.connect({ hostname: "127.0.0.1", port })];
    ends.push(a, b);
    const from = new PlainLink(a, "the opener");
    const to = new PlainLink(b, "the acceptor");
    const take = async (length: number) => {
      const bytes = new Uint8Array(length);
      await from.read(bytes);
      recorded.push(bytes);
      return bytes;
    };
    const back = async () => {
      const bytes = new Uint8Array(1 << 16);
      for (let count; (count = await b.read(bytes)) !== null;) {
        await new PlainLink(a, "the opener").write(bytes.subarray(0, count));
      }
    };
    back().catch(() => {});
    await to.write(await take(44));
    await to.write(await take(32));
    const frame = async () => {
      const header = await take(20);
      const body = await take(new DataView(header.buffer).getUint32(0));
      return new Uint8Array([...header, ...body]);
    };
    for (const part of attack([await frame(), await frame()])) {
      if (part === null) return close();
      await to.write(part);
    }
    for (;;) await to.write(await frame());
  };
  run().catch(() => {});
  return { port: listener.addr.port, recorded, close };
}
