/**
 * How two processes open a connection. Each side proves that it knows the group's secret before the other reads
 * anything else from it; what both have then are keys that no other connection has.
 *
 * 1. opener → listener: opening = magic (8 bytes), protocol version (4, big-endian), nonce (32 random bytes)
 * 2. listener → opener: opening
 * 3. opener → listener: proof (32)
 * 4. listener → opener: proof (32), or zeros if the opener's was wrong
 *
 * From the secret, with both nonces as salt and version and group as context, HKDF-SHA-256 (RFC 5869) gives four keys: for
 * each side one to prove with and one to send with. A proof is HMAC-SHA-256 of all the above under the side's key, so it
 * is good for this connection, this role, this version and this group only. The opener proves first: from a listener a
 * stranger gets nothing that was made with the secret.
 *
 * Without a secret (which only loopback addresses may do, or who has certificates) the same is done with an empty one: then
 * it only tells Muster from other programs, and groups from each other, and the link that comes of it is plain.
 *
 * Inside TLS (`tls_link.ts`) what only the two ends of its connection have goes into the salt as well: one who has a
 * certificate but not the secret cannot stand between two who have both. TLS keeps the frames, so they get no tags here.
 * @module
 */

import { createHmac, hkdfSync, randomBytes, timingSafeEqual } from "node:crypto";
import { UserError } from "../errors.ts";
import { AuthenticatedLink } from "./authenticated_link.ts";
import type { NamedLink } from "./plain_link.ts";
import type { TlsIdentity } from "./tls_identity.ts";
import { handshakeFailure } from "./tls_link.ts";

/** Version of everything said between processes; others are refused. */
export const protocolVersion = 2;

const magic = new TextEncoder().encode("MUSTERLK");
const nonceBytes = 32;
const versionAt = magic.length;
const nonceAt = versionAt + 4;
const openingBytes = nonceAt + nonceBytes;
const keyBytes = 32;
const proofBytes = 32;

/** Who may speak. */
export interface Credentials {
  /** Shared by all; undefined if there is none. */
  readonly secret: Uint8Array | undefined;
  /** Groups of one secret that must not mix: the run's name. */
  readonly group: string;
  /** This machine's certificate and whose are taken; without it there is no TLS. */
  readonly tls?: TlsIdentity | undefined;
}

function opening(): Uint8Array {
  const bytes = new Uint8Array(openingBytes);
  bytes.set(magic);
  new DataView(bytes.buffer).setUint32(versionAt, protocolVersion);
  bytes.set(randomBytes(nonceBytes), nonceAt);
  return bytes;
}

async function receive(link: NamedLink, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  await link.read(bytes);
  return bytes;
}

/** First bytes of TLS: of an alert, which is how a listener refuses, and of an opener's hello. */
const [tlsAlert, tlsHello] = [[21, 3], [22, 3]];

/** The other side's opening and the version it speaks; or what it is instead, which its first bytes tell. */
async function receiveOpening(
  link: NamedLink,
): Promise<{ other: Uint8Array; version: number } | "something else" | "TLS"> {
  const start = await receive(link, 2);
  if ([tlsAlert, tlsHello].some(([a, b]) => start[0] === a && start[1] === b)) return "TLS";
  const first = new Uint8Array([...start, ...await receive(link, magic.length - 2)]);
  if (!magic.every((byte, i) => first[i] === byte)) return "something else";
  const other = new Uint8Array([...first, ...await receive(link, openingBytes - magic.length)]);
  return { other, version: new DataView(other.buffer).getUint32(versionAt) };
}

/** Proofs and sending keys of both sides. */
function derive(opener: Uint8Array, listener: Uint8Array, binding: Uint8Array, { secret, group }: Credentials) {
  const name = new TextEncoder().encode(group);
  const salt = new Uint8Array([...opener.subarray(nonceAt), ...listener.subarray(nonceAt), ...binding]);
  const context = new Uint8Array([...magic, 0, 0, 0, protocolVersion, ...name]);
  const keys = new Uint8Array(hkdfSync("sha256", secret ?? new Uint8Array(0), salt, context, 4 * keyBytes));
  const key = (i: number) => keys.slice(i * keyBytes, (i + 1) * keyBytes);
  const proof = (i: number) =>
    new Uint8Array(createHmac("sha256", key(i)).update(opener).update(listener).update(name).digest());
  return {
    opener: { proof: proof(0), key: key(1) },
    listener: { proof: proof(2), key: key(3) },
  };
}

function bindingOf(link: NamedLink): Uint8Array {
  return link.binding ?? new Uint8Array(0);
}

function finish(link: NamedLink, { secret, tls }: Credentials, sending: Uint8Array, receiving: Uint8Array): NamedLink {
  link.proven?.();
  return secret === undefined || tls ? link : new AuthenticatedLink(link, { sending, receiving });
}

/**
 * The opener's part.
 *
 * @param link to a listener, nothing said yet
 * @throws UserError if what listens is not Muster, speaks another version, or has another secret or group
 */
export async function introduce(link: NamedLink, credentials: Credentials): Promise<NamedLink> {
  const own = opening();
  await link.write(own);
  const received = await receiveOpening(link);
  if (received === "TLS") {
    throw new UserError(`${link.peer} wants TLS, and this process has no certificate: give it --tls-cert as well`);
  }
  if (received === "something else") {
    throw new UserError(`What answers at ${link.peer} is not Muster; is another program using that port?`);
  }
  const { other, version } = received;
  if (version !== protocolVersion) throw new UserError(otherVersion(link.peer, version));
  const { opener, listener } = derive(own, other, bindingOf(link), credentials);
  await link.write(opener.proof);
  const proof = await receive(link, proofBytes);
  if (!timingSafeEqual(proof, listener.proof)) {
    throw new UserError(
      `${link.peer} has another shared secret, or belongs to another group than "${credentials.group}"`,
    );
  }
  return finish(link, credentials, opener.key, listener.key);
}

/**
 * The listener's part.
 *
 * @param link to a stranger, nothing said yet
 * @throws UserError that says why the stranger is refused; the caller closes the link
 */
export async function admit(link: NamedLink, credentials: Credentials): Promise<NamedLink> {
  const received = await receiveOpening(link);
  if (received === "TLS") {
    await link.write(handshakeFailure);
    throw new UserError(
      `${link.peer} opened with TLS, and this process has no certificate: give it --tls-cert as well`,
    );
  }
  if (received === "something else") throw new UserError(`${link.peer} does not speak Muster's protocol`);
  const { other, version } = received;
  const own = opening();
  await link.write(own);
  if (version !== protocolVersion) throw new UserError(otherVersion(link.peer, version));
  const { opener, listener } = derive(other, own, bindingOf(link), credentials);
  const proof = await receive(link, proofBytes);
  if (!timingSafeEqual(proof, opener.proof)) {
    await link.write(new Uint8Array(proofBytes));
    throw new UserError(
      `${link.peer} has another shared secret, or belongs to another group than "${credentials.group}"`,
    );
  }
  await link.write(listener.proof);
  return finish(link, credentials, listener.key, opener.key);
}

function otherVersion(peer: string, version: number): string {
  return `${peer} speaks version ${version} of Muster's protocol, this process version ${protocolVersion}; ` +
    "run the same Muster everywhere";
}
