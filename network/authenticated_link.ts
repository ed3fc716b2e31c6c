/**
 * A link whose bytes travel in frames that are numbered and authenticated. What is read is what the peer wrote, all of
 * it, once and in order; whatever else comes ends the link. Bytes are not hidden: who listens on the wire can read them.
 * What is being written must not change meanwhile: it would not match its tag any more.
 *
 * A frame is its length (4 bytes, big-endian), its tag (16) and its bytes. The tag is that of ChaCha20-Poly1305
 * (RFC 8439) with nothing to encrypt and the bytes as additional data, under a key for this connection and direction and
 * the frame's number as nonce. Numbers are not sent: a frame that is repeated, left out or moved meets another number
 * than it was made for. Poly1305 counts the length in.
 *
 * GB/s for 64 KiB and 1 MiB, one core with AES, SHA and AVX-512 instructions, Deno 2.9.6: ChaCha20-Poly1305 of
 * node:crypto 3.5 and 3.8; HMAC-SHA-256 of WebCrypto 1.6 and 2.1, of node:crypto 1.0 and 1.4; AES-128-GCM as GMAC of
 * WebCrypto 0.9 and 1.7, of node:crypto 0.6 and 0.6; BLAKE2b 1.0 and 1.5. (`bench/links.ts` measures whole links.)
 * @module
 */

import { createCipheriv, timingSafeEqual } from "node:crypto";
import { MachineError } from "../errors.ts";
import type { NamedLink } from "./plain_link.ts";

/** Most bytes of a frame. */
const frameBytes = 1 << 20;
/** Frames of up to as many bytes are sent with their header in one piece. */
const joinedBytes = 1 << 14;
const tagBytes = 16;
const headerBytes = 4 + tagBytes;

/** Keys of one connection, 32 bytes each. They must never have been used before. */
export interface LinkKeys {
  readonly sending: Uint8Array;
  readonly receiving: Uint8Array;
}

/** Makes the tags of one direction, each under the next number. */
function tagger(key: Uint8Array): (bytes: Uint8Array<ArrayBufferLike>) => Uint8Array {
  const nonce = new Uint8Array(12);
  const words = new DataView(nonce.buffer);
  let number = 0n;
  return (bytes) => {
    // A nonce never comes twice: 2⁶⁴ frames, at which it would begin anew, take longer than any machine lasts.
    words.setBigUint64(4, number++);
    const cipher = createCipheriv("chacha20-poly1305", key, nonce, { authTagLength: tagBytes });
    cipher.setAAD(bytes, { plaintextLength: 0 });
    cipher.final();
    return cipher.getAuthTag();
  };
}

/** Frames over `inner`, which belongs to it from then on. */
export class AuthenticatedLink implements NamedLink {
  readonly #inner: NamedLink;
  readonly #tagSent: ReturnType<typeof tagger>;
  readonly #tagExpected: ReturnType<typeof tagger>;
  readonly #outgoing = new Uint8Array(headerBytes + joinedBytes);
  readonly #incoming = new Uint8Array(headerBytes);
  /** Holds a frame that does not fit into the reader's target. */
  #frame = new Uint8Array(0);
  /** Proven bytes of that frame that nobody has read yet. */
  #left: Uint8Array<ArrayBufferLike> = new Uint8Array(0);
  /** Why the link has ended. */
  #broken: Error | undefined;

  constructor(inner: NamedLink, keys: LinkKeys) {
    this.#inner = inner;
    this.#tagSent = tagger(keys.sending);
    this.#tagExpected = tagger(keys.receiving);
  }

  get peer(): string {
    return this.#inner.peer;
  }

  set peer(name: string) {
    this.#inner.peer = name;
  }

  async write(source: Uint8Array<ArrayBufferLike>): Promise<void> {
    try {
      for (let from = 0; from < source.length; from += frameBytes) {
        if (this.#broken) throw this.#broken;
        const bytes = source.subarray(from, from + frameBytes);
        new DataView(this.#outgoing.buffer).setUint32(0, bytes.length);
        this.#outgoing.set(this.#tagSent(bytes), 4);
        if (bytes.length <= joinedBytes) {
          this.#outgoing.set(bytes, headerBytes);
          await this.#inner.write(this.#outgoing.subarray(0, headerBytes + bytes.length));
        } else {
          await this.#inner.write(this.#outgoing.subarray(0, headerBytes));
          await this.#inner.write(bytes);
        }
      }
    } catch (error) {
      this.#end(error);
    }
  }

  async read(target: Uint8Array<ArrayBufferLike>): Promise<void> {
    try {
      let filled = 0;
      while (filled < target.length) {
        if (this.#broken) throw this.#broken;
        if (this.#left.length === 0) filled += await this.#receive(target.subarray(filled));
        const count = Math.min(this.#left.length, target.length - filled);
        target.set(this.#left.subarray(0, count), filled);
        this.#left = this.#left.subarray(count);
        filled += count;
      }
    } catch (error) {
      this.#end(error);
    }
  }

  close(): void {
    this.#inner.close();
  }

  /** Takes in the next frame, right into `target` if it has room, and gives the bytes put there. */
  async #receive(target: Uint8Array<ArrayBufferLike>): Promise<number> {
    await this.#inner.read(this.#incoming);
    const length = new DataView(this.#incoming.buffer).getUint32(0);
    if (length === 0 || length > frameBytes) {
      throw new MachineError(
        `A frame of ${length} bytes came from ${this.peer}, which none may have: the link is ended`,
      );
    }
    const direct = length <= target.length;
    if (!direct && this.#frame.length < length) this.#frame = new Uint8Array(length);
    const bytes = (direct ? target : this.#frame).subarray(0, length);
    await this.#inner.read(bytes);
    if (!timingSafeEqual(this.#tagExpected(bytes), this.#incoming.subarray(4))) {
      throw new MachineError(
        `A frame from ${this.peer} was changed, repeated or moved on its way: the link is ended`,
        { restartable: true },
      );
    }
    if (!direct) this.#left = bytes;
    return direct ? length : 0;
  }

  #end(error: unknown): never {
    this.#broken ??= error as Error;
    this.#inner.close();
    throw error;
  }
}
