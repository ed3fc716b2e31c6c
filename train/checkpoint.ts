/**
 * Checkpoints: a folder in Hugging Face form (`config.json`, `model.safetensors`, the tokenizer) with Muster's own
 * `trainer.json` and `optimizer.safetensors`. It names whole tensors, not devices.
 *
 * It is written beside, every file flushed, then renamed: a crash leaves what was there before. `trainer.json` has the
 * SHA-256 of every other file.
 * @module
 */

import { createHash } from "node:crypto";
import {
  type NamedTensor,
  openModelFolder,
  openSafetensors,
  type TensorReader,
  writeSafetensors,
} from "../data/safetensors.ts";
import { hashFile } from "../data/token_file.ts";
import { hasCode, MachineError, messageOf, UserError } from "../errors.ts";
import { fromHuggingFace, type ModelConfiguration, toHuggingFace } from "../model/configuration.ts";

/** What is saved. */
export interface CheckpointContents {
  readonly step: number;
  readonly configuration: ModelConfiguration;
  readonly tokenizerFiles: Readonly<Record<string, string>>;
  /** Under Hugging Face's names. */
  readonly weights: readonly NamedTensor[];
  /** `exp_avg.<name>`, `exp_avg_sq.<name>`. */
  readonly optimizer: readonly NamedTensor[];
  /** Everything else that a run goes on from. */
  readonly trainer: Readonly<Record<string, unknown>>;
}

/** What `trainer.json` holds. */
export interface TrainerState extends Record<string, unknown> {
  readonly format: 1;
  readonly step: number;
  /** SHA-256 by file name. */
  readonly files: Readonly<Record<string, string>>;
}

/** Larger models are written in shards of at most this size, as transformers does. */
const shardBytes = 5 * 10 ** 9;

/** Folder of a run's checkpoints. */
export function checkpointsFolder(runFolder: string): string {
  return `${runFolder}/checkpoints`;
}

function syncFile(path: string): void {
  // Folders can be opened for reading and synced on POSIX systems only.
  try {
    using file = Deno.openSync(path, { read: true });
    file.syncSync();
  } catch (error) {
    if (Deno.build.os !== "windows") throw error;
  }
}

function writeText(path: string, text: string): string {
  const bytes = new TextEncoder().encode(text);
  using file = Deno.openSync(path, { write: true, create: true, truncate: true });
  for (let done = 0; done < bytes.length;) done += file.writeSync(bytes.subarray(done));
  file.syncSync();
  return createHash("sha256").update(bytes).digest("hex");
}

async function writeWeights(
  folder: string,
  weights: readonly NamedTensor[],
  files: Record<string, string>,
): Promise<void> {
  const shards: NamedTensor[][] = [[]];
  let bytes = 0;
  for (const tensor of weights) {
    if (bytes > 0 && bytes + tensor.data.byteLength > shardBytes) {
      shards.push([]);
      bytes = 0;
    }
    shards[shards.length - 1].push(tensor);
    bytes += tensor.data.byteLength;
  }
  if (shards.length === 1) {
    files["model.safetensors"] = await writeSafetensors(`${folder}/model.safetensors`, weights);
    return;
  }
  const number = (i: number) => String(i).padStart(5, "0");
  const weight_map: Record<string, string> = {};
  for (const [i, shard] of shards.entries()) {
    const name = `model-${number(i + 1)}-of-${number(shards.length)}.safetensors`;
    files[name] = await writeSafetensors(`${folder}/${name}`, shard);
    for (const tensor of shard) weight_map[tensor.name] = name;
  }
  const total_size = weights.reduce((sum, { data }) => sum + data.byteLength, 0);
  const name = "model.safetensors.index.json";
  files[name] = writeText(`${folder}/${name}`, JSON.stringify({ metadata: { total_size }, weight_map }, null, 2));
}

/**
 * Saves a checkpoint and then removes all but the newest `keep` (0: none is removed). Returns its folder. A `MachineError`
 * says which checkpoint is still there. Where several processes may save in one folder each needs a `mark` of its own.
 */
