/**
 * Certificates: what shows that a machine belongs to a group, read from files and checked.
 *
 * Whoever has a certificate that the authority signed belongs, under whatever name: what names and addresses a certificate
 * gives is not looked at, since a machine of a cluster is reached by others than those it was issued for. So the authority
 * must be the group's own. (Peers of etcd and Consul are told apart in the same way.)
 * @module
 */

import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { messageOf, UserError } from "../errors.ts";
import { readGiven, readPrivate } from "./secret.ts";

/** What a machine shows to others, and what it asks of theirs; each is the text of a PEM file. */
export interface TlsIdentity {
  /** This machine's, and behind it others that belong to it. */
  readonly certificate: string;
  /** The key to its certificate. */
  readonly key: string;
  /** Certificates of the authority: others' must be signed by one of these. */
  readonly authority: string;
}

/** Files of an identity, as given by flags. */
export interface TlsFiles {
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly tlsCa?: string;
}

/**
 * Reads what --tls-cert, --tls-key and --tls-ca name; undefined if none is given.
 *
 * @throws UserError if only some are given, a file cannot be read or is not PEM, others may read the key, the key is
 *   another certificate's, the authority did not sign the certificate, or one of them is not valid today
 */
export function readTlsIdentity({ tlsCert, tlsKey, tlsCa }: TlsFiles): TlsIdentity | undefined {
  if (tlsCert === undefined && tlsKey === undefined && tlsCa === undefined) return undefined;
  if (tlsCert === undefined || tlsKey === undefined || tlsCa === undefined) {
    throw new UserError("--tls-cert, --tls-key and --tls-ca go together: give all three or none");
  }
  const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  const certificate = decode(readGiven("certificate", tlsCert));
  const key = decode(readPrivate("key", tlsKey));
  const authority = decode(readGiven("authority's certificate", tlsCa));
  const own = parse(certificate, tlsCert)[0];
  const authorities = parse(authority, tlsCa);
  if (!own.checkPrivateKey(parseKey(key, tlsKey))) {
    throw new UserError(`The key ${tlsKey} does not belong to the certificate ${tlsCert}`);
  }
  if (authorities.every((one) => faultOfDates(one) !== undefined)) {
    throw new UserError(`The authority's certificate ${tlsCa} ${faultOfDates(authorities[0])}`);
  }
  const fault = faultOf(own, authorities);
  if (fault !== undefined) throw new UserError(`The certificate ${tlsCert} ${fault}`);
  return { certificate, key, authority };
}

function parse(text: string, file: string): X509Certificate[] {
  try {
    const found = readCertificates(text);
    if (found.length > 0) return found;
  } catch (error) {
    throw new UserError(`The file ${file} has a certificate that cannot be read: ${messageOf(error)}`);
  }
  throw new UserError(`The file ${file} has no certificate in PEM form (-----BEGIN CERTIFICATE-----)`);
}

function parseKey(text: string, file: string): KeyObject {
  try {
    return createPrivateKey(text);
  } catch {
    throw new UserError(`The file ${file} has no private key in PEM form without a passphrase`);
  }
}

/** The certificates in a PEM text, in order. Throws if one cannot be parsed. */
export function readCertificates(text: string): X509Certificate[] {
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  return blocks.map((block) => new X509Certificate(block));
}

/** Why a certificate does not show that its owner belongs, as the end of a sentence; undefined if it does. */
export function faultOf(certificate: X509Certificate, authorities: readonly X509Certificate[]): string | undefined {
  const signers = authorities.filter((one) => certificate.checkIssued(one) && certificate.verify(one.publicKey));
  if (signers.length === 0) return "is not signed by the authority in --tls-ca";
  const dates = faultOfDates(certificate);
  if (dates !== undefined) return dates;
  return signers.every((one) => faultOfDates(one) !== undefined)
    ? "is signed by an authority that has expired"
    : undefined;
}

function faultOfDates({ validFrom, validTo }: X509Certificate): string | undefined {
  const day = (text: string) => new Date(text).toISOString().slice(0, 10);
  if (!(Date.parse(validFrom) <= Date.now())) {
    return `is valid from ${day(validFrom)} on; is this machine's clock right?`;
  }
  if (!(Date.parse(validTo) >= Date.now())) return `expired on ${day(validTo)}`;
  return undefined;
}
