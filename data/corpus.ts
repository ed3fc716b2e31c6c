/**
 * Documents out of text files, folders, JSON lines and Parquet, as a stream: a corpus may be larger than memory.
 * @module
 */

import { messageOf, UserError } from "../errors.ts";

/** A piece of a document. Pieces end where a tokenizer may cut: before white space, or at the end. */
export interface Piece {
  readonly text: string;
  /** True for the last piece of a document. */
  readonly last: boolean;
}

/** How to read. */
export interface CorpusOptions {
  /** Field of JSON lines, or column of Parquet, that holds the text. */
  readonly textField: string;
}

const textEndings = [".txt", ".text", ".md", ".rst", ".csv", ".tsv", ".html", ".tex"];
const lineEndings = [".jsonl", ".ndjson", ".jsonlines"];
/** Characters without the beginning of a word that are still taken as one. */
const longestWord = 1_000_000;
/** Characters that a line of JSON may have. */
const longestLine = 256 * 2 ** 20;
/** Bytes read at a time. */
const blockBytes = 4 * 2 ** 20;

/** Files of a corpus: a folder stands for all text, JSON lines and Parquet files in it, in order of their names. */
export function corpusFiles(paths: readonly string[]): string[] {
  const files: string[] = [];
  const visit = (path: string) => {
    for (const entry of [...Deno.readDirSync(path)].sort((a, b) => a.name < b.name ? -1 : 1)) {
      const inner = `${path}/${entry.name}`;
      if (entry.name.startsWith(".")) continue;
      if (entry.isDirectory) visit(inner);
      else if (
        [...textEndings, ...lineEndings, ".parquet"].some((ending) => entry.name.toLowerCase().endsWith(ending))
      ) {
        files.push(inner);
      }
    }
  };
  for (const path of paths) {
    let info: Deno.FileInfo;
    try {
      info = Deno.statSync(path);
    } catch (error) {
      throw new UserError(
        `Cannot read the data ${path}: ${
          error instanceof Deno.errors.NotFound ? "there is no such file" : messageOf(error)
        }`,
      );
    }
    if (info.isDirectory) visit(path);
    else files.push(path);
  }
  if (files.length === 0) throw new UserError(`${paths.join(", ")} holds no text, JSON lines or Parquet file`);
  return files;
}

/** Reads all documents of files. An empty corpus is a `UserError`. */
export async function* readDocuments(files: readonly string[], options: CorpusOptions): AsyncGenerator<Piece> {
  let empty = true;
  for (const file of files) {
    const lower = file.toLowerCase();
    const pieces = lower.endsWith(".parquet")
      ? readParquet(file, options.textField)
      : lineEndings.some((ending) => lower.endsWith(ending))
      ? readJsonLines(file, options.textField)
      : readText(file);
    for await (const piece of pieces) {
      if (piece.text !== "") empty = false;
      yield piece;
    }
  }
  if (empty) throw new UserError(`The data ${files.join(", ")} is empty: there is no text in it`);
}

/** Decodes a file in blocks; UTF-8 is checked. */
async function* readBlocks(path: string): AsyncGenerator<string> {
  using file = await Deno.open(path);
  const decoder = new TextDecoder("utf-8", { fatal: true });
  const buffer = new Uint8Array(blockBytes);
  const decode = (bytes: Uint8Array | undefined) => {
    try {
      return decoder.decode(bytes, { stream: bytes !== undefined });
    } catch {
      throw new UserError(`${path} is not text in UTF-8`);
    }
  };
  for (let count = await file.read(buffer); count !== null; count = await file.read(buffer)) {
    yield decode(buffer.subarray(0, count));
  }
  yield decode(undefined);
}

async function* readText(path: string): AsyncGenerator<Piece> {
  let rest = "";
  for await (const block of readBlocks(path)) {
    rest += block;
    if (rest.length < blockBytes / 2) continue;
    // What begins a new word in every tokenizer's pattern; Llama 3's takes line ends behind punctuation along.
    let cut = rest.length - 1;
    const least = Math.max(0, rest.length - longestWord);
    while (cut > least && !/^(?:\S |[\p{L}\p{N}]\s)/u.test(rest.slice(cut - 1, cut + 1))) cut--;
    // No text has words of a million characters: what has none of its own ends is cut anywhere between characters.
    if (cut === least) cut = rest.length - 2;
    if (/[\udc00-\udfff]/.test(rest[cut])) cut--;
    yield { text: rest.slice(0, cut), last: false };
    rest = rest.slice(cut);
  }
  yield { text: rest, last: true };
}

async function* readJsonLines(path: string, field: string): AsyncGenerator<Piece> {
  let rest = "";
  let number = 0;
  const parse = (line: string): Piece | undefined => {
    number++;
    if (line.trim() === "") return undefined;
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch (error) {
      throw new UserError(`${path}, line ${number}, is no JSON (${messageOf(error)})`);
    }
    const text = typeof value === "object" && value !== null ? (value as Record<string, unknown>)[field] : undefined;
    if (typeof text !== "string") {
      const names = typeof value === "object" && value !== null ? Object.keys(value).join(", ") : "none";
      throw new UserError(
        `${path}, line ${number}, has no text in ${field}; its fields: ${names} (choose by --text-field)`,
      );
    }
    return { text, last: true };
  };
  for await (const block of readBlocks(path)) {
    const lines = (rest + block).split("\n");
    rest = lines.pop()!;
    if (rest.length > longestLine) {
      throw new UserError(`${path}, line ${number + lines.length + 1}, is longer than 256 MiB`);
    }
    for (const line of lines) {
      const piece = parse(line);
      if (piece) yield piece;
    }
  }
  const piece = parse(rest);
  if (piece) yield piece;
}

async function* readParquet(path: string, column: string): AsyncGenerator<Piece> {
  const { parquetMetadataAsync, parquetReadObjects, parquetSchema } = await import("hyparquet");
  const { compressors } = await import("hyparquet-compressors");
  using handle = await Deno.open(path);
  const { size } = await handle.stat();
  const file = {
    byteLength: size,
    slice(start: number, end = size): ArrayBuffer {
      const bytes = new Uint8Array(Math.min(end, size) - start);
      handle.seekSync(start, Deno.SeekMode.Start);
      for (let done = 0; done < bytes.length;) {
        const count = handle.readSync(bytes.subarray(done));
        if (count === null) throw new Error("the file ends early");
        done += count;
      }
      return bytes.buffer;
    },
  };
  const guarded = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      throw new UserError(`${path} is not a readable Parquet file (${messageOf(error)})`);
    }
  };
  const metadata = await guarded(() => parquetMetadataAsync(file));
  const columns = parquetSchema(metadata).children.map(({ element }) => element.name);
  if (!columns.includes(column)) {
    throw new UserError(`${path} has no column ${column}; its columns: ${columns.join(", ")} (choose by --text-field)`);
  }
  let rowStart = 0;
  for (const group of metadata.row_groups) {
    const rowEnd = rowStart + Number(group.num_rows);
    const rows = await guarded(() =>
      parquetReadObjects({ file, metadata, columns: [column], rowStart, rowEnd, compressors })
    );
    for (const row of rows) {
      const text = row[column];
      if (text == null) continue;
      if (typeof text !== "string") throw new UserError(`${path}: column ${column} holds no text but ${typeof text}`);
      yield { text, last: true };
    }
    rowStart = rowEnd;
  }
}
