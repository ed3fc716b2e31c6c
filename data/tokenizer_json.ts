/**
 * Hugging Face's `tokenizer.json`, in and out, for byte-level byte-pair models: GPT-2's own, those of Llama 3 and Qwen,
 * and what Muster trains.
 * @module
 */

import { UserError } from "../errors.ts";
import { type BytePairModel, compilePattern, gpt2Pattern } from "./byte_pair.ts";

/** A special token: never made from plain text. */
export interface SpecialToken {
  readonly id: number;
  readonly content: string;
}

/** GPT-2's printable stand-ins for bytes: 188 characters stand for themselves, the others are 256, 257, … */
const characters: readonly string[] = (() => {
  const own = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(own(byte) ? byte : next++));
})();
const bytesOfCharacter = new Map(characters.map((character, byte) => [character, byte]));

function toCharacters(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => characters[byte]).join("");
}

function toBytes(text: string): Uint8Array | undefined {
  const bytes = new Uint8Array(text.length);
  let length = 0;
  for (const character of text) {
    const byte = bytesOfCharacter.get(character);
    if (byte === undefined) return undefined;
    bytes[length++] = byte;
  }
  return bytes.subarray(0, length);
}

/** The `tokenizer.json` of a model cut by GPT-2's pattern. */
export function writeTokenizerJson(model: BytePairModel, specials: readonly SpecialToken[]): string {
  const vocab: Record<string, number> = {};
  model.bytes.forEach((bytes, id) => {
    if (bytes) vocab[toCharacters(bytes)] = id;
  });
  for (const { id, content } of specials) vocab[content] = id;
  const text = (id: number) => toCharacters(model.bytes[id]!);
  return JSON.stringify({
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: specials.map(({ id, content }) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: model.ignoreMerges,
      vocab,
      merges: model.merges.map(([left, right]) => [text(left), text(right)]),
    },
  });
}

type Json = Record<string, unknown>;

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function patternOf(source: string, where: string): RegExp {
  try {
    return compilePattern(source);
  } catch (error) {
    throw new UserError(`${where}: its pattern ${JSON.stringify(source)} cannot be used (${(error as Error).message})`);
  }
}

/** Patterns of a pre-tokenizer, or undefined where it is of a kind that byte-level models do not have. */
function patternsOf(pre: unknown, where: string): RegExp[] | undefined {
  const list = isObject(pre) && pre.type === "Sequence" && Array.isArray(pre.pretokenizers) ? pre.pretokenizers : [pre];
  const patterns: RegExp[] = [];
  let byteLevel = false;
  for (const item of list) {
    if (!isObject(item)) return undefined;
    if (item.type === "ByteLevel") {
      if (item.add_prefix_space === true) return undefined;
      byteLevel = true;
      if (item.use_regex !== false) patterns.push(gpt2Pattern);
    } else if (
      item.type === "Split" && item.behavior === "Isolated" && item.invert !== true && isObject(item.pattern)
    ) {
      const { Regex, String: text } = item.pattern;
      if (typeof Regex === "string") patterns.push(patternOf(Regex, where));
      else if (typeof text === "string") {
        patterns.push(patternOf(text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), where));
      } else return undefined;
    } else if (item.type === "Digits") {
      patterns.push(item.individual_digits === true ? /\p{N}/gu : /\p{N}+/gu);
    } else return undefined;
  }
  return byteLevel ? patterns : undefined;
}

/** What was read. */
export interface ReadTokenizer {
  readonly model: BytePairModel;
  readonly specials: readonly SpecialToken[];
}

/** Parses and checks the outer form. */
export function parseTokenizerJson(text: string, where: string): Json {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw new UserError(`${where} is no JSON (${(error as Error).message})`);
  }
  if (!isObject(parsed) || !isObject(parsed.model)) {
    throw new UserError(`${where} is no tokenizer.json: it has no model`);
  }
  return parsed;
}

/**
 * Reads a byte-level byte-pair model, or returns undefined for a tokenizer of another kind. The post-processor (which
 * adds tokens before a text) is not applied: a corpus is a stream.
 */
export function readBytePair(json: Json, where: string): ReadTokenizer | undefined {
  const model = json.model as Json;
  const patterns = patternsOf(json.pre_tokenizer, where);
  const plain = model.type === "BPE" && json.normalizer == null && patterns && !model.continuing_subword_prefix &&
    !model.end_of_word_suffix && model.byte_fallback !== true;
  if (!plain) return undefined;
  const { vocab, merges } = model;
  if (!isObject(vocab) || !Array.isArray(merges)) throw new UserError(`${where}: its model has no vocab or no merges`);
  const specials: SpecialToken[] = [];
  for (const added of Array.isArray(json.added_tokens) ? json.added_tokens : []) {
    if (!isObject(added) || typeof added.content !== "string" || !Number.isSafeInteger(added.id)) {
      throw new UserError(`${where}: an added token has no id or no content`);
    }
    specials.push({ id: added.id as number, content: added.content });
  }
  const special = new Set(specials.map(({ content }) => content));
  const ids = [...Object.values(vocab), ...specials.map(({ id }) => id)];
  const size = ids.reduce((max: number, id) => Math.max(max, Number(id)), -1) + 1;
  if (!ids.every((id) => Number.isSafeInteger(id) && (id as number) >= 0) || size > 2 ** 24) {
    throw new UserError(`${where}: an id of its vocabulary is no whole number below ${2 ** 24}`);
  }
  const bytes: (Uint8Array | undefined)[] = new Array(size).fill(undefined);
  for (const [token, id] of Object.entries(vocab)) {
    if (special.has(token)) continue;
    const own = toBytes(token);
    if (!own) throw new UserError(`${where}: token ${JSON.stringify(token)} is no sequence of bytes`);
    if (bytes[id as number]) throw new UserError(`${where}: two tokens have the id ${id}`);
    bytes[id as number] = own;
  }
  const idOf = (token: string, merge: unknown): number => {
    const id = Object.hasOwn(vocab, token) ? vocab[token] : undefined;
    if (typeof id !== "number") {
      throw new UserError(
        `${where}: the merge ${JSON.stringify(merge)} names ${JSON.stringify(token)}, which is no token`,
      );
    }
    return id;
  };
  return {
    specials,
    model: {
      bytes,
      byteIds: characters.map((character) => idOf(character, "of bytes")),
      merges: merges.map((merge: unknown) => {
        const pair = typeof merge === "string" ? merge.split(" ") : merge;
        if (!Array.isArray(pair) || pair.length !== 2 || !pair.every((part) => typeof part === "string")) {
          throw new UserError(`${where}: ${JSON.stringify(merge)} is no merge of two tokens`);
        }
        const [left, right] = pair as string[];
        return [idOf(left, merge), idOf(right, merge), idOf(left + right, merge)] as const;
      }),
      patterns,
      ignoreMerges: model.ignore_merges === true,
    },
  };
}
