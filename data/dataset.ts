/**
 * A prepared folder of tokens, opened; and the way from what the user names (a folder, a text file, a catalogue name)
 * to one.
 * @module
 */

import { createHash } from "node:crypto";
import { MachineError, messageOf, UserError } from "../errors.ts";
import { cacheFolder, catalogue, fetchDataset } from "./catalogue.ts";
import { corpusFiles } from "./corpus.ts";
import { type DatasetDescription, prepare } from "./prepare.ts";
import { nearest } from "./nearest.ts";
import { openTokens, type TokenSource } from "./token_file.ts";

/** An opened dataset. */
export interface Dataset {
  readonly folder: string;
  readonly description: DatasetDescription;
  readonly train: TokenSource;
  readonly validation: TokenSource;
  close(): void;
}

/** True if there is a file or folder of this name. */
export function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

function readDescription(folder: string): DatasetDescription {
  const path = `${folder}/dataset.json`;
  let parsed: Partial<DatasetDescription>;
  try {
    parsed = JSON.parse(Deno.readTextFileSync(path));
  } catch (error) {
    throw new UserError(`${path} cannot be read (${messageOf(error)}): prepare the data again`);
  }
  const whole = parsed?.format === 1 && (parsed.tokenBytes === 2 || parsed.tokenBytes === 4) &&
    Number.isSafeInteger(parsed.vocabularySize) && Number.isSafeInteger(parsed.train?.tokens) &&
    Number.isSafeInteger(parsed.validation?.tokens);
  if (!whole) throw new UserError(`${path} does not describe a dataset of format 1: prepare the data again`);
  return parsed as DatasetDescription;
}

/** Opens a prepared folder; its files must have the sizes that `dataset.json` states. */
export function openDataset(folder: string): Dataset {
  const description = readDescription(folder);
  const open = (name: "train" | "validation") => {
    const path = `${folder}/${name}.bin`;
    const source = openTokens(path, description.tokenBytes, description.vocabularySize);
    if (source.length !== description[name].tokens) {
      source.close();
      throw new UserError(
        `${path} has ${source.length} tokens instead of ${
          description[name].tokens
        }: it is truncated; prepare the data again`,
      );
    }
    return source;
  };
  const train = open("train");
  try {
    const validation = open("validation");
    const close = () => {
      train.close();
      validation.close();
    };
    return { folder, description, train, validation, close };
  } catch (error) {
    train.close();
    throw error;
  }
}

/** What tells one tokenizer from another: its name, or the text of its file. */
function tokenizerKey(spec: string): string {
  if (spec === "byte" || spec === "gpt2" || !exists(spec)) return spec;
  const path = Deno.statSync(spec).isDirectory ? `${spec}/tokenizer.json` : spec;
  return exists(path) ? Deno.readTextFileSync(path) : spec;
}

/**
 * The prepared folder for what the user named: a prepared folder itself, a text file, a folder of them, JSON lines or
 * Parquet (tokenized into the cache, once), or a name of the catalogue.
 */
export async function resolveData(
  spec: string,
  options: { readonly tokenizer: string; readonly onProgress?: (message: string) => void },
): Promise<string> {
  if (exists(`${spec}/dataset.json`)) return spec;
  const entry = catalogue.find(({ name }) => name === spec);
  if (!exists(spec) && !entry) {
    const near = nearest(spec, catalogue.map(({ name }) => name));
    throw new UserError(
      `There is no data ${spec}: name a text file, a folder, a prepared folder, or one of ` +
        `${catalogue.map(({ name }) => name).join(", ")}${near ? ` (did you mean ${near}?)` : ""}`,
    );
  }
  const input = exists(spec) ? spec : await fetchDataset(entry!, options.onProgress);
  const key = createHash("sha256").update(tokenizerKey(options.tokenizer));
  for (const file of corpusFiles([input])) {
    const { size, mtime } = Deno.statSync(file);
    key.update(`\n${Deno.realPathSync(file)} ${size} ${mtime?.getTime()}`);
  }
  const folder = `${cacheFolder()}/prepared/${key.digest("hex").slice(0, 32)}`;
  if (exists(`${folder}/dataset.json`)) return folder;
  try {
    Deno.mkdirSync(`${cacheFolder()}/prepared`, { recursive: true });
  } catch (error) {
    throw new MachineError(
      `Cannot write the cache ${cacheFolder()}: ${messageOf(error)}; MUSTER_CACHE names another folder`,
    );
  }
  options.onProgress?.(`tokenizing ${spec}`);
  try {
    await prepare({ inputs: [input], output: folder, ...options });
  } catch (error) {
    // Another process may have prepared it meanwhile.
    if (!exists(`${folder}/dataset.json`)) throw error;
  }
  return folder;
}
