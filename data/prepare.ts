/**
 * Turns a corpus into a folder of tokens: `train.bin`, `validation.bin`, `dataset.json` and the tokenizer's files.
 * @module
 */

import { createHash } from "node:crypto";
import { hasCode, MachineError, messageOf, UserError } from "../errors.ts";
import { countWords, trainBytePair } from "./byte_pair_training.ts";
import { corpusFiles, readDocuments } from "./corpus.ts";
import { hashFile, tokenBytes, TokenWriter } from "./token_file.ts";
import { bytePairTokenizer, loadTokenizer, type Tokenizer } from "./tokenizer.ts";

/** What to prepare. */
export interface PrepareOptions {
  /** Text files, folders, JSON lines, Parquet. */
  readonly inputs: readonly string[];
  /** Folder to make. */
  readonly output: string;
  /** `byte`, `gpt2`, a `tokenizer.json` or its folder. */
  readonly tokenizer?: string;
  /** Train a byte-pair tokenizer of this many ids on the corpus instead. */
  readonly trainVocabulary?: number;
  /** Share of the tokens kept for validation. */
  readonly validationFraction?: number;
  /** Chooses the documents for validation. */
  readonly seed?: number;
  /** Field of JSON lines or column of Parquet with the text; `text` if left out. */
  readonly textField?: string;
  /** Replace the output folder. */
  readonly force?: boolean;
  /** Told now and then, in words. */
  readonly onProgress?: (message: string) => void;
}

/** What `dataset.json` says. */
export interface DatasetDescription {
  /** Version of this form. */
  readonly format: 1;
  /** Bytes of a token in the .bin files, little-endian. */
  readonly tokenBytes: 2 | 4;
  /** Ids are below this. */
  readonly vocabularySize: number;
  /** Name of the tokenizer. */
  readonly tokenizer: string;
  /** Id behind each document. */
  readonly endOfText: number | null;
  /** Documents read. */
  readonly documents: number;
  /** Length and hash of train.bin. */
  readonly train: { readonly tokens: number; readonly sha256: string };
  /** Length and hash of validation.bin. */
  readonly validation: { readonly tokens: number; readonly sha256: string };
  /** Names of the files read. */
  readonly sources: readonly string[];
}

async function chooseTokenizer(options: PrepareOptions, files: readonly string[]): Promise<Tokenizer> {
  const { trainVocabulary, onProgress, textField = "text" } = options;
  if (trainVocabulary === undefined) return await loadTokenizer(options.tokenizer ?? "byte");
  async function* texts() {
    for await (const { text } of readDocuments(files, { textField })) yield text;
  }
  onProgress?.("counting words");
  const model = trainBytePair(await countWords(texts()), {
    vocabularySize: trainVocabulary,
    onProgress: (done, total) => done % 500 === 0 && onProgress?.(`learnt ${done} of ${total} merges`),
  });
  const endOfText = { id: model.bytes.length - 1, content: "<|endoftext|>" };
  return bytePairTokenizer(`byte-pair-${model.bytes.length}`, model, [endOfText]);
}

/** True for a document that goes to validation: a function of seed and index. */
function isValidation(seed: number, index: number, fraction: number): boolean {
  const digest = createHash("sha256").update(`${seed}:${index}`).digest();
  return digest.readUInt32LE(0) / 2 ** 32 < fraction;
}

/** Moves tokens from the end of one part to the other where whole documents gave too uneven a split. */
function balance(train: TokenWriter, validation: TokenWriter, fraction: number): void {
  const wanted = Math.round((train.length + validation.length) * fraction);
  if (validation.length < wanted / 2) train.moveTail(wanted - validation.length, validation);
  else if (validation.length > 2 * wanted) validation.moveTail(validation.length - wanted, train);
}

/** Prepares a corpus. The folder appears whole or not at all. */
export async function prepare(options: PrepareOptions): Promise<DatasetDescription> {
  const { inputs, output, validationFraction = 0.1, seed = 1337, textField = "text", force, onProgress } = options;
  if (!(validationFraction >= 0 && validationFraction < 1)) {
    throw new UserError(`The validation fraction is ${validationFraction}, but must be at least 0 and below 1`);
  }
  if (!force && folderHasFiles(output)) {
    throw new UserError(`${output} exists and is not empty: choose another --out, or --force to replace it`);
  }
  const files = corpusFiles(inputs);
  const tokenizer = await chooseTokenizer(options, files);
  const temporary = `${output.replace(/\/+$/, "")}.${crypto.randomUUID().slice(0, 8)}.tmp`;
  try {
    Deno.mkdirSync(temporary, { recursive: true });
    const bytes = tokenBytes(tokenizer.vocabularySize);
    const train = new TokenWriter(`${temporary}/train.bin`, bytes);
    const validation = new TokenWriter(`${temporary}/validation.bin`, bytes);
    let documents = 0;
    let reported = performance.now();
    try {
      for await (const { text, last } of readDocuments(files, { textField })) {
        const part = isValidation(seed, documents, validationFraction) ? validation : train;
        part.write(tokenizer.encode(text));
        if (last) {
          documents++;
          if (tokenizer.endOfText !== undefined) part.push(tokenizer.endOfText);
        }
        if (performance.now() - reported > 1000) {
          reported = performance.now();
          onProgress?.(`${documents} documents, ${train.length + validation.length} tokens`);
        }
      }
      balance(train, validation, validationFraction);
    } finally {
      train.close();
      validation.close();
    }
    const description: DatasetDescription = {
      format: 1,
      tokenBytes: bytes,
      vocabularySize: tokenizer.vocabularySize,
      tokenizer: tokenizer.name,
      endOfText: tokenizer.endOfText ?? null,
      documents,
      train: { tokens: train.length, sha256: await hashFile(train.path) },
      validation: { tokens: validation.length, sha256: await hashFile(validation.path) },
      sources: files.map((file) => file.split("/").pop()!),
    };
    const texts = { ...tokenizer.files(), "dataset.json": JSON.stringify(description, null, 2) };
    for (const [name, text] of Object.entries(texts)) writeFlushed(`${temporary}/${name}`, text);
    replaceFolder(temporary, output);
    return description;
  } catch (error) {
    removeQuietly(temporary);
    if (error instanceof UserError) throw error;
    const reason = hasCode(error, "ENOSPC") ? "the disk is full" : messageOf(error);
    throw new MachineError(`Cannot prepare ${output}: ${reason}; nothing was left behind`);
  }
}

function writeFlushed(path: string, text: string): void {
  const bytes = new TextEncoder().encode(text);
  using file = Deno.openSync(path, { write: true, create: true });
  for (let done = 0; done < bytes.length;) done += file.writeSync(bytes.subarray(done));
  file.syncSync();
}

/** Puts a finished folder in its place; what was there is moved aside first, so that one of the two is always whole. */
function replaceFolder(temporary: string, output: string): void {
  const old = `${temporary}.old`;
  const replaced = folderHasFiles(output);
  if (replaced) Deno.renameSync(output, old);
  try {
    Deno.renameSync(temporary, output);
  } catch (error) {
    if (replaced) Deno.renameSync(old, output);
    throw error;
  }
  if (replaced) removeQuietly(old);
}

function folderHasFiles(path: string): boolean {
  try {
    return !Deno.readDirSync(path)[Symbol.iterator]().next().done;
  } catch (error) {
    if (error instanceof Deno.errors.NotADirectory) throw new UserError(`${path} is a file, not a folder`);
    return false;
  }
}

function removeQuietly(path: string): void {
  try {
    Deno.removeSync(path, { recursive: true });
  } catch {
    // It was never made, or is already gone.
  }
}
