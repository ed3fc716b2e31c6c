/**
 * Token files: flat little-endian u16 or u32, read in place.
 * @module
 */

import { createHash } from "node:crypto";
import { UserError } from "../errors.ts";

/** Bytes of a token: two where the vocabulary allows it. */
export function tokenBytes(vocabularySize: number): 2 | 4 {
  return vocabularySize <= 65536 ? 2 : 4;
}

/** Tokens that can be read at any place. */
export interface TokenSource {
  /** Number of tokens. */
  readonly length: number;
  /** Fills `target` with the tokens from `start` on. */
  read(start: number, target: Uint32Array): void;
  close(): void;
}

/** Opens a token file. Reading a token outside the vocabulary is a `UserError`. */
export function openTokens(path: string, bytes: 2 | 4, vocabularySize: number): TokenSource {
  let file: Deno.FsFile;
  try {
    file = Deno.openSync(path);
  } catch (error) {
    throw new UserError(`Cannot open the tokens ${path}: ${(error as Error).message}`);
  }
  const { size } = file.statSync();
  const length = size / bytes;
  if (!Number.isInteger(length)) {
    file.close();
    throw new UserError(`${path} has ${size} bytes, no multiple of ${bytes}: it is truncated`);
  }
  let buffer = new Uint8Array(4096);
  let numbers: Uint16Array | Uint32Array = new Uint32Array(0);
  return {
    length,
    close: () => file.close(),
    read(start, target) {
      const count = target.length * bytes;
      if (start < 0 || start + target.length > length) {
        throw new RangeError(`Tokens ${start} + ${target.length} of ${length}`);
      }
      if (buffer.length < count || numbers.length === 0) {
        buffer = new Uint8Array(Math.max(count, 4096));
        numbers = bytes === 2 ? new Uint16Array(buffer.buffer) : new Uint32Array(buffer.buffer);
      }
      file.seekSync(start * bytes, Deno.SeekMode.Start);
      for (let done = 0; done < count;) {
        const read = file.readSync(buffer.subarray(done, count));
        if (read === null) throw new UserError(`${path} ends early: was it changed while in use?`);
        done += read;
      }
      for (let i = 0; i < target.length; i++) {
        const token = numbers[i];
        if (token >= vocabularySize) {
          throw new UserError(
            `${path}: token ${token} at place ${start + i} is not in the vocabulary of ${vocabularySize}`,
          );
        }
        target[i] = token;
      }
    },
  };
}

/** Writes a token file piece by piece. */
export class TokenWriter {
  readonly #file: Deno.FsFile;
  readonly #buffer: Uint16Array | Uint32Array;
  #used = 0;
  /** Tokens written so far. */
  length = 0;

  /** @param path file to make @param bytes of a token */
  constructor(readonly path: string, readonly bytes: 2 | 4) {
    this.#file = Deno.openSync(path, { write: true, read: true, create: true, truncate: true });
    this.#buffer = bytes === 2 ? new Uint16Array(2 ** 20) : new Uint32Array(2 ** 20);
  }

  /** Appends one token. */
  push(token: number): void {
    this.#buffer[this.#used++] = token;
    this.length++;
    if (this.#used === this.#buffer.length) this.#flush();
  }

  /** Appends tokens. */
  write(tokens: ArrayLike<number>): void {
    for (let i = 0; i < tokens.length; i++) this.push(tokens[i]);
  }

  #flush(): void {
    const bytes = new Uint8Array(this.#buffer.buffer, 0, this.#used * this.bytes);
    for (let done = 0; done < bytes.length;) done += this.#file.writeSync(bytes.subarray(done));
    this.#used = 0;
  }

  /** Takes the last `count` tokens away and appends them to `other`. */
  moveTail(count: number, other: TokenWriter): void {
    this.#flush();
    const start = this.length - count;
    const piece = this.bytes === 2 ? new Uint16Array(2 ** 16) : new Uint32Array(2 ** 16);
    this.#file.seekSync(start * this.bytes, Deno.SeekMode.Start);
    for (let done = 0; done < count; done += piece.length) {
      const view = new Uint8Array(piece.buffer, 0, Math.min(piece.length, count - done) * this.bytes);
      for (let read = 0; read < view.length;) read += this.#file.readSync(view.subarray(read)) ?? view.length;
      other.write(piece.subarray(0, view.length / this.bytes));
    }
    this.#file.truncateSync(start * this.bytes);
    this.#file.seekSync(0, Deno.SeekMode.End);
    this.length = start;
  }

  /** Flushes to the disk and closes. */
  close(): void {
    this.#flush();
    this.#file.syncDataSync();
    this.#file.close();
  }
}

/** SHA-256 of a file, in hexadecimal. */
export async function hashFile(path: string): Promise<string> {
  const hash = createHash("sha256");
  using file = await Deno.open(path);
  const buffer = new Uint8Array(2 ** 20);
  for (let count = await file.read(buffer); count !== null; count = await file.read(buffer)) {
    hash.update(buffer.subarray(0, count));
  }
  return hash.digest("hex");
}
