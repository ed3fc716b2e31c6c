/**
 * The planner: what each mesh of ranks would take in bytes and time, and which to take.
 *
 * Bytes are those of the very plans that the ranks make, so they are exact for the same device. A mesh takes the settings
 * as given; where these do not fit in memory, smaller micro-batches, then stronger sharding and recomputation are tried.
 * @module
 */

import { UserError } from "../errors.ts";
import { formatBytes, makePlan, type Plan, usableMemory } from "../graph/plan.ts";
import type { Role } from "../graph/tensor.ts";
import type { ModelConfiguration } from "../model/configuration.ts";
import { coordinatesOf, groupsOf, type Mesh, meshesOf, nameMesh, settleMesh, worldSize } from "../parallel/mesh.ts";
import { makeSchedule, simulate } from "../parallel/schedules.ts";
import { type Allocator, allocator } from "../parallel/group_setup.ts";
import { type RankTimes, rankTimes, slowestRanks } from "./cost_model.ts";
import { type Lane, type Phase, phasesOf } from "./exchange.ts";
import type { Hardware } from "./hardware.ts";
import { communicationBytes, hostBytes } from "./host_memory.ts";
import { askedMesh, chunksOf, layoutOf, makeExecutors } from "./launch.ts";
import { buildModelGraph } from "./model_graph.ts";
import { trainOptions } from "./options.ts";
import type { Copy } from "./rank_layout.ts";
import { type CompleteSettings, flagName } from "./settings.ts";
import { hiddenRows, microBatchCount, shareBatch } from "./share_batch.ts";

/** What is planned for. */
export interface PlanRequest {
  readonly configuration: ModelConfiguration;
  /** Tokens of a sequence. */
  readonly sequenceLength: number;
  readonly settings: CompleteSettings;
  /** The device of each rank. */
  readonly hardware: readonly Hardware[];
  /** Machines like this one, each with such a batch, whose gradients are summed together; one if left out. */
  readonly machines?: number;
}

/** A mesh that can train the model. */
export interface PlannedMesh {
  /** Its extents. */
  readonly mesh: Mesh;
  /** Sequences computed at a time; of copies with other shares, the most. */
  readonly microBatchSize: number;
  /** Micro-batches of a step, for each copy of the model. */
  readonly microBatches: number;
  /** Settings other than the given ones, without which it would not fit. */
  readonly settings: Partial<CompleteSettings>;
  /** Of the rank that needs most device memory: bytes by role, and of images. */
  readonly bytes: Readonly<Record<Role | "image", number>>;
  /** Of that rank: bytes of all buffers. */
  readonly totalBytes: number;
  /** The largest share of a rank in the host's memory through which ranks speak, in bytes. */
  readonly communicationBytes: number;
  /** Predicted time of a step. */
  readonly seconds: number;
  /** Share of the pipeline's time in which its stages are idle. */
  readonly bubble: number;
  /** Sums of gradients, which other machines may take part in; the time of these is not in `seconds`. */
  readonly phases: readonly Phase[];
}

/** A mesh that cannot. */
export interface RefusedMesh {
  /** Its extents. */
  readonly mesh: Mesh;
  /** Why, as the user may read it. */
  readonly reason: string;
  /** True if only memory is missing. */
  readonly memory: boolean;
}

/** All meshes of some ranks. */
export interface Survey {
  /** The fastest first. */
  readonly planned: readonly PlannedMesh[];
  /** Those that cannot train the model. */
  readonly refused: readonly RefusedMesh[];
}

/** The mesh to take. */
export interface Pick extends PlannedMesh {
  /** Why, in half a sentence. */
  readonly why: string;
}

/** Settings that save memory without changing the numbers, and their values, weakest first. */
const savers = [["zero", trainOptions.zero.choices!], ["recompute", trainOptions.recompute.choices!]] as const;

/** The settings themselves, then each that saves more memory: the last of `savers` changes least often. */
function strongerSettings(settings: CompleteSettings, mesh: Mesh): Partial<CompleteSettings>[] {
  return savers.reduce<Partial<CompleteSettings>[]>((all, [name, choices]) => {
    const stronger = choices.slice(choices.indexOf(settings[name]) + 1);
    // There is nobody to share with.
    if (name === "zero" && mesh.data === 1) return all;
    return [...all, ...stronger.flatMap((choice) => all.map((some) => ({ ...some, [name]: choice })))];
  }, [{}]);
}

/** Sequences of a copy's largest micro-batch. */
function largestMicroBatch(copies: readonly Copy[]): number {
  return Math.max(...copies.map(({ share, microBatchSize = share }) => microBatchSize));
}

