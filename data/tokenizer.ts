/**
 * Tokenizers: bytes, GPT-2's, any Hugging Face `tokenizer.json`, or one trained on the corpus.
 * @module
 */

import { messageOf, UserError } from "../errors.ts";
import { bytePairEncoder, type BytePairModel, gpt2Pattern, latin1 } from "./byte_pair.ts";
import { parseTokenizerJson, readBytePair, type SpecialToken, writeTokenizerJson } from "./tokenizer_json.ts";

/** Text to ids and back. */
export interface Tokenizer {
  /** `byte`, `gpt2`, or where it was read from. */
  readonly name: string;
  /** Ids are below this. */
  readonly vocabularySize: number;
  /** The id put behind each document, if the vocabulary has one. */
  readonly endOfText: number | undefined;
  /** Ids of a text. Names of special tokens in it are plain text. */
  encode(text: string): ArrayLike<number>;
  /** The exact bytes of ids; special tokens have none. */
  decodeBytes(ids: Iterable<number>): Uint8Array;
  /** The text of ids; broken UTF-8 at the edges becomes U+FFFD. */
  decode(ids: Iterable<number>): string;
  /** Files of a Hugging Face folder by name. */
  files(): Record<string, string>;
}

const endOfTextNames = ["<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>"];

function concatenate(pieces: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}

/** A byte-level byte-pair tokenizer. `json` is its file, if it was read from one. */
export function bytePairTokenizer(
  name: string,
  model: BytePairModel,
  specials: readonly SpecialToken[],
  json?: string,
): Tokenizer {
  const end = endOfTextNames.map((content) => specials.find((special) => special.content === content)).find(Boolean);
  const decodeBytes = (ids: Iterable<number>) => concatenate([...ids].flatMap((id) => model.bytes[id] ?? []));
  return {
    name,
    vocabularySize: model.bytes.length,
    endOfText: end?.id,
    encode: bytePairEncoder(model),
    decodeBytes,
    decode: (ids) => new TextDecoder().decode(decodeBytes(ids)),
    files: () => ({
      "tokenizer.json": json ?? writeTokenizerJson(model, specials),
      "tokenizer_config.json": JSON.stringify(
        {
          tokenizer_class: "PreTrainedTokenizerFast",
          clean_up_tokenization_spaces: false,
          ...(end ? { eos_token: end.content } : {}),
        },
        null,
        2,
      ),
    }),
  };
}

/** One id per byte, 256 in all. As a `tokenizer.json` it is a byte-level model without merges. */
export function byteTokenizer(): Tokenizer {
  const model: BytePairModel = {
    bytes: Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte)),
    byteIds: Array.from({ length: 256 }, (_, byte) => byte),
    merges: [],
    patterns: [gpt2Pattern],
    ignoreMerges: false,
  };
  const utf8 = new TextEncoder();
  return {
    ...bytePairTokenizer("byte", model, []),
    encode: (text) => utf8.encode(text),
    decodeBytes: (ids) => Uint8Array.from(ids),
  };
}

/** GPT-2's tokenizer, 50,257 ids, from the ranks that the package gpt-tokenizer carries. */
export async function gpt2Tokenizer(): Promise<Tokenizer> {
  const { default: text } = await import("gpt-tokenizer/data/r50k_base.tiktoken", { with: { type: "text" } });
  const bytes = (text as string).split("\n").filter(Boolean).map((line) => {
    const [encoded] = line.split(" ");
    return Uint8Array.fromBase64(encoded);
  });
  const ids = new Map(bytes.map((token, id) => [latin1(token), id]));
  const byteIds = Array.from({ length: 256 }, (_, byte) => ids.get(String.fromCharCode(byte))!);
  const merges = bytes.flatMap((token, id): [number, number, number][] => {
    if (token.length === 1) return [];
    // The file gives whole tokens by rank: merging with lower ranks until two parts are left tells which two.
    let parts = Array.from(token, (byte) => String.fromCharCode(byte));
    while (parts.length > 2) {
      let best = id;
      let at = -1;
      for (let i = 0; i + 1 < parts.length; i++) {
        const rank = ids.get(parts[i] + parts[i + 1]);
        if (rank !== undefined && rank < best) [best, at] = [rank, i];
      }
      parts = [...parts.slice(0, at), parts[at] + parts[at + 1], ...parts.slice(at + 2)];
    }
    return [[ids.get(parts[0])!, ids.get(parts[1])!, id]];
  });
  const model = { bytes: [...bytes, undefined], byteIds, merges, patterns: [gpt2Pattern], ignoreMerges: false };
  return bytePairTokenizer("gpt2", model, [{ id: bytes.length, content: "<|endoftext|>" }]);
}

