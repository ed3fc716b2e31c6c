/**
 * Text from a checkpoint, token by token.
 * @module
 */

import { loadTokenizer, streamDecoder } from "../data/tokenizer.ts";
import { UserError } from "../errors.ts";
import { openDevice } from "../gpu/open.ts";
import { threefry2x32 } from "../graph/random.ts";
import { paddedVocabulary } from "../model/parameters.ts";
import { openCheckpoint } from "./checkpoint.ts";
import { ModelProgram } from "./model_program.ts";

/** How to choose the next token. */
export interface SamplingOptions {
  /** 0: always the likeliest; 1: as the model says. */
  readonly temperature: number;
  /** Only the likeliest this many; 0: all. */
  readonly topK: number;
  /** Only the likeliest whose probabilities sum to this (Holtzman et al., nucleus sampling, 2020); 1: all. */
  readonly topP: number;
}

/** What to generate. */
export interface GenerateOptions extends Partial<SamplingOptions> {
  /** Checkpoint, run, or Hugging Face folder. */
  readonly checkpoint: string;
  /** Text to go on from. */
  readonly prompt: string;
  /** Tokens to add. */
  readonly tokens: number;
  /** Of the choices; 1337 if left out. */
  readonly seed?: number;
  /** Told of text as it comes; the prompt is not repeated. */
  readonly onText?: (text: string) => void;
  /** Ends the text early. */
  readonly signal?: AbortSignal;
}

/** What was generated. */
export interface Generated {
  /** The text behind the prompt. */
  readonly text: string;
  /** Tokens made. */
  readonly tokens: number;
  /** Wall time from the first new token on. */
  readonly seconds: number;
}

/** Picks a token from logits; `random` is uniform in [0, 1). */
export function sampleToken(logits: Float32Array, options: SamplingOptions, random: number): number {
  const { temperature, topK, topP } = options;
  const order = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b);
  if (temperature === 0) return order[0];
  const kept = topK > 0 ? order.slice(0, topK) : order;
  const weights = kept.map((id) => Math.exp((logits[id] - logits[kept[0]]) / temperature));
  const total = weights.reduce((a, b) => a + b, 0);
  let count = 0;
  let sum = 0;
  while (count < kept.length && (count === 0 || sum < topP * total)) sum += weights[count++];
  let left = random * sum;
  for (let i = 0; i < count; i++) {
    left -= weights[i];
    if (left < 0) return kept[i];
  }
  return kept[count - 1];
}

/** Generates text. Where the model's positions run out, the last half of the text is read anew. */
export async function generate(options: GenerateOptions): Promise<Generated> {
  const { prompt, tokens, seed = 1337, onText, signal } = options;
  const sampling = { temperature: options.temperature ?? 0.8, topK: options.topK ?? 0, topP: options.topP ?? 1 };
  const checkpoint = await openCheckpoint(options.checkpoint);
  try {
    const { configuration } = checkpoint;
    const tokenizer = await loadTokenizer(checkpoint.folder);
    const ids = Array.from(tokenizer.encode(prompt));
    if (ids.length === 0) ids.push(tokenizer.endOfText ?? Array.from(tokenizer.encode("\n"))[0]);
    const unknown = ids.find((id) => id >= configuration.vocabularySize);
    if (unknown !== undefined) throw new UserError(`The prompt has token ${unknown}, which the model does not know`);
    const device = await openDevice();
    try {
      const model = await ModelProgram.create(device, {
        configuration,
        batch: 1,
        sequenceLength: 1,
        segments: ["decode"],
      });
      model.load(checkpoint.weights);
      const logits = new Float32Array(paddedVocabulary(configuration));
      const real = logits.subarray(0, Math.min(configuration.vocabularySize, tokenizer.vocabularySize));
      const decoder = streamDecoder(tokenizer);
      const limit = configuration.maximumSequenceLength;
      let text = "";
      const emit = (piece: string) => {
        text += piece;
        if (piece) onText?.(piece);
      };
      let start = performance.now();
      let first = Math.max(0, ids.length - limit);
      let position = 0;
      let made = 0;
      let settled = start;
      while (made < tokens && !signal?.aborted) {
        if (position === limit) {
          first += Math.ceil(limit / 2);
          position = 0;
        }
        await model.decode(ids[first + position], position, logits);
        position++;
        if (performance.now() - settled > 50) {
          await device.settle();
          settled = performance.now();
        }
        if (first + position < ids.length) continue;
        if (made === 0) start = performance.now();
        const [word] = threefry2x32(seed, 0x67656e, made, 0);
        const next = sampleToken(real, sampling, word / 2 ** 32);
        made++;
        if (next === tokenizer.endOfText) break;
        ids.push(next);
        emit(decoder.push(next));
      }
      emit(decoder.flush());
      model.destroy();
      return { text, tokens: made, seconds: (performance.now() - start) / 1e3 };
    } finally {
      await device.destroy();
    }
  } finally {
    checkpoint.close();
  }
}
