/**
 * Samples of a token file. Which tokens sample i has is a function of the seed and i alone: a run continues exactly where
 * it stopped, on however many devices.
 * @module
 */

import { UserError } from "../errors.ts";
import type { TokenSource } from "./token_file.ts";

/** A source of samples. */
export interface Loader {
  /** Samples in an epoch. */
  readonly samplesPerEpoch: number;
  /** Writes sample `index` at `offset`: `sequenceLength` tokens, and for each the token that follows it. */
  sample(index: number, tokens: Uint32Array, targets: Int32Array, offset: number): void;
}

/** Mixes 32 bits (the finisher of MurmurHash3). */
function mix(x: number): number {
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}

/**
 * A pseudo-random permutation of 0 … size-1, computed and not stored: a Feistel network of six rounds on the next even
 * number of bits, walked until it falls inside (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).
 */
export function permute(index: number, size: number, key: number): number {
  let half = 1;
  while (4 ** half < size) half++;
  const mask = 2 ** half - 1;
  let x = index;
  do {
    let left = Math.floor(x / 2 ** half);
    let right = x % 2 ** half;
    for (let round = 0; round < 6; round++) {
      const next =
        (left ^ (mix((right ^ Math.imul(key, 0x9e3779b1) ^ Math.imul(round + 1, 0x7f4a7c15)) | 0) & mask)) >>> 0;
      left = right;
      right = next;
    }
    x = left * 2 ** half + right;
  } while (x >= size);
  return x;
}

/** Checks that a part of the data has room for one sample. */
function requireLength(source: TokenSource, sequenceLength: number, part: string): void {
  if (source.length > sequenceLength) return;
  throw new UserError(
    `The ${part} data has ${source.length} tokens, too few for a sequence of ${sequenceLength} and its last target: ` +
      `use more text or a shorter --sequence-length`,
  );
}

function reader(source: TokenSource, sequenceLength: number) {
  const window = new Uint32Array(sequenceLength + 1);
  return (start: number, tokens: Uint32Array, targets: Int32Array, offset: number) => {
    source.read(start, window);
    for (let i = 0; i < sequenceLength; i++) {
      tokens[offset + i] = window[i];
      targets[offset + i] = window[i + 1];
    }
  };
}

/**
 * Training samples: each epoch takes the text in windows of `sequenceLength`, from a first place and in an order that the
 * seed and the epoch choose.
 */
export function createLoader(source: TokenSource, options: { sequenceLength: number; seed: number }): Loader {
  const { sequenceLength, seed } = options;
  requireLength(source, sequenceLength, "training");
  const read = reader(source, sequenceLength);
  // One window fewer than fit leaves room for the epoch's first place.
  const fitting = Math.floor((source.length - 1) / sequenceLength);
  const samplesPerEpoch = Math.max(1, fitting - 1);
  const slack = source.length - 1 - samplesPerEpoch * sequenceLength;
  return {
    samplesPerEpoch,
    sample(index, tokens, targets, offset) {
      const epoch = Math.floor(index / samplesPerEpoch);
      const key = mix(mix(seed | 0) ^ epoch);
      const phase = mix(key ^ 0x5bd1e995) % (Math.min(slack, sequenceLength) + 1);
      const window = permute(index % samplesPerEpoch, samplesPerEpoch, key);
      read(phase + window * sequenceLength, tokens, targets, offset);
    },
  };
}

/** Validation samples: `count` windows that do not overlap, spread evenly over the text, or all that there are. */
export function validationLoader(source: TokenSource, options: { sequenceLength: number; count: number }): Loader {
  const { sequenceLength } = options;
  requireLength(source, sequenceLength, "validation");
  const read = reader(source, sequenceLength);
  const fitting = Math.floor((source.length - 1) / sequenceLength);
  const samplesPerEpoch = Math.min(options.count, fitting);
  return {
    samplesPerEpoch,
    sample(index, tokens, targets, offset) {
      const window = Math.floor((index % samplesPerEpoch) * fitting / samplesPerEpoch);
      read(window * sequenceLength, tokens, targets, offset);
    },
  };
}