/** The settings themselves, then with smaller micro-batches, unless their size was asked for. */
function smallerMicroBatches(settings: CompleteSettings, mesh: Mesh): Partial<CompleteSettings>[] {
  if (settings.microBatchSize !== undefined || settings.microBatches !== undefined) return [{}];
  const settled = largestMicroBatch(shareBatch(mesh, settings).copies);
  const smaller = Array.from({ length: settled - 1 }, (_, i) => settled - 1 - i).filter((size) => settled % size === 0);
  return [{}, ...smaller.map((microBatchSize) => ({ microBatchSize }))];
}

/** Ranks that differ: one of each stage, or of each kind of device or share of the batch on it. */
function representatives({ hardware }: PlanRequest, mesh: Mesh, copies: readonly Copy[]): number[] {
  const seen = new Map<string, number>();
  for (let rank = 0; rank < worldSize(mesh); rank++) {
    const { capabilities: { name, memoryBytes }, productFlops } = hardware[rank];
    const { pipeline, data } = coordinatesOf(mesh, rank);
    const key = [pipeline, copies[data].share, name, memoryBytes, productFlops].join("|");
    if (!seen.has(key)) seen.set(key, rank);
  }
  return [...seen.values()];
}

/** A mesh with settled settings, whether or not it fits. */
interface Attempt {
  readonly planned: PlannedMesh;
  /** Bytes that are missing; 0 if it fits. */
  readonly missing: number;
  readonly usable: number;
}

function attempt(request: PlanRequest, mesh: Mesh, changed: Partial<CompleteSettings>): Attempt {
  const { configuration, sequenceLength, hardware, machines = 1 } = request;
  const settings = { ...request.settings, ...changed };
  const { copies } = shareBatch(mesh, settings);
  const rows = hiddenRows(mesh, settings, copies, sequenceLength);
  const layouts = Array.from(
    { length: worldSize(mesh) },
    (_, rank) => layoutOf(configuration, mesh, rank, settings, copies[coordinatesOf(mesh, rank).data], machines),
  );
  const times: { copy: number; stage: number; times: RankTimes }[] = [];
  let largest: Plan | undefined;
  let [missing, usable] = [0, Infinity];
  for (const rank of representatives(request, mesh, copies)) {
    const { capabilities } = hardware[rank];
    const { data, pipeline } = coordinatesOf(mesh, rank);
    const batch = copies[data].microBatchSize ?? copies[data].share;
    const segments = ["train", "evaluate"] as const;
    const common = { configuration, sequenceLength, segments, dropout: settings.dropout };
    const plan = makePlan(buildModelGraph({ ...common, batch, layout: layouts[rank] }).graph, capabilities);
    if (!largest || plan.totalBytes > largest.totalBytes) largest = plan;
    const limit = usableMemory * (capabilities.memoryBytes ?? Infinity);
    if (plan.totalBytes - limit > missing) [missing, usable] = [plan.totalBytes - limit, limit];
    const groups = groupsOf(mesh, rank, configuration.keyValueHeads);
    // Ranks of other machines are in the group; who is alone on this one reads and writes its gradients for their sake.
    if (machines > 1 && mesh.data === 1) groups.set("data", [rank, worldSize(mesh)]);
    times.push({ copy: data, stage: pipeline, times: rankTimes(plan, layouts[rank], groups, hardware[rank]) });
  }
  // Of copies with other shares the slowest decides.
  const works = [...new Map(copies.map((copy) => [copy.share, copy])).values()].map((copy) => {
    const own = times.filter((one) => copies[one.copy].share === copy.share);
    const stages = Array.from(
      { length: mesh.pipeline },
      (_, stage) => own.filter((one) => one.stage === stage).map(({ times }) => times),
    );
    const shape = { stages: mesh.pipeline, microBatches: microBatchCount(copy), chunks: chunksOf(settings, mesh) };
    if (mesh.pipeline > 1) {
      return simulate(makeSchedule(settings.pipelineSchedule, shape), shape, slowestRanks(stages));
    }
    return { total: shape.microBatches * Math.max(...stages[0].map(({ action }) => action("forward", 0))), bubble: 0 };
  });
  const work = works.reduce((a, b) => b.total > a.total ? b : a);
  /** Of each stage the rank whose gradients are last. */
  const slowest = Array.from({ length: mesh.pipeline }, (_, stage) => {
    const all = times.filter((one) => one.stage === stage).map(({ times }) => times.lanes);
    const length = (lanes: readonly Lane[]) => lanes.reduce((sum, { seconds }) => sum + seconds, 0);
    return all.reduce((a, b) => length(b) > length(a) ? b : a);
  });
  const microBatches = Math.max(...copies.map(microBatchCount));
  const setups = makeExecutors(configuration, mesh, settings, layouts, rows, { allocate: nothing });
  const shared = setups.map((setup, rank) => communicationBytes(setup) + hostBytes(configuration, layouts[rank]));
  const planned = {
    mesh,
    microBatchSize: largestMicroBatch(copies),
    microBatches,
    settings: changed,
    bytes: largest!.bytes,
    totalBytes: largest!.totalBytes,
    communicationBytes: setups.length === 1 ? 0 : Math.max(...shared),
    seconds: work.total + Math.max(...times.map(({ times }) => times.once)),
    bubble: work.bubble,
    phases: phasesOf(slowest, mesh.tensor, microBatches),
  };
  return { planned, missing, usable };
}

