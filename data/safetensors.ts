/**
 * Safetensors files (https://github.com/huggingface/safetensors): a header length (u64, little-endian), a JSON header,
 * raw tensors. Everything the header says is checked before a byte of data is read; data is read in place, so files may
 * be larger than memory.
 * @module
 */

import { createHash } from "node:crypto";
import { UserError } from "../errors.ts";

const elementBytes: Readonly<Record<string, number>> = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  F64: 8,
  I64: 8,
  U64: 8,
};

/** Largest header accepted, as in the reference library. */
const maximumHeader = 100_000_000;
/** Bytes converted at a time when a tensor is not f32. */
const conversionBytes = 4 * 2 ** 20;

/** One tensor of a file. */
export interface TensorEntry {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Bytes from the start of the data. */
  readonly begin: number;
  readonly end: number;
}

/** A named f32 tensor to write. */
export interface NamedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

function fail(path: string, message: string): never {
  throw new UserError(`${path} is not a valid safetensors file: ${message}`);
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function checkEntry(path: string, name: string, entry: unknown, dataBytes: number): TensorEntry {
  const where = `tensor ${JSON.stringify(name)}`;
  if (typeof entry !== "object" || entry === null) fail(path, `${where} is described by no object`);
  const { dtype, shape, data_offsets: offsets } = entry as Record<string, unknown>;
  if (typeof dtype !== "string" || !Object.hasOwn(elementBytes, dtype)) {
    fail(path, `${where} has the unknown type ${JSON.stringify(dtype)}`);
  }
  if (!Array.isArray(shape) || !shape.every(isCount)) fail(path, `${where} has the shape ${JSON.stringify(shape)}`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount)) {
    fail(path, `${where} has the offsets ${JSON.stringify(offsets)}`);
  }
  const [begin, end] = offsets as number[];
  const bytes = (shape as number[]).reduce((product, extent) => product * extent, elementBytes[dtype]);
  if (begin > end || end > dataBytes) {
    fail(path, `${where} lies at bytes ${begin} to ${end} of ${dataBytes}; the file may be truncated`);
  }
  if (bytes !== end - begin) fail(path, `${where} of shape [${shape}] and type ${dtype} has ${end - begin} bytes`);
  return { name, dtype, shape: shape as number[], begin, end };
}

/** Reads and checks a header. */
function readHeader(
  path: string,
  file: Deno.FsFile,
): { entries: TensorEntry[]; metadata: Record<string, string>; start: number } {
  const { size } = file.statSync();
  const prefix = new Uint8Array(8);
  if (size < 8 || !readFully(file, prefix, 0)) fail(path, `it has only ${size} bytes`);
  const length = Number(new DataView(prefix.buffer).getBigUint64(0, true));
  if (length > maximumHeader || 8 + length > size) {
    fail(path, `its header claims ${length} bytes, but the file has ${size}`);
  }
  const bytes = new Uint8Array(length);
  if (!readFully(file, bytes, 8)) fail(path, "it ends inside the header");
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    fail(path, `its header is no JSON (${(error as Error).message})`);
  }
  if (typeof header !== "object" || header === null || Array.isArray(header)) {
    fail(path, "its header is no JSON object");
  }
  const { __metadata__: metadata, ...tensors } = header as Record<string, unknown>;
  const entries = Object.entries(tensors).map(([name, entry]) => checkEntry(path, name, entry, size - 8 - length));
  let at = 0;
  for (const { name, begin, end } of [...entries].sort((a, b) => a.begin - b.begin || a.end - b.end)) {
    if (begin !== at) fail(path, `tensor ${JSON.stringify(name)} begins at byte ${begin} instead of ${at}`);
    at = end;
  }
  if (at !== size - 8 - length) fail(path, `${size - 8 - length - at} bytes follow the last tensor`);
  const strings = typeof metadata === "object" && metadata !== null ? metadata : {};
  return { entries, metadata: strings as Record<string, string>, start: 8 + length };
}

function readFully(file: Deno.FsFile, target: Uint8Array, position: number): boolean {
  file.seekSync(position, Deno.SeekMode.Start);
  for (let done = 0; done < target.length;) {
    const count = file.readSync(target.subarray(done));
    if (count === null) return false;
    done += count;
  }
  return true;
}

/** Named tensors that can be read as f32: one file, or the shards of a folder. */
export interface TensorReader {
  /** Entries by name. */
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  /** Fills `target` with elements from `start` on, converted from f16 or bf16 where needed. */
  readInto(name: string, target: Float32Array, start?: number): void;
  close(): void;
}

