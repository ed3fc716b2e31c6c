/**
 * From settings to ranks: the mesh, what each rank holds, and the memory through which they speak.
 * @module
 */

import type { NamedTensor } from "../data/safetensors.ts";
import { UserError } from "../errors.ts";
import type { Selection } from "../gpu/select.ts";
import { elementCount } from "../graph/tensor.ts";
import type { ModelConfiguration } from "../model/configuration.ts";
import { families } from "../model/model.ts";
import type { ExecutorSetup } from "../parallel/executor.ts";
import { type ChannelSetup, createChannel } from "../parallel/channel.ts";
import {
  type AskedMesh,
  coordinatesOf,
  groupsOf,
  type Mesh,
  partsOf,
  rankAt,
  settleMesh,
  worldSize,
} from "../parallel/mesh.ts";
import { type Action, assignSlots, makeSchedule } from "../parallel/schedules.ts";
import { type Allocate, allocateShared, createGroup, type GroupSetup } from "../parallel/shared_memory.ts";
import { createStatusMemory } from "../parallel/status.ts";
import type { RankLayout } from "./rank_layout.ts";
import { statePrefixes } from "./model_program.ts";
import type { CheckpointMemory } from "./rank_protocol.ts";
import type { CompleteSettings } from "./settings.ts";

/**
 * Devices of all ranks: `all` (real GPUs, or where there are none the software drivers), `0,2`, or `0,0` for two ranks on
 * one.
 */
export function parseDevices(text: string, selections: readonly Selection[]): number[] {
  if (text === "all") {
    const all = selections.map((_, index) => index);
    const real = all.filter((index) => selections[index].device?.type !== "software");
    if (real.length > 0) return real;
    // Several software drivers would share the same cores.
    return all.slice(0, 1);
  }
  const indices = text.split(",").map((part) => Number(part.trim() === "" ? NaN : part));
  if (!indices.every((index) => Number.isInteger(index) && index >= 0)) {
    throw new UserError(`--devices ${text} is no list of indices as \`muster devices\` shows them, like 0 or 0,2`);
  }
  const missing = indices.find((index) => index >= selections.length);
  if (missing !== undefined) {
    const highest = selections.length - 1;
    throw new UserError(
      `--devices ${text}: there is no GPU ${missing}, only ${highest === 0 ? "0" : `0 to ${highest}`}`,
    );
  }
  return indices;
}

/** What all ranks together do. */
export interface LaunchPlan {
  readonly mesh: Mesh;
  /** Device of each rank. */
  readonly devices: readonly number[];
  /** Sequences computed at a time; left to the rank if it is alone. */
  readonly microBatchSize: number | undefined;
}

/** Parts of the model on each stage. */
export function chunksOf({ pipelineSchedule, pipelineChunks }: CompleteSettings, mesh: Mesh): number {
  return mesh.pipeline > 1 && pipelineSchedule === "interleaved" ? pipelineChunks : 1;
}

/** Settles mesh and micro-batch. */
export function planLaunch(settings: CompleteSettings, selections: readonly Selection[]): LaunchPlan {
  const devices = parseDevices(settings.devices, selections);
  const mesh = settleMesh(devices.length, askedMesh(settings));
  return { mesh, devices, microBatchSize: microBatchOf(mesh, settings) };
}

/** True if the settings say anything of the mesh; else the planner picks one. */
export function asksForMesh({ dp, pp, tp }: CompleteSettings): boolean {
  return dp !== undefined || pp !== undefined || tp !== undefined;
}

/** What the settings say of the mesh. */
export function askedMesh({ dp, pp, tp }: CompleteSettings): AskedMesh {
  return { data: dp, pipeline: pp, tensor: tp };
}

/** Sequences computed at a time; undefined, left to the rank, if it is alone. `UserError` if the batch cannot be shared so. */
export function microBatchOf(mesh: Mesh, settings: CompleteSettings): number | undefined {
  const { batchSize, microBatchSize, microBatches } = settings;
  if (batchSize % mesh.data !== 0) {
    throw new UserError(
      `--batch-size ${batchSize} is no multiple of --dp ${mesh.data}: each copy takes as many sequences`,
    );
  }
  const share = batchSize / mesh.data;
  const of = mesh.data > 1
    ? `the ${share} sequences that each of ${mesh.data} copies takes`
    : `--batch-size ${batchSize}`;
  if (microBatchSize !== undefined && share % microBatchSize !== 0) {
    throw new UserError(`--micro-batch-size ${microBatchSize} does not divide ${of}`);
  }
  if (microBatches !== undefined && share % microBatches !== 0) {
    throw new UserError(`--micro-batches ${microBatches} does not divide ${of}`);
  }
  if (microBatches !== undefined && microBatchSize !== undefined && microBatches * microBatchSize !== share) {
    throw new UserError(`--micro-batches ${microBatches} of --micro-batch-size ${microBatchSize} do not make up ${of}`);
  }
  if (microBatchSize !== undefined) return microBatchSize;
  if (microBatches !== undefined) return share / microBatches;
  if (mesh.pipeline === 1) return worldSize(mesh) > 1 ? share : undefined;
  const unit = settings.pipelineSchedule === "interleaved" ? mesh.pipeline : 1;
  let count = Math.min(share, 4 * mesh.pipeline);
  while (count > 1 && (share % count !== 0 || count % unit !== 0)) count--;
  return share / count;
}

