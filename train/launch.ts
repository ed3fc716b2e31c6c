/**
 * From settings to ranks: the mesh, what each rank holds, and the memory through which they speak.
 * @module
 */

import type { NamedTensor } from "../data/safetensors.ts";
import { UserError } from "../errors.ts";
import { elementCount } from "../graph/tensor.ts";
import type { ModelConfiguration } from "../model/configuration.ts";
import { families } from "../model/model.ts";
import type { ExecutorSetup } from "../parallel/executor.ts";
import { coordinatesOf, groupsOf, type Mesh, partsOf, settleMesh, worldSize } from "../parallel/mesh.ts";
import { createGroup, type GroupSetup } from "../parallel/shared_memory.ts";
import { createStatusMemory } from "../parallel/status.ts";
import type { RankLayout } from "./model_graph.ts";
import { statePrefixes } from "./model_program.ts";
import type { CheckpointMemory } from "./rank_protocol.ts";
import type { CompleteSettings } from "./settings.ts";

/** Indices of the devices of all ranks: `0,2` or `0,0`. */
export function parseDevices(text: string): number[] {
  const indices = text.split(",").map((part) => Number(part.trim() === "" ? NaN : part));
  if (!indices.every((index) => Number.isInteger(index) && index >= 0)) {
    throw new UserError(`--devices ${text} is no list of indices as \`muster devices\` shows them, like 0 or 0,2`);
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

/** Settles mesh and micro-batch. */
export function planLaunch(settings: CompleteSettings): LaunchPlan {
  const devices = parseDevices(settings.devices);
  const mesh = settleMesh(devices.length, {
    tensor: settings.tp,
    ...(settings.dp === undefined ? {} : { data: settings.dp }),
  });
  const { batchSize, microBatchSize } = settings;
  if (batchSize % mesh.data !== 0) {
    throw new UserError(
      `--batch-size ${batchSize} is no multiple of --dp ${mesh.data}: each copy takes as many sequences`,
    );
  }
  const share = batchSize / mesh.data;
  if (microBatchSize !== undefined && share % microBatchSize !== 0) {
    const of = mesh.data > 1
      ? `the ${share} sequences that each of ${mesh.data} copies takes`
      : `--batch-size ${batchSize}`;
    throw new UserError(`--micro-batch-size ${microBatchSize} does not divide ${of}`);
  }
  return { mesh, devices, microBatchSize: microBatchSize ?? (worldSize(mesh) > 1 ? share : undefined) };
}

/** What rank `rank` does and holds. */
export function layoutOf(
  configuration: ModelConfiguration,
  mesh: Mesh,
  rank: number,
  settings: Pick<CompleteSettings, "sequenceParallel" | "zero" | "bucketMb">,
): RankLayout {
  const { parts, indices, total } = partsOf(configuration, mesh, rank, settings);
  return {
    parts,
    indices,
    total,
    data: { size: mesh.data, index: coordinatesOf(mesh, rank).data },
    zero: mesh.data > 1 && settings.zero === "1" ? 1 : 0,
    bucketElements: mesh.data > 1 ? Math.max(64, Math.round(settings.bucketMb * 1e6 / 4)) : Infinity,
    slots: 1,
    world: worldSize(mesh),
  };
}

/** f32 elements of an area of groups that exchange activations. */
const activationElements = 2 ** 21;

/** Memory of all groups, seen by each rank. */
export function makeExecutors(
  configuration: ModelConfiguration,
  mesh: Mesh,
  settings: Pick<CompleteSettings, "bucketMb">,
): ExecutorSetup[] {
  const ranks = worldSize(mesh);
  const status = createStatusMemory(ranks);
  const made = new Map<string, GroupSetup>();
  // A single parameter may be larger than a bucket: it then goes in pieces.
  const bucket = Math.round(settings.bucketMb * 1e6 / 4) + 4096;
  return Array.from({ length: ranks }, (_, rank) => {
    const groups: Record<string, GroupSetup> = {};
    for (const [name, members] of groupsOf(mesh, rank, configuration.keyValueHeads)) {
      const key = `${name} ${members}`;
      const elements = members.length === 1 || name === "world" ? 1024 : name === "data" ? bucket : activationElements;
      if (!made.has(key)) made.set(key, createGroup(members, elements));
      groups[name] = made.get(key)!;
    }
    return { rank, status, groups, channels: {} };
  });
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