/** Memory is counted, not taken. */
const nothing: Allocator = {
  shared: () => new SharedArrayBuffer(0),
  summed: () => allocator.summed(0),
};

/** Plans one mesh. */
export function planMesh(request: PlanRequest, mesh: Mesh): PlannedMesh | RefusedMesh {
  let least: Attempt | undefined;
  const refused = ({ message }: UserError) => ({ mesh, reason: message, memory: false });
  const sizes = possible(() => smallerMicroBatches(request.settings, mesh));
  if (sizes instanceof UserError) return refused(sizes);
  for (const changed of strongerSettings(request.settings, mesh)) {
    let before = Infinity;
    for (const smaller of sizes) {
      const found = possible(() => attempt(request, mesh, { ...changed, ...smaller }));
      if (found instanceof UserError) {
        if (!least) return refused(found);
        // Of what is tried to save memory not everything goes together.
        continue;
      }
      if (found.missing === 0) return found.planned;
      const { bytes, totalBytes } = found.planned;
      if (!least || totalBytes < least.planned.totalBytes) least = found;
      // Smaller micro-batches save activations only, and in some schedules not even these.
      if (totalBytes - bytes.activation - bytes.output > found.usable || totalBytes > 0.98 * before) break;
      before = totalBytes;
    }
  }
  const reason = `a rank needs ${formatBytes(least!.planned.totalBytes)}, but can use ${formatBytes(least!.usable)}`;
  return { mesh, reason, memory: true };
}

/** What `body` returns, or the `UserError` that it throws. */
function possible<T>(body: () => T): T | UserError {
  try {
    return body();
  } catch (error) {
    if (error instanceof UserError) return error;
    throw error;
  }
}

const axes = ["data", "pipeline", "tensor"] as const;

/** Plans every mesh of the ranks that the settings allow. `UserError` if there is none. */
export function surveyMeshes(request: PlanRequest): Survey {
  const ranks = request.hardware.length;
  const asked = askedMesh(request.settings);
  const meshes = meshesOf(ranks).filter((mesh) =>
    axes.every((axis) => asked[axis] === undefined || asked[axis] === mesh[axis])
  );
  // Where there is none, this tells the meshes that there are.
  if (meshes.length === 0) settleMesh(ranks, asked);
  const all = meshes.map((mesh) => planMesh(request, mesh));
  const planned = all.filter((one) => "seconds" in one).sort((a, b) => a.seconds - b.seconds);
  return { planned, refused: all.filter((one) => "reason" in one) };
}

/** `1.25 s`, `34.1 ms`. */
export function formatSeconds(seconds: number): string {
  const text = (value: number) => value.toPrecision(3).replace(/e.*/, "");
  return seconds >= 1 ? `${seconds >= 1000 ? Math.round(seconds) : text(seconds)} s` : `${text(seconds * 1e3)} ms`;
}

/** The flags that ask for a planned mesh. */
export function flagsOf({ mesh, settings }: PlannedMesh): string[] {
  const changed = Object.entries(settings).flatMap(([name, value]) => [`--${flagName(name)}`, String(value)]);
  const extents = { dp: mesh.data, pp: mesh.pipeline, tp: mesh.tensor };
  const flags = Object.entries(extents).flatMap(([name, extent]) => [`--${name}`, String(extent)]);
  return [...flags, ...changed];
}

/** The mesh to take of a survey: the fastest, of equally fast ones the first. `UserError` if there is none. */
export function pickOf({ planned, refused }: Survey): Pick {
  const [first, second] = planned;
  if (!first) {
    const reasons = refused.map(({ mesh, reason }) => `${nameMesh(mesh)}: ${reason}`).join("; ");
    throw new UserError(`No layout can train this: ${reasons}`);
  }
  const copies = refused.find(({ mesh, memory }) => memory && mesh.pipeline * mesh.tensor === 1);
  const changed = Object.entries(first.settings).map(([name, value]) => `--${flagName(name)} ${value}`);
  const why = [
    second
      ? `predicted ${formatSeconds(first.seconds)} a step, the next best, ${nameMesh(second.mesh)}, ` +
        formatSeconds(second.seconds)
      : refused.length > 0
      ? "the only layout that can train this"
      : "the only layout",
    ...(copies ? [`${nameMesh(copies.mesh)} does not fit in memory`] : []),
    ...(changed.length > 0 ? [`with ${changed.join(" ")}, since it would not fit otherwise`] : []),
  ].join("; ");
  return { ...first, why };
}

/** Picks a layout for a run. `UserError` if nothing fits. */
export function pickLayout(request: PlanRequest): Pick {
  return pickOf(surveyMeshes(request));
}
