/**
 * Text from a checkpoint, token by token.
 * @module
 */

import { loadTokenizer, streamDecoder, type Tokenizer } from "../data/tokenizer.ts";
import { UserError } from "../errors.ts";
import { openCheckpoint } from "./checkpoint.ts";
import { type CompileProgress, generateTokens } from "./generate_tokens.ts";
import type { GenerationMesh } from "./generation_job.ts";
import type { SamplingOptions } from "./sampling.ts";

/** How to generate. */
export interface GenerateAllOptions extends Partial<SamplingOptions>, GenerationMesh {
  /** Checkpoint, run, or Hugging Face folder. */
  readonly checkpoint: string;
  /** Texts to go on from. */
  readonly prompts: readonly string[];
  /** Tokens to add to each. */
  readonly tokens: number;
  /** Of the choices; 1337 if left out. What is chosen depends on it and the index of the prompt, not on the ranks. */
  readonly seed?: number;
  /** Told of text as it comes, and of which prompt it belongs to; the prompt is not repeated. */
  readonly onText?: (text: string, index: number) => void;
  /** Told of each text that is finished. */
  readonly onFinished?: (generated: Generated, index: number) => void;
  /** Told of kernels that are compiled before the first token. */
  readonly onCompile?: (progress: CompileProgress) => void;
  /** Told in words what goes wrong while it may still go on. */
  readonly onMessage?: (message: string) => void;
  /** Ends the texts early. */
  readonly signal?: AbortSignal;
}

/** What to generate from one prompt. */
export interface GenerateOptions extends Omit<GenerateAllOptions, "prompts"> {
  /** Text to go on from. */
  readonly prompt: string;
}

/** What was generated. */
export interface Generated {
  /** The text behind the prompt. */
  readonly text: string;
  /** Tokens made. */
  readonly tokens: number;
  /** Tokens of the prompt that the model read: its last ones, where it has more than positions. */
  readonly promptTokens: number;
  /** Time from the prompt going in to the first new token; absent if there was none. */
  readonly firstTokenMilliseconds: number | undefined;
  /** Tokens of the prompt in that time. */
  readonly prefillTokensPerSecond: number | undefined;
  /** New tokens behind the first, in the time since it; absent if there were none. */
  readonly decodeTokensPerSecond: number | undefined;
  /** Time from the prompt going in to the last new token. */
  readonly seconds: number;
  /** False if it was ended early. */
  readonly finished: boolean;
}

/** What was generated from several prompts. */
export interface GeneratedTexts {
  /** By prompt. */
  readonly texts: readonly Generated[];
  /** Time from the first token going in to the last new one of all. */
  readonly seconds: number;
}

/** A text that grows. */
class GrowingText {
  text = "";
  tokens = 0;
  finished = false;
  #begun: number | undefined;
  #first: number | undefined;
  #last = 0;
  readonly #decoder: ReturnType<typeof streamDecoder>;

  constructor(readonly tokenizer: Tokenizer, readonly promptTokens: number, readonly emit: (piece: string) => void) {
    this.#decoder = streamDecoder(tokenizer);
  }

  begin(at: number): void {
    this.#begun = at;
  }

  push(token: number, at: number): void {
    this.#last = at;
    this.#first ??= at;
    this.tokens++;
    if (token !== this.tokenizer.endOfText) this.#add(this.#decoder.push(token));
  }

  #add(piece: string): void {
    this.text += piece;
    if (piece) this.emit(piece);
  }

  /** No token follows. */
  end(): void {
    this.#add(this.#decoder.flush());
  }

  get result(): Generated {
    const { text, tokens, promptTokens, finished } = this;
    const begun = this.#begun ?? this.#last;
    const firstTokenMilliseconds = this.#first === undefined ? undefined : this.#first - begun;
    return {
      text,
      tokens,
      promptTokens,
      firstTokenMilliseconds,
      prefillTokensPerSecond: firstTokenMilliseconds && promptTokens / firstTokenMilliseconds * 1e3,
      decodeTokensPerSecond: tokens > 1 ? (tokens - 1) / (this.#last - this.#first!) * 1e3 : undefined,
      seconds: tokens === 0 ? 0 : (this.#last - begun) / 1e3,
      finished,
    };
  }
}

/** Ids of prompts; an empty one begins as a document does. */
function encodeAll(prompts: readonly string[], tokenizer: Tokenizer, vocabularySize: number): number[][] {
  return prompts.map((prompt, i) => {
    const ids = Array.from(tokenizer.encode(prompt));
    if (ids.length === 0) ids.push(tokenizer.endOfText ?? Array.from(tokenizer.encode("\n"))[0]);
    const unknown = ids.find((id) => id >= vocabularySize);
    if (unknown !== undefined) {
      const which = prompts.length === 1 ? "The prompt" : `Prompt ${i + 1}`;
      throw new UserError(`${which} has token ${unknown}, which the model does not know`);
    }
    return ids;
  });
}

/**
 * Goes on from all prompts, several at once where the model is cut into pipeline stages. Where the model's positions run
 * out, the last half of the text is read anew. Rejects with `UserError` or `MachineError`.
 */
export async function generateAll(options: GenerateAllOptions): Promise<GeneratedTexts> {
  const { prompts, tokens, seed = 1337, onText, onFinished, onCompile, onMessage, signal } = options;
  if (prompts.length === 0) return { texts: [], seconds: 0 };
  const sampling = { temperature: options.temperature ?? 0.8, topK: options.topK ?? 0, topP: options.topP ?? 1 };
  const checkpoint = await openCheckpoint(options.checkpoint);
  checkpoint.close();
  const { configuration, folder } = checkpoint;
  const tokenizer = await loadTokenizer(folder);
  const ids = encodeAll(prompts, tokenizer, configuration.vocabularySize);
  const texts = ids.map(({ length }, i) => {
    const read = Math.min(length, configuration.maximumSequenceLength);
    return new GrowingText(tokenizer, read, (piece) => onText?.(piece, i));
  });
  // Only plain data goes to the ranks.
  const { pp, tp, devices, stallTimeout } = options;
  const request = {
    pp,
    tp,
    devices,
    stallTimeout,
    folder,
    configuration,
    prompts: ids,
    tokens,
    endOfText: tokenizer.endOfText,
    choices: Math.min(configuration.vocabularySize, tokenizer.vocabularySize),
    sampling,
    seed,
  };
  let begun = Infinity;
  let ended = -Infinity;
  await generateTokens(request, {
    onBegin(index, at) {
      begun = Math.min(begun, at);
      texts[index].begin(at);
    },
    onToken(index, token, last, at) {
      ended = at;
      const text = texts[index];
      text.push(token, at);
      if (!last) return;
      text.finished = true;
      text.end();
      onFinished?.(text.result, index);
    },
    ...(onCompile ? { onCompile } : {}),
    ...(onMessage ? { onMessage } : {}),
    signal,
  });
  for (const text of texts) if (!text.finished) text.end();
  return { texts: texts.map(({ result }) => result), seconds: Math.max(0, ended - begun) / 1e3 };
}

/** Goes on from one prompt. */
export async function generate({ prompt, ...options }: GenerateOptions): Promise<Generated> {
  return (await generateAll({ ...options, prompts: [prompt] })).texts[0];
}