/** A tokenizer of another kind (Unigram, WordPiece, SentencePiece's byte-pair), by Hugging Face's own library. */
async function otherTokenizer(name: string, json: Record<string, unknown>, text: string): Promise<Tokenizer> {
  const { Tokenizer: Library } = await import("@huggingface/tokenizers");
  let library: InstanceType<typeof Library>;
  try {
    library = new Library(json, {});
    library.encode("a", { add_special_tokens: false });
  } catch (error) {
    throw new UserError(`${name}: this kind of tokenizer cannot be used (${messageOf(error)})`);
  }
  const model = json.model as { vocab?: unknown };
  const vocab = model.vocab;
  const added = (json.added_tokens ?? []) as { id: number; content: string }[];
  const listed = Array.isArray(vocab) ? vocab.length : Math.max(-1, ...Object.values(vocab ?? {}) as number[]) + 1;
  const end = endOfTextNames.map((content) => added.find((token) => token.content === content)).find(Boolean);
  const decode = (ids: Iterable<number>) =>
    library.decode([...ids], { skip_special_tokens: true, clean_up_tokenization_spaces: false });
  return {
    name,
    vocabularySize: added.reduce((max, { id }) => Math.max(max, id + 1), listed),
    endOfText: end?.id,
    encode: (piece) => library.encode(piece, { add_special_tokens: false }).ids,
    decode,
    decodeBytes: (ids) => new TextEncoder().encode(decode(ids)),
    files: () => ({ "tokenizer.json": text }),
  };
}

/** The tokenizer that a `tokenizer.json` describes. */
export async function tokenizerFromJson(name: string, text: string): Promise<Tokenizer> {
  const json = parseTokenizerJson(text, name);
  const read = readBytePair(json, name);
  if (!read) return await otherTokenizer(name, json, text);
  const { model, specials } = read;
  const bytes = model.merges.length === 0 && model.bytes.length === 256 &&
    model.byteIds.every((id, byte) => id === byte);
  return bytes ? byteTokenizer() : bytePairTokenizer(name, model, specials, text);
}

/** Loads `byte`, `gpt2`, a `tokenizer.json`, or the one in a folder. */
export async function loadTokenizer(spec: string): Promise<Tokenizer> {
  if (spec === "byte") return byteTokenizer();
  if (spec === "gpt2") return await gpt2Tokenizer();
  let path = spec;
  try {
    if (Deno.statSync(path).isDirectory) path = `${path}/tokenizer.json`;
    return await tokenizerFromJson(path, Deno.readTextFileSync(path));
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new UserError(`There is no tokenizer ${spec}: name byte, gpt2, a tokenizer.json or a folder that holds one`);
  }
}

/** Turns ids into text as they come, holding back bytes until a character is whole. */
export function streamDecoder(tokenizer: Tokenizer): { push(id: number): string; flush(): string } {
  const decoder = new TextDecoder();
  return {
    push: (id) => decoder.decode(tokenizer.decodeBytes([id]), { stream: true }),
    flush: () => decoder.decode(),
  };
}
