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
import { splitBatch } from "../parallel/balance.ts";
import { type ChannelSetup, createChannel } from "../parallel/channel.ts";
import { coordinatesOf, groupsOf, type Mesh, partsOf, rankAt, settleMesh, worldSize } from "../parallel/mesh.ts";
import { type Action, assignSlots, makeSchedule } from "../parallel/schedules.ts";
import { createGroup, type GroupSetup } from "../parallel/shared_memory.ts";
import { createStatusMemory } from "../parallel/status.ts";
import { rankParameters } from "./bank_options.ts";
import { sharedHostElements } from "./parameter_banks.ts";
import type { Copy, RankLayout } from "./rank_layout.ts";
import { statePrefixes } from "./model_state.ts";
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
  /** Sequences of a step that each data-parallel copy takes, and how many of them it computes at a time. */
  readonly copies: readonly Copy[];
  /** The shares follow the measured speeds. */
  readonly rebalances: boolean;
}

/** Parts of the model on each stage. */
function chunksOf({ pipelineSchedule, pipelineChunks, pp }: CompleteSettings): number {
  return pp > 1 && pipelineSchedule === "interleaved" ? pipelineChunks : 1;
}

/** Micro-batches of a step of a copy. */
export function microBatchCount(share: number, microBatchSize: number): number {
  return Math.ceil(share / microBatchSize);
}

/** Settles mesh, shares and micro-batches. */
export function planLaunch(settings: CompleteSettings, selections: readonly Selection[]): LaunchPlan {
  const devices = parseDevices(settings.devices, selections);
  const mesh = settleMesh(devices.length, {
    tensor: settings.tp,
    pipeline: settings.pp,
    ...(settings.dp === undefined ? {} : { data: settings.dp }),
  });
  const { balance, batchSize, zero } = settings;
  const shares = splitBatch(balance, batchSize, mesh.data);
  const rebalances = balance === "auto" && mesh.pipeline === 1 && Number(zero) < 2 &&
    unequalCopies(mesh, devices, selections);
  // A share that is to grow and shrink is made of small pieces.
  const whole = rebalances ? Math.max(1, Math.floor(batchSize / mesh.data / 4)) : undefined;
  const copies = shares.map((share) => ({ share, microBatchSize: microBatchOf(share, mesh, settings) ?? whole }))
    .map((copy) => worldSize(mesh) > 1 ? { ...copy, microBatchSize: copy.microBatchSize ?? copy.share } : copy);
  const counts = new Set(copies.map(({ share, microBatchSize = share }) => microBatchCount(share, microBatchSize)));
  if (Number(zero) >= 2 && counts.size > 1) {
    throw new UserError(
      `--zero ${zero} sums gradients in every micro-batch, so all copies need as many, not ${
        [...counts].join(" and ")
      }: ` +
        `leave out --micro-batch-size, or use --balance even with a --batch-size that is a multiple of ${mesh.data}`,
    );
  }
  return { mesh, devices, copies, rebalances };
}

/** True if copies of the model are on devices of other kinds, or share them with other numbers of ranks. */
function unequalCopies(mesh: Mesh, devices: readonly number[], selections: readonly Selection[]): boolean {
  const kinds = Array.from({ length: mesh.data }, (_, data) => {
    const own = devices.filter((_, rank) => coordinatesOf(mesh, rank).data === data);
    return own.map((device) => {
      const { name, deviceId } = selections[device].device ?? {};
      return `${name} ${deviceId} ${devices.filter((other) => other === device).length}`;
    }).sort().join();
  });
  return new Set(kinds).size > 1;
}

/** Sequences that a copy computes at a time, where flags or a pipeline decide it. */
function microBatchOf(share: number, mesh: Mesh, settings: CompleteSettings): number | undefined {
  const { batchSize, microBatchSize, microBatches, pipelineSchedule } = settings;
  const of = mesh.data > 1
    ? `the ${share} sequences that ${settings.balance.includes(":") ? "one" : "each"} of ${mesh.data} copies takes`
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
  if (mesh.pipeline === 1) return undefined;
  const unit = pipelineSchedule === "interleaved" ? mesh.pipeline : 1;
  let count = Math.min(share, 4 * mesh.pipeline);
  while (count > 1 && (share % count !== 0 || count % unit !== 0)) count--;
  return share / count;
}

/** What this rank's stage does in a step, and in which slots. */
export function scheduleOf(
  mesh: Mesh,
  rank: number,
  settings: CompleteSettings,
  { share, microBatchSize = share }: Copy,
): { actions: Action[]; slots: number[]; count: number } {
  const microBatches = microBatchCount(share, microBatchSize);
  const chunks = chunksOf(settings);
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
): RankLayout {
  const { sequenceParallel, zero, recompute, cpuOffload, bucketMb, pipelineSchedule } = settings;
  const offload = cpuOffload === "optimizer";
  const { parts, indices, total } = partsOf(configuration, mesh, rank, {
    sequenceParallel,
    chunks: chunksOf(settings),
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
    bucketElements: mesh.data > 1 || offload ? Math.max(64, Math.round(bucketMb * 1e6 / 4)) : Infinity,
    slots: mesh.pipeline > 1 ? scheduleOf(mesh, rank, settings, copy).count : 1,
    splitWeights: mesh.pipeline > 1 && pipelineSchedule === "zero-bubble",
    world: worldSize(mesh),
  };
}

/** f32 elements of an area of groups that exchange activations. */
const activationElements = 2 ** 21;

/** Memory of all groups and channels, as each rank sees it. */
export function makeExecutors(
  configuration: ModelConfiguration,
  mesh: Mesh,
  settings: CompleteSettings,
  layouts: readonly RankLayout[],
  /** Rows of what passes between stages, for each copy. */
  rows: readonly number[],
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
      memories.set(key, Object.fromEntries(made.map(([name, n]) => [name, new SharedArrayBuffer(4 * n)])));
    }
    return memories.get(key)!;
  };
  const setups = Array.from({ length: ranks }, (_, rank) => {
    const groups: Record<string, GroupSetup> = {};
    for (const [name, members] of groupsOf(mesh, rank, configuration.keyValueHeads)) {
      const key = `${name} ${members}`;
      const elements = members.length === 1 || name === "world" ? 1024 : name === "data" ? bucket : activationElements;
      if (!made.has(key)) made.set(key, createGroup(members, elements));
      groups[name] = made.get(key)!;
    }
    return { rank, status, groups, channels: {} as Record<string, ChannelSetup>, hostMemories: memoriesOf(rank) };
  });
  const parts = mesh.pipeline * chunksOf(settings);
  for (let index = 1; index < parts; index++) {
    for (const { rank: behind } of setups) {
      const at = coordinatesOf(mesh, behind);
      if (at.pipeline !== index % mesh.pipeline) continue;
      const before = rankAt(mesh, { ...at, pipeline: (index - 1) % mesh.pipeline });
      // Room for all that may be under way, so that two stages never wait to send to each other.
      const capacity = 2 * parts + 2;
      for (const [kind, from, to] of [["activations", before, behind], ["gradients", behind, before]] as const) {
        const channel = createChannel(from, to, rows[at.data] * configuration.width, capacity);
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
