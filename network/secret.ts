/**
 * The secret that the processes of a group share, and the addresses that may do without.
 * @module
 */

import { lookup } from "node:dns/promises";
import { hasCode, messageOf, UserError } from "../errors.ts";

const variable = "MUSTER_SECRET";
/** Fewer bytes could be guessed from a recorded handshake. */
const leastBytes = 16;
const howToMake = "make one with: openssl rand -hex 32";

/**
 * The shared secret, from `file` if given, else from the environment's MUSTER_SECRET; undefined if there is neither.
 * White space around it does not count.
 *
 * @throws UserError if the file cannot be read or others may read it, or the secret is shorter than 16 bytes
 */
export function readSecret(file?: string): Uint8Array | undefined {
  const bytes = file === undefined ? readVariable() : readPrivate("secret", file);
  if (bytes === undefined) return undefined;
  const isSpace = (byte: number) => byte === 32 || (byte >= 9 && byte <= 13);
  const from = bytes.findIndex((byte) => !isSpace(byte));
  const secret = from < 0 ? new Uint8Array(0) : bytes.slice(from, bytes.findLastIndex((byte) => !isSpace(byte)) + 1);
  if (secret.length >= leastBytes) return secret;
  const where = file === undefined ? variable : file;
  throw new UserError(`The secret in ${where} has ${secret.length} bytes, but needs ${leastBytes}; ${howToMake}`);
}

function readVariable(): Uint8Array | undefined {
  const text = Deno.env.get(variable);
  return text === undefined ? undefined : new TextEncoder().encode(text);
}

/** Reads a file that the user named; `what` is in it, for messages. */
export function readGiven(what: string, file: string): Uint8Array {
  try {
    return Deno.readFileSync(file);
  } catch (error) {
    throw new UserError(`The ${what} file ${file} cannot be read: ${messageOf(error)}`);
  }
}

/** The same for a file that not every user of the machine may read or write. */
export function readPrivate(what: string, file: string): Uint8Array {
  const bytes = readGiven(what, file);
  const { mode } = Deno.statSync(file);
  // Windows has no mode.
  if (mode !== null && (mode & 0o006) !== 0) {
    throw new UserError(`The ${what} file ${file} is open to every user of this machine; run: chmod 600 ${file}`);
  }
  return bytes;
}

/** True for 127.0.0.0/8 and ::1. */
export function isLoopback(address: string): boolean {
  return /^(::ffff:)?127\.\d+\.\d+\.\d+$/i.test(address) || address === "::1";
}

/**
 * The numeric address of a host's name.
 *
 * @param guarded whether strangers are kept out, by a secret or by certificates
 * @throws UserError if it is not of this machine alone and nothing guards it; what the resolver throws for unknown names
 */
export async function resolve(hostname: string, guarded: boolean): Promise<string> {
  const { address } = await lookup(hostname);
  if (!guarded && !isLoopback(address)) {
    const other = address === hostname ? address : `${hostname} (${address})`;
    throw new UserError(
      `Without a shared secret only loopback addresses are allowed, and ${other} is none; ` +
        `give every machine the same --secret-file or ${variable}, or certificates (--tls-cert)`,
    );
  }
  return address;
}

/** True if a name is not known to the resolver, or not yet. */
export function isUnknownName(error: unknown): boolean {
  return hasCode(error, "ENOTFOUND") || hasCode(error, "EAI_AGAIN");
}
