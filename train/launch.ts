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
import { type AskedMesh, coordinatesOf, groupsOf, type Mesh, partsOf, rankAt, worldSize } from "../parallel/mesh.ts";
import { type Action, assignSlots, makeSchedule } from "../parallel/schedules.ts";
import { type Allocator, allocator, createGroup, type GroupSetup, type MachinePlace } from "../parallel/group_setup.ts";
import { createStatusMemory } from "../parallel/status.ts";
import { rankParameters } from "./bank_options.ts";
import { sharedHostElements } from "./parameter_banks.ts";
import { scalingTensors } from "./loss_scaling.ts";
import type { Copy, RankLayout } from "./rank_layout.ts";
import { statePrefixes } from "./model_state.ts";
import type { CheckpointMemory } from "./rank_protocol.ts";
import type { CompleteSettings } from "./settings.ts";
import { microBatchCount } from "./share_batch.ts";

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

/** Parts of the model on each stage. */
export function chunksOf({ pipelineSchedule, pipelineChunks }: CompleteSettings, mesh: Mesh): number {
  return mesh.pipeline > 1 && pipelineSchedule === "interleaved" ? pipelineChunks : 1;
}

/** True if the settings say anything of the mesh; else the planner picks one. */
export function asksForMesh({ dp, pp, tp }: CompleteSettings): boolean {
  return dp !== undefined || pp !== undefined || tp !== undefined;
}

/** What the settings say of the mesh. */
export function askedMesh({ dp, pp, tp }: CompleteSettings): AskedMesh {
  return { data: dp, pipeline: pp, tensor: tp };
}

/** What this rank's stage does in a step, and in which slots. */
export function scheduleOf(
  mesh: Mesh,
  rank: number,
  settings: CompleteSettings,
  copy: Copy,
): { actions: Action[]; slots: number[]; count: number } {
  const microBatches = microBatchCount(copy);
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
  copy: Copy,
  machines = 1,
): RankLayout {
  const { sequenceParallel, zero, recompute, cpuOffload, precision, bucketMb, pipelineSchedule } = settings;
  const offload = cpuOffload === "optimizer";
  const { parts, indices, total } = partsOf(configuration, mesh, rank, {
    sequenceParallel,
    chunks: chunksOf(settings, mesh),
  });
  return {
    parts,
    indices,
    total,
    data: { size: mesh.data, index: coordinatesOf(mesh, rank).data },
    // One copy alone has nobody to share with.
    zero: mesh.data > 1 ? Number(zero) as RankLayout["zero"] : 0,
    recompute,
    offload,
    precision,
    bucketElements: mesh.data > 1 || machines > 1 || offload ? Math.max(64, Math.round(bucketMb * 1e6 / 4)) : Infinity,
    slots: mesh.pipeline > 1 ? scheduleOf(mesh, rank, settings, copy).count : 1,
    splitWeights: mesh.pipeline > 1 && pipelineSchedule === "zero-bubble",
    world: worldSize(mesh),
    machines,
  };
}

/** f32 elements of an area of groups that exchange activations. */
const activationElements = 2 ** 21;

/** Memory of all groups and channels, as each rank sees it; a planner may have it counted instead of allocated. */
export function makeExecutors(
  configuration: ModelConfiguration,
  mesh: Mesh,
  settings: CompleteSettings,
  layouts: readonly RankLayout[],
  /** Rows of what passes between stages, for each copy: `hiddenRows`. */
  rows: readonly number[],
  { allocate = allocator, machines }: { readonly allocate?: Allocator; readonly machines?: MachinePlace | undefined } =
    {},
): ExecutorSetup[] {
  const ranks = worldSize(mesh);
  const status = createStatusMemory(ranks);
  const made = new Map<string, GroupSetup>();
  // A single parameter may be larger than a bucket: it then goes in pieces.
  const bucket = Math.round(settings.bucketMb * 1e6 / 4) + 4096;
  const memories = new Map<string, Record<string, SharedArrayBuffer>>();
  const memoriesOf = (rank: number) => {
    const { parameters, options } = rankParameters(configuration, layouts[rank], true);
    const key = groupsOf(mesh, rank, configuration.keyValueHeads).get("data")!.join();
    if (!memories.has(key)) {
      const made = [...sharedHostElements(parameters, options)];
      memories.set(key, Object.fromEntries(made.map(([name, n]) => [name, allocate.shared(4 * n)])));
    }
    return memories.get(key)!;
  };
  const setups = Array.from({ length: ranks }, (_, rank) => {
    const groups: Record<string, GroupSetup> = {};
    for (const [name, members] of groupsOf(mesh, rank, configuration.keyValueHeads)) {
      const key = `${name} ${members}`;
      // Only gradients and the run's own numbers are summed over machines.
      const wide = name === "data" || name === "run" ? machines : undefined;
      const few = members.length === 1 && !wide || name === "world" || name === "run";
      const elements = few ? Math.max(1024, 64 * (wide?.size ?? 1)) : name === "data" ? bucket : activationElements;
      if (!made.has(key)) made.set(key, createGroup(members, elements, allocate, wide));
      groups[name] = made.get(key)!;
    }
    return { rank, status, groups, channels: {} as Record<string, ChannelSetup>, hostMemories: memoriesOf(rank) };
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
        const channel = createChannel(from, to, rows[at.data] * configuration.width, capacity, allocate);
        for (const rank of [from, to]) setups[rank].channels[`${kind} ${index}`] = channel;
      }
    }
  }
  return setups;
}

/** Memory for a checkpoint of the whole model. It costs nothing until it is written. */
export function makeCheckpointMemory(configuration: ModelConfiguration, settings: CompleteSettings): CheckpointMemory {
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
    optimizer: [
      ...tensors(statePrefixes.firstMoment),
      ...tensors(statePrefixes.secondMoment),
      ...scalingTensors(settings),
    ],
  };
}