/** Rows of a micro-batch on each rank between the parts of a pipeline. `UserError` if they cannot be shared evenly. */
export function hiddenRows(
  mesh: Mesh,
  { batchSize, sequenceParallel }: CompleteSettings,
  microBatchSize: number | undefined,
  sequenceLength: number,
): number {
  const rows = (microBatchSize ?? batchSize) * sequenceLength / (sequenceParallel ? mesh.tensor : 1);
  if (Number.isInteger(rows)) return rows;
  throw new UserError(
    `--sequence-parallel needs ${mesh.tensor} ranks to share the rows of a micro-batch evenly: choose another ` +
      `--micro-batch-size or --sequence-length`,
  );
}

/** What this rank's stage does in a step, and in which slots. */
export function scheduleOf(
  mesh: Mesh,
  rank: number,
  settings: CompleteSettings,
  microBatchSize: number,
): { actions: Action[]; slots: number[]; count: number } {
  const microBatches = settings.batchSize / mesh.data / microBatchSize;
  const chunks = chunksOf(settings, mesh);
  const all = makeSchedule(settings.pipelineSchedule, { stages: mesh.pipeline, microBatches, chunks });
  const actions = all[coordinatesOf(mesh, rank).pipeline];
  return { actions, ...assignSlots(actions) };
}

/** What rank `rank` does and holds. */
export function layoutOf(
  configuration: ModelConfiguration,
  mesh: Mesh,
  rank: number,
  settings: CompleteSettings,
  microBatchSize = 1,
): RankLayout {
  const { sequenceParallel, zero, bucketMb, pipelineSchedule } = settings;
  const { parts, indices, total } = partsOf(configuration, mesh, rank, {
    sequenceParallel,
    chunks: chunksOf(settings, mesh),
  });
  return {
    parts,
    indices,
    total,
    data: { size: mesh.data, index: coordinatesOf(mesh, rank).data },
    zero: mesh.data > 1 && zero === "1" ? 1 : 0,
    bucketElements: mesh.data > 1 ? Math.max(64, Math.round(bucketMb * 1e6 / 4)) : Infinity,
    slots: mesh.pipeline > 1 ? scheduleOf(mesh, rank, settings, microBatchSize).count : 1,
    splitWeights: mesh.pipeline > 1 && pipelineSchedule === "zero-bubble",
    world: worldSize(mesh),
  };
}

/** f32 elements of an area of groups that exchange activations. */
const activationElements = 2 ** 21;

/** Memory of all groups and channels, as each rank sees it; a planner may have it counted instead of allocated. */
export function makeExecutors(
  configuration: ModelConfiguration,
  mesh: Mesh,
  settings: CompleteSettings,
  /** f32 elements of what passes between stages. */
  hiddenElements: number,
  allocate: Allocate = allocateShared,
): ExecutorSetup[] {
  const ranks = worldSize(mesh);
  const status = createStatusMemory(ranks);
  const made = new Map<string, GroupSetup>();
  // A single parameter may be larger than a bucket: it then goes in pieces.
  const bucket = Math.round(settings.bucketMb * 1e6 / 4) + 4096;
  const setups = Array.from({ length: ranks }, (_, rank) => {
    const groups: Record<string, GroupSetup> = {};
    for (const [name, members] of groupsOf(mesh, rank, configuration.keyValueHeads)) {
      const key = `${name} ${members}`;
      const elements = members.length === 1 || name === "world" ? 1024 : name === "data" ? bucket : activationElements;
      if (!made.has(key)) made.set(key, createGroup(members, elements, allocate));
      groups[name] = made.get(key)!;
    }
    return { rank, status, groups, channels: {} as Record<string, ChannelSetup> };
  });
  const parts = mesh.pipeline * chunksOf(settings, mesh);
  for (let index = 1; index < parts; index++) {
    for (const { rank: behind } of setups) {
      const at = coordinatesOf(mesh, behind);
      if (at.pipeline !== index % mesh.pipeline) continue;
      const before = rankAt(mesh, { ...at, pipeline: (index - 1) % mesh.pipeline });
      // Room for all that may be under way, so that two stages never wait to send to each other.
      const capacity = 2 * parts + 2;
      for (const [kind, from, to] of [["activations", before, behind], ["gradients", behind, before]] as const) {
        const channel = createChannel(from, to, hiddenElements, capacity, allocate);
        for (const rank of [from, to]) setups[rank].channels[`${kind} ${index}`] = channel;
      }
    }
  }
  return setups;
}

/** Memory for a checkpoint of the whole model. It costs nothing until it is written. */
export function makeCheckpointMemory(configuration: ModelConfiguration): CheckpointMemory {
  const sources = families[configuration.family].parameters(configuration, { size: 1, index: 0 })
    .flatMap((parameter) => parameter.sources);
  const tensors = (prefix: string) =>
    sources.map(({ name, shape }): NamedTensor => ({
      name: prefix + name,
      shape,
      data: new Float32Array(new SharedArrayBuffer(elementCount({ shape }) * 4)),
    }));
  return {
    weights: tensors(""),
    optimizer: [...tensors(statePrefixes.firstMoment), ...tensors(statePrefixes.secondMoment)],
  };
}
