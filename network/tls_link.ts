/**
 * A link inside mutual TLS 1.3: bytes are hidden, and both ends have shown certificates of the group's authority.
 *
 * TLS is that of node:tls, as Deno's own servers cannot ask for certificates and its own clients trust the world's
 * authorities beside the given one. Of what node:tls does in Deno 2.9.6 two things do not suffice and are done here:
 *
 * - Whether a peer has the key to its certificate: a client takes a certificate of X.509 version 1 without proof, and a
 *   `TLSSocket` of a server takes any. So each end signs what no other connection has (the finished messages, which is
 *   what they are there for: RFC 5929), the opener first, and the other checks it and the certificate. Each says its
 *   signature behind its length in 2 bytes; the length 0 means that the other's certificate is not accepted.
 * - A socket that is paused reads on without end. So the bytes under TLS come from the connection by hand, and only while
 *   somebody waits for them; nor is a write done before the system has taken what became of it.
 * @module
 */

import { createPrivateKey, sign, verify, X509Certificate } from "node:crypto";
import { Duplex } from "node:stream";
import { connect, TLSSocket } from "node:tls";
import { MachineError, messageOf, UserError } from "../errors.ts";
import { type NamedLink, PlainLink } from "./plain_link.ts";
import { faultOf, readCertificates, type TlsIdentity } from "./tls_identity.ts";

/** Most bytes given to TLS at once, and most taken from the connection. */
const pieceBytes = 1 << 18;
/** Longest signature; one of RSA with 8192 bits has 1024. */
const signatureMost = 1024;

/** The alert that a handshake has failed (RFC 8446): tells an opener that TLS, or the lack of it, is not what is wanted. */
export const handshakeFailure: Uint8Array = new Uint8Array([21, 3, 3, 0, 2, 2, 40]);

/** Which end of a connection this is. */
export type Role = "opener" | "listener";

/** Somebody who waits for bytes. */
interface Reader {
  readonly target: Uint8Array<ArrayBufferLike>;
  filled: number;
  readonly done: PromiseWithResolvers<void>;
}

/** A link over `connection`, which belongs to it from then on. Its calls wait until both ends have shown who they are. */
export class TlsLink implements NamedLink {
  readonly #connection: Deno.TcpConn;
  /** Takes what TLS sends. */
  readonly #plain: PlainLink;
  readonly #wire: Duplex;
  readonly #socket: TLSSocket;
  readonly #proven: Promise<void>;
  readonly #secured = Promise.withResolvers<void>();
  #refusing = false;
  #handshaking = true;
  #pulling = false;
  #reader: Reader | undefined;
  /** What has come and nobody has read. */
  readonly #left: Uint8Array[] = [];
  #drained: (() => void) | undefined;
  #ended: Error | undefined;
  #binding = new Uint8Array(0);

