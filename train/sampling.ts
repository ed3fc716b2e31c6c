/**
 * The choice of the next token.
 * @module
 */

import { threefry2x32 } from "../graph/random.ts";

/** How to choose the next token. */
export interface SamplingOptions {
  /** 0: always the likeliest; 1: as the model says. */
  readonly temperature: number;
  /** Only the likeliest this many; 0: all. */
  readonly topK: number;
  /** Only the likeliest whose probabilities sum to this (Holtzman et al., nucleus sampling, 2020); 1: all. */
  readonly topP: number;
}

/** The draw, uniform in [0, 1), for the `made`-th new token of text `text`: a function of these and the seed alone. */
export function drawFor(seed: number, text: number, made: number): number {
  const [word] = threefry2x32(seed, 0x67656e, made, text);
  return word / 2 ** 32;
}

/** Picks a token from logits; `random` is uniform in [0, 1). */
export function sampleToken(logits: Float32Array, options: SamplingOptions, random: number): number {
  const { temperature, topK, topP } = options;
  let best = 0;
  for (let id = 1; id < logits.length; id++) if (logits[id] > logits[best]) best = id;
  if (temperature === 0) return best;
  let kept = Array.from(logits.keys());
  // Sorting a large vocabulary takes longer than a small model's token.
  if (topK > 0 || topP < 1) kept.sort((a, b) => logits[b] - logits[a] || a - b);
  if (topK > 0) kept = kept.slice(0, topK);
  const weights = kept.map((id) => Math.exp((logits[id] - logits[best]) / temperature));
  const total = weights.reduce((a, b) => a + b, 0);
  let count = topP < 1 ? 0 : kept.length;
  let sum = topP < 1 ? 0 : total;
  while (count < kept.length && (count === 0 || sum < topP * total)) sum += weights[count++];
  let left = random * sum;
  for (let i = 0; i < count; i++) {
    left -= weights[i];
    if (left < 0) return kept[i];
  }
  return kept[count - 1];
}