export async function saveCheckpoint(
  runFolder: string,
  contents: CheckpointContents,
  keep: number,
  mark = "",
): Promise<string> {
  const parent = checkpointsFolder(runFolder);
  const path = `${parent}/step-${String(contents.step).padStart(8, "0")}`;
  const temporary = `${path}${mark}.tmp`;
  try {
    Deno.mkdirSync(parent, { recursive: true });
    // What crashed saves left behind.
    for (const entry of Deno.readDirSync(parent)) {
      if (entry.name.replace(/^step-\d+/, "") === `${mark}.tmp`) {
        Deno.removeSync(`${parent}/${entry.name}`, { recursive: true });
      }
    }
    Deno.mkdirSync(temporary);
    const files: Record<string, string> = {};
    await writeWeights(temporary, contents.weights, files);
    files["optimizer.safetensors"] = await writeSafetensors(`${temporary}/optimizer.safetensors`, contents.optimizer);
    const texts = {
      ...contents.tokenizerFiles,
      "config.json": JSON.stringify(toHuggingFace(contents.configuration), null, 2),
    };
    for (const [name, text] of Object.entries(texts)) files[name] = writeText(`${temporary}/${name}`, text);
    const state: TrainerState = { format: 1, step: contents.step, ...contents.trainer, files };
    writeText(`${temporary}/trainer.json`, JSON.stringify(state, null, 2));
    syncFile(temporary);
    // A checkpoint of this step is there already when a run was resumed from it.
    if (exists(path)) Deno.removeSync(path, { recursive: true });
    Deno.renameSync(temporary, path);
    syncFile(parent);
  } catch (error) {
    removeQuietly(temporary);
    const reason = hasCode(error, "ENOSPC")
      ? "the disk is full"
      : hasCode(error, "EFBIG")
      ? "a file grew too large"
      : messageOf(error);
    const last = latestCheckpoint(runFolder);
    throw new MachineError(
      `Cannot save the checkpoint of step ${contents.step} in ${parent}: ${reason}; ` +
        (last
          ? `the one in ${last} is whole: make room and go on with --resume ${runFolder}`
          : "no earlier one exists"),
    );
  }
  if (keep > 0) {
    for (const old of listCheckpoints(runFolder).slice(0, -keep)) removeQuietly(old);
  }
  return path;
}

function removeQuietly(path: string): void {
  try {
    Deno.removeSync(path, { recursive: true });
  } catch {
    // It is gone, or the next save will try again.
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

/** Folders of a run's checkpoints, oldest first; unfinished ones are not among them. */
export function listCheckpoints(runFolder: string): string[] {
  const parent = checkpointsFolder(runFolder);
  try {
    return [...Deno.readDirSync(parent)]
      .filter((entry) =>
        entry.isDirectory && /^step-\d+$/.test(entry.name) && exists(`${parent}/${entry.name}/trainer.json`)
      )
      .map((entry) => `${parent}/${entry.name}`).sort();
  } catch {
    return [];
  }
}

/** The newest checkpoint of a run, if there is any. */
export function latestCheckpoint(runFolder: string): string | undefined {
  return listCheckpoints(runFolder).pop();
}

/** A checkpoint, or any Hugging Face folder, opened. */
export interface Checkpoint {
  readonly folder: string;
  readonly configuration: ModelConfiguration;
  readonly weights: TensorReader;
  /** Absent in a folder that Muster did not write. */
  readonly trainer: TrainerState | undefined;
  readonly optimizer: TensorReader | undefined;
  close(): void;
}

/** The folder meant by a path: a checkpoint or model itself, or a run, whose newest checkpoint it is. */
export function findCheckpoint(path: string): string {
  if (exists(`${path}/config.json`)) return path;
  const latest = latestCheckpoint(path);
  if (latest) return latest;
  if (!exists(path)) throw new UserError(`There is no folder ${path}`);
  throw new UserError(`${path} holds no checkpoint: neither a config.json nor checkpoints of a run`);
}

function readJson(path: string): Record<string, unknown> {
  try {
    return JSON.parse(Deno.readTextFileSync(path));
  } catch (error) {
    throw new UserError(`${path} cannot be read (${messageOf(error)})`);
  }
}

/** Opens a checkpoint, a run's newest, or a Hugging Face folder. Files that differ from their hashes are refused. */
export async function openCheckpoint(path: string): Promise<Checkpoint> {
  const folder = findCheckpoint(path);
  const configuration = fromHuggingFace(readJson(`${folder}/config.json`), `${folder}/config.json`);
  let trainer: TrainerState | undefined;
  if (exists(`${folder}/trainer.json`)) {
    trainer = readJson(`${folder}/trainer.json`) as TrainerState;
    if (trainer.format !== 1 || typeof trainer.files !== "object" || trainer.files === null) {
      throw new UserError(`${folder}/trainer.json is not of format 1`);
    }
    for (const [name, expected] of Object.entries(trainer.files)) {
      const file = `${folder}/${name}`;
      if (!exists(file)) throw new UserError(`${file} is missing: the checkpoint is damaged; use an earlier one`);
      if (await hashFile(file) !== expected) {
        throw new UserError(`${file} is damaged (its hash differs from trainer.json): use an earlier checkpoint`);
      }
    }
  }
  const weights = openModelFolder(folder);
  const state = `${folder}/optimizer.safetensors`;
  const optimizer = trainer && exists(state) ? openSafetensors(state) : undefined;
  return {
    folder,
    configuration,
    weights,
    trainer,
    optimizer,
    close() {
      weights.close();
      optimizer?.close();
    },
  };
}