  constructor(connection: Deno.TcpConn, peer: string, role: Role, identity: TlsIdentity) {
    this.#connection = connection;
    this.#plain = new PlainLink(connection, peer);
    this.#wire = new Duplex({
      read() {},
      write: (chunk: Uint8Array, _, done) => {
        this.#plain.write(chunk).then(() => {
          done();
          this.#drained?.();
        }, (error) => {
          this.#end(error);
          done();
        });
      },
    });
    const { certificate: cert, key, authority: ca } = identity;
    // What a certificate must fulfil is checked in #prove.
    const options = { cert, key, ca, minVersion: "TLSv1.3" as const, requestCert: true, rejectUnauthorized: false };
    this.#socket = role === "opener"
      ? connect({ ...options, socket: this.#wire, checkServerIdentity: () => undefined })
      : new TLSSocket(this.#wire, { ...options, isServer: true });
    this.#socket.once(role === "opener" ? "secureConnect" : "secure", () => {
      this.#handshaking = false;
      this.#secured.resolve();
    });
    this.#socket.on("data", (bytes: Uint8Array) => this.#receive(bytes));
    // Behind the handshake a `TLSSocket` that no `tls.Server` made tells errors by the second name only.
    for (const name of ["error", "_tlsError"]) this.#socket.on(name, (error: Error) => this.#refuse(role, error));
    this.#socket.on("end", () => this.#end(this.#cut()));
    // Who is refused is first told so.
    this.#socket.on("close", () => this.#refusing || this.#end(this.#broken("TLS does not take what came")));
    this.#wire.on("error", () => {});
    this.#secured.promise.catch(() => {});
    this.#pull();
    this.#proven = this.#prove(role, identity);
    this.#proven.catch((error) => this.#end(error));
  }

  get peer(): string {
    return this.#plain.peer;
  }

  set peer(name: string) {
    this.#plain.peer = name;
  }

  /** What only the two ends of this connection have. */
  get binding(): Uint8Array {
    return this.#binding;
  }

  async write(source: Uint8Array<ArrayBufferLike>): Promise<void> {
    await this.#proven;
    await this.#send(source);
  }

  async read(target: Uint8Array<ArrayBufferLike>): Promise<void> {
    await this.#proven;
    await this.#take(target);
  }

  proven(): void {
    this.#plain.proven();
  }

  close(): void {
    this.#end(new MachineError(`The connection to ${this.peer} was closed here`, { restartable: true }));
  }

  async #send(source: Uint8Array<ArrayBufferLike>): Promise<void> {
    for (let from = 0; from < source.length; from += pieceBytes) {
      if (this.#ended) throw this.#ended;
      this.#socket.write(source.subarray(from, from + pieceBytes));
      while (!this.#ended && this.#socket.writableLength + this.#wire.writableLength > 0) {
        await new Promise<void>((resolve) => this.#drained = resolve);
      }
    }
    if (this.#ended) throw this.#ended;
  }

  async #take(target: Uint8Array<ArrayBufferLike>): Promise<void> {
    const reader: Reader = { target, filled: 0, done: Promise.withResolvers() };
    while (this.#left.length > 0 && reader.filled < target.length) this.#fill(reader, this.#left.shift()!);
    if (reader.filled === target.length) return;
    if (this.#ended) throw this.#ended;
    this.#reader = reader;
    this.#pull();
    await reader.done.promise;
  }

  /** Gives bytes to a reader; what it has no room for waits for the next. */
  #fill(reader: Reader, bytes: Uint8Array): void {
    const count = Math.min(bytes.length, reader.target.length - reader.filled);
    reader.target.set(count < bytes.length ? bytes.subarray(0, count) : bytes, reader.filled);
    reader.filled += count;
    if (count < bytes.length) this.#left.unshift(bytes.subarray(count));
  }

  #receive(bytes: Uint8Array): void {
    const reader = this.#reader;
    if (!reader) {
      this.#left.push(bytes);
      return;
    }
    this.#fill(reader, bytes);
    if (reader.filled < reader.target.length) return;
    this.#reader = undefined;
    reader.done.resolve();
  }

  /** Gives TLS what comes, while somebody waits for it. */
  async #pull(): Promise<void> {
    if (this.#pulling) return;
    this.#pulling = true;
    try {
      const piece = new Uint8Array(pieceBytes);
      while (!this.#ended && (this.#handshaking || this.#reader)) {
        const count = await this.#connection.read(piece);
        if (count !== null) this.#wire.push(piece.slice(0, count));
        // What TLS makes of it comes behind this, a refusal too.
        await new Promise((resolve) => setImmediate(resolve));
        if (count === null) throw this.#cut();
      }
    } catch (error) {
      this.#end(error instanceof MachineError ? error : this.#broken(messageOf(error)));
    } finally {
      this.#pulling = false;
    }
  }

  /** Shows the peer this machine's certificate, and looks at the peer's. */
  async #prove(role: Role, { key, authority }: TlsIdentity): Promise<void> {
    await this.#secured.promise;
    const [sent, received] = [this.#socket.getFinished(), this.#socket.getPeerFinished()];
    if (!sent?.length || !received?.length) throw new MachineError("TLS tells nothing that binds to its connection");
    this.#binding = new Uint8Array(role === "opener" ? [...sent, ...received] : [...received, ...sent]);
    const said = (by: Role) => new Uint8Array([...new TextEncoder().encode(`Muster TLS ${by}\0`), ...this.#binding]);
    const raw = (this.#socket.getPeerCertificate() as { raw?: Uint8Array } | undefined)?.raw;
    const other = raw && new X509Certificate(raw);
    const fault = other ? faultOf(other, readCertificates(authority)) : "is missing";
    const refuse = async (reason: string) => {
      await this.#send(new Uint8Array(2)).catch(() => {});
      throw new UserError(`The certificate of ${this.peer} ${reason}`);
    };
    const show = async () => {
      const signature = sign(digestOf(key), said(role), key);
      await this.#send(new Uint8Array([signature.length >> 8, signature.length & 255, ...signature]));
    };
    const look = async () => {
      const header = new Uint8Array(2);
      await this.#take(header);
      const length = header[0] << 8 | header[1];
      if (length === 0) {
        throw new UserError(
          `${this.peer} does not accept this machine's certificate: do both have the same authority?`,
        );
      }
      if (length > signatureMost) throw new UserError(`${this.peer} does not speak Muster's protocol inside TLS`);
      const signature = new Uint8Array(length);
      await this.#take(signature);
      const digest = digestOf(other!.publicKey);
      const proven = verify(digest, said(role === "opener" ? "listener" : "opener"), other!.publicKey, signature);
      const reason = "is shown by one who does not have its key";
      if (!proven && role === "listener") await refuse(reason);
      // The listener has accepted this side, so nothing is left to say.
      if (!proven) throw new UserError(`The certificate of ${this.peer} ${reason}`);
    };
    if (fault !== undefined) await refuse(fault);
    if (role === "opener") await show();
    await look();
    if (role === "listener") await show();
  }

  #cut(): MachineError {
    if (this.#handshaking) {
      return new MachineError(`${this.peer} ended the connection before TLS was agreed; does it have --tls-cert too?`, {
        restartable: true,
      });
    }
    const reader = this.#reader;
    const when = reader ? `${reader.filled} of ${reader.target.length} bytes had come` : "more was to come";
    return new MachineError(`${this.peer} ended the connection when ${when}`, { restartable: true });
  }

  #broken(reason: string): MachineError {
    return new MachineError(`The connection to ${this.peer} broke: ${reason}`, { restartable: true });
  }

  /** Ends the link for what TLS does not take. */
  async #refuse(role: Role, error: Error): Promise<void> {
    if (!this.#handshaking) return this.#end(this.#broken(messageOf(error)));
    // An opener without TLS is told, as TLS itself would do, had it the time.
    this.#refusing = true;
    if (role === "listener") await this.#plain.write(handshakeFailure).catch(() => {});
    this.#end(
      new UserError(`${this.peer} does not speak TLS as this process does, or speaks none (${messageOf(error)})`),
    );
  }

  #end(error: Error): void {
    if (this.#ended) return;
    this.#ended = error;
    this.#plain.close();
    this.#socket.destroy();
    this.#wire.destroy();
    this.#secured.reject(error);
    this.#reader?.done.reject(error);
    this.#reader = undefined;
    this.#drained?.();
  }
}

/** The digest to sign with a key: Ed25519 and Ed448 have one of their own. */
function digestOf(key: string | ReturnType<typeof createPrivateKey>): "sha256" | null {
  const { asymmetricKeyType } = typeof key === "string" ? createPrivateKey(key) : key;
  return asymmetricKeyType?.startsWith("ed") ? null : "sha256";
}