/** Opens a file and checks its header. */
export function openSafetensors(path: string): TensorReader & { readonly metadata: Record<string, string> } {
  let file: Deno.FsFile;
  try {
    file = Deno.openSync(path);
  } catch (error) {
    throw new UserError(`Cannot open ${path}: ${(error as Error).message}`);
  }
  try {
    const { entries, metadata, start } = readHeader(path, file);
    const tensors = new Map(entries.map((entry) => [entry.name, entry]));
    return {
      tensors,
      metadata,
      close: () => file.close(),
      readInto(name, target, first = 0) {
        const entry = tensors.get(name);
        if (!entry) throw new UserError(`${path} has no tensor ${name}`);
        const { dtype, begin, end } = entry;
        const size = elementBytes[dtype];
        if (dtype !== "F32" && dtype !== "F16" && dtype !== "BF16") {
          throw new UserError(`${path}: tensor ${name} is ${dtype}; F32, F16 and BF16 can be read`);
        }
        if ((first + target.length) * size > end - begin) throw new RangeError(`Elements beyond the end of ${name}`);
        const at = start + begin + first * size;
        const read = (bytes: Uint8Array, position: number) => {
          if (!readFully(file, bytes, position)) fail(path, `it ends inside tensor ${name}`);
        };
        if (dtype === "F32") {
          read(new Uint8Array(target.buffer, target.byteOffset, target.byteLength), at);
          return;
        }
        const buffer = new Uint8Array(Math.min(conversionBytes, target.length * 2));
        for (let done = 0; done < target.length; done += buffer.length / 2) {
          const count = Math.min(buffer.length / 2, target.length - done);
          read(buffer.subarray(0, count * 2), at + done * 2);
          halvesToFloats(buffer, dtype, target.subarray(done, done + count));
        }
      },
    };
  } catch (error) {
    file.close();
    throw error;
  }
}

function halvesToFloats(bytes: Uint8Array, dtype: "F16" | "BF16", target: Float32Array): void {
  if (dtype === "F16") {
    target.set(new Float16Array(bytes.buffer, bytes.byteOffset, target.length));
    return;
  }
  const halves = new Uint16Array(bytes.buffer, bytes.byteOffset, target.length);
  const bits = new Uint32Array(target.buffer, target.byteOffset, target.length);
  for (let i = 0; i < halves.length; i++) bits[i] = halves[i] << 16;
}

/** Opens `model.safetensors` of a folder, or the shards that `model.safetensors.index.json` names. */
export function openModelFolder(folder: string): TensorReader {
  const single = `${folder}/model.safetensors`;
  const index = `${folder}/model.safetensors.index.json`;
  if (exists(single)) return openSafetensors(single);
  if (!exists(index)) throw new UserError(`${folder} has neither model.safetensors nor model.safetensors.index.json`);
  let map: unknown;
  try {
    map = (JSON.parse(Deno.readTextFileSync(index)) as Record<string, unknown>).weight_map;
  } catch (error) {
    throw new UserError(`${index} is no JSON (${(error as Error).message})`);
  }
  if (typeof map !== "object" || map === null) throw new UserError(`${index} has no weight_map`);
  const readers = new Map<string, TensorReader>();
  const close = () => readers.forEach((reader) => reader.close());
  try {
    const tensors = new Map<string, TensorEntry>();
    const where = new Map<string, TensorReader>();
    for (const [name, file] of Object.entries(map)) {
      if (typeof file !== "string" || /[/\\]/.test(file)) {
        throw new UserError(`${index}: the shard of ${name} is ${JSON.stringify(file)}`);
      }
      const reader = readers.get(file) ?? openSafetensors(`${folder}/${file}`);
      readers.set(file, reader);
      const entry = reader.tensors.get(name);
      if (!entry) throw new UserError(`${folder}/${file} has no tensor ${name}, which ${index} says it has`);
      tensors.set(name, entry);
      where.set(name, reader);
    }
    return {
      tensors,
      close,
      readInto(name, target, start) {
        const reader = where.get(name);
        if (!reader) throw new UserError(`${folder} has no tensor ${name}`);
        reader.readInto(name, target, start);
      },
    };
  } catch (error) {
    close();
    throw error;
  }
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

/** Writes f32 tensors, flushed to the disk; returns the file's SHA-256 in hexadecimal. */
export async function writeSafetensors(
  path: string,
  tensors: readonly NamedTensor[],
  metadata: Record<string, string> = { format: "pt" },
): Promise<string> {
  const header: Record<string, unknown> = { __metadata__: metadata };
  let at = 0;
  for (const { name, shape, data } of tensors) {
    header[name] = { dtype: "F32", shape, data_offsets: [at, at + data.byteLength] };
    at += data.byteLength;
  }
  const json = JSON.stringify(header);
  const text = new TextEncoder().encode(json);
  const padded = new Uint8Array(8 + Math.ceil(text.length / 8) * 8).fill(0x20, 8);
  padded.set(text, 8);
  new DataView(padded.buffer).setBigUint64(0, BigInt(padded.length - 8), true);
  const hash = createHash("sha256");
  using file = await Deno.open(path, { write: true, create: true, truncate: true });
  const write = async (bytes: Uint8Array) => {
    hash.update(bytes);
    for (let done = 0; done < bytes.length;) done += await file.write(bytes.subarray(done, done + 2 ** 22));
  };
  await write(padded);
  for (const { data } of tensors) await write(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  await file.sync();
  return hash.digest("hex");
}
