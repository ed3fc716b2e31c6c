/**
 * The memory in which compressed sums of a group encode, decode and keep what is under way. Numbers go through a copy that
 * stays in the cache, which costs no more than to work on them where they are (measured).
 * @module
 */

import { blockLength, type Codec, codecOf, type Compression, formats } from "./gradient_codecs.ts";

/** Elements of a slice, of all chunks together: 128 Ki to 512 Ki take equally long on loopback among 2 and 4 members. */
const sliceLength = 128 * 1024;
/** Messages to or from a member that may be under way. With 2 to 5 times are equal, too. */
export const messagesUnderWay = 3;

/** Where messages to another member and from it lie, in bytes; used in turn. */
export interface Lane {
  readonly rank: number;
  readonly outgoing: readonly number[];
  readonly incoming: readonly number[];
}

/** Memory for sums in one format, which share it one after another. */
export class ExchangeMemory {
  /** Most blocks of a slice of one chunk; a message holds two slices at most. */
  readonly sliceBlocks: number;
  /** Bytes of an encoded block. */
  readonly blockBytes: number;
  /** A lane for each other member. */
  readonly lanes: readonly Lane[];
  readonly #bytes: Uint8Array;
  readonly #values: Float32Array;
  readonly #residual: Float32Array;
  readonly #codec: Codec;

  constructor(rank: number, size: number, compression: Compression) {
    this.sliceBlocks = Math.ceil(sliceLength / blockLength / size);
    this.blockBytes = formats[compression].blockBytes;
    let end = 0;
    const place = (bytes: number) => {
      const start = end;
      end += Math.ceil(bytes / 64) * 64;
      return start;
    };
    const [values, residual] = [0, 1].map(() => place(4 * blockLength * this.sliceBlocks));
    // Before each message there is room for a greeting.
    const messages = () =>
      Array.from({ length: messagesUnderWay }, () => place(64 + 2 * this.sliceBlocks * this.blockBytes) + 64);
    this.lanes = Array.from({ length: size }, (_, other) => other).filter((other) => other !== rank)
      .map((other) => ({ rank: other, outgoing: messages(), incoming: messages() }));
    const memory = new WebAssembly.Memory({ initial: Math.ceil(end / 65536) });
    this.#bytes = new Uint8Array(memory.buffer);
    this.#values = new Float32Array(memory.buffer, values, this.sliceBlocks * blockLength);
    this.#residual = new Float32Array(memory.buffer, residual, this.sliceBlocks * blockLength);
    this.#codec = codecOf(memory, compression);
  }

  /** Bytes of a message. */
  message(place: number, bytes: number): Uint8Array {
    return this.#bytes.subarray(place, place + bytes);
  }

  /** Repeats at `target` what is at `source`. */
  repeat(source: number, target: number, bytes: number): void {
    this.#bytes.copyWithin(target, source, source + bytes);
  }

  /** Takes numbers, at most a slice, as what is added to and encoded. */
  load(numbers: Float32Array): void {
    fill(this.#values, numbers);
  }

  /** Adds as many as were loaded, encoded at `source`. */
  add(source: number, length: number): void {
    this.#codec.add(source, this.#values.byteOffset, blocksOf(length));
  }

  /** Encodes what was loaded and added up into `target`; with feedback `residual`, of the same elements, is taken and given. */
  encode(target: number, length: number, residual?: Float32Array): void {
    if (residual !== undefined) fill(this.#residual, residual);
    this.#codec.encode(this.#values.byteOffset, this.#residual.byteOffset, target, blocksOf(length));
    residual?.set(this.#residual.subarray(0, length));
  }

  /** Decodes into `target` what is at `source`. */
  decode(source: number, target: Float32Array): void {
    this.#values.fill(0, 0, blocksOf(target.length) * blockLength);
    this.add(source, target.length);
    target.set(this.#values.subarray(0, target.length));
  }
}

/** Blocks of so many elements; the last one may not be full. */
export function blocksOf(length: number): number {
  return Math.ceil(length / blockLength);
}

/** Puts `numbers` at the beginning of `target`, and zeros behind up to a whole block. */
function fill(target: Float32Array, numbers: Float32Array): void {
  target.set(numbers);
  target.fill(0, numbers.length, blocksOf(numbers.length) * blockLength);
}
