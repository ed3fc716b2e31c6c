/**
 * The mesh of ranks: data x pipeline x tensor. Ranks of one tensor-parallel group are neighbours, then come the stages of
 * a pipeline, then its copies.
 * @module
 */

import { UserError } from "../errors.ts";
import type { ModelConfiguration } from "../model/configuration.ts";
import { localSizes, type ModelPart, type Shard } from "../model/part.ts";

/** Extents of the mesh; their product is the number of ranks. */
export interface Mesh {
  /** Copies of the model. */
  readonly data: number;
  /** Stages of each copy. */
  readonly pipeline: number;
  /** Ranks over which each block is split. */
  readonly tensor: number;
}

/** Where a rank stands. */
export type Coordinates = Mesh;

/** Number of ranks. */
export function worldSize({ data, pipeline, tensor }: Mesh): number {
  return data * pipeline * tensor;
}

/** Where `rank` stands. */
export function coordinatesOf(mesh: Mesh, rank: number): Coordinates {
  return {
    tensor: rank % mesh.tensor,
    pipeline: Math.floor(rank / mesh.tensor) % mesh.pipeline,
    data: Math.floor(rank / (mesh.tensor * mesh.pipeline)),
  };
}

/** The rank that stands there. */
export function rankAt(mesh: Mesh, { data, pipeline, tensor }: Coordinates): number {
  return (data * mesh.pipeline + pipeline) * mesh.tensor + tensor;
}

/** `dp 2 pp 4`: a mesh by the names of its flags, extents of 1 left out. */
export function nameMesh({ data, pipeline, tensor }: Mesh): string {
  const parts = [["dp", data], ["pp", pipeline], ["tp", tensor]].filter(([, extent]) => extent !== 1);
  return parts.length === 0 ? "one rank" : parts.map((part) => part.join(" ")).join(" ");
}

/** Every mesh of `ranks` ranks. */
export function meshesOf(ranks: number): Mesh[] {
  const meshes: Mesh[] = [];
  for (let tensor = 1; tensor <= ranks; tensor++) {
    for (let pipeline = 1; tensor * pipeline <= ranks; pipeline++) {
      if (ranks % (tensor * pipeline) === 0) meshes.push({ data: ranks / (tensor * pipeline), pipeline, tensor });
    }
  }
  return meshes;
}

/** Extents that are asked for; the others are left open. */
export type AskedMesh = { readonly [K in keyof Mesh]?: Mesh[K] | undefined };

/** The mesh that flags ask for, for so many ranks; what is left open becomes data-parallel. `UserError` if none fits. */
export function settleMesh(ranks: number, asked: AskedMesh): Mesh {
  const { pipeline = 1, tensor = 1 } = asked;
  const data = asked.data ?? ranks / (pipeline * tensor);
  if (data * pipeline * tensor === ranks && Number.isInteger(data)) return { data, pipeline, tensor };
  const valid = meshesOf(ranks).map((mesh) => `--dp ${mesh.data} --pp ${mesh.pipeline} --tp ${mesh.tensor}`);
  const given = `${asked.data === undefined ? "" : `--dp ${asked.data} `}--pp ${pipeline} --tp ${tensor}`;
  throw new UserError(
    `${given} does not make up ${ranks} rank${ranks === 1 ? "" : "s"}: choose ${valid.join(", or ")}`,
  );
}

/** Blocks of each of `parts` parts: as equal as can be by `costs` of blocks, given what first and last part cost besides. */
function splitLayers(layers: number, parts: number, ends = { first: 0, last: 0 }): [number, number][] {
  if (parts > layers) throw new UserError(`${parts} pipeline stages need as many blocks, but the model has ${layers}`);
  // Least possible largest cost, by trying all numbers of blocks that the costliest part may have.
  const extra = (part: number) => (part === 0 ? ends.first : 0) + (part === parts - 1 ? ends.last : 0);
  const candidates = Array.from({ length: parts }, (_, part) => extra(part)).flatMap((own) =>
    Array.from({ length: layers }, (_, n) => own + n + 1)
  ).sort((a, b) => a - b);
  for (const limit of candidates) {
    const most = Array.from({ length: parts }, (_, part) => Math.max(1, Math.floor(limit - extra(part) + 1e-9)));
    const fits = most.every((_, part) => 1 + extra(part) <= limit + 1e-9);
    if (!fits || most.reduce((a, b) => a + b, 0) < layers) continue;
    // Earlier stages hold activations for longer, so they get fewer blocks where there is a choice.
    let spare = most.reduce((a, b) => a + b, 0) - layers;
    const counts = most.map((own) => {
      const less = Math.min(spare, own - 1);
      spare -= less;
      return own - less;
    });
    let at = 0;
    return counts.map((count): [number, number] => [at, at += count]);
  }
  throw new Error("unreachable");
}

/** What of the model a rank holds, one part for each of its chunks (several in interleaved pipelines). */
export function partsOf(
  configuration: ModelConfiguration,
  mesh: Mesh,
  rank: number,
  options: { chunks?: number; sequenceParallel?: boolean } = {},
): { parts: ModelPart[]; indices: number[]; total: number } {
  const { chunks = 1, sequenceParallel = false } = options;
  const { pipeline, tensor } = coordinatesOf(mesh, rank);
  const total = mesh.pipeline * chunks;
  const shard: Shard = { size: mesh.tensor, index: tensor };
  localSizes(configuration, shard);
  // The head is as large as so many blocks, by multiply-adds.
  const { width, vocabularySize, hiddenWidth } = configuration;
  const block = 4 * width * width + (configuration.family === "gpt2" ? 2 : 3) * width * hiddenWidth;
  const ranges = splitLayers(configuration.layers, total, { first: 0, last: vocabularySize * width / block });
  const indices = Array.from({ length: chunks }, (_, chunk) => chunk * mesh.pipeline + pipeline);
  const parts = indices.map((index): ModelPart => ({
    tensor: shard,
    layers: ranges[index],
    embedding: index === 0,
    head: index === total - 1,
    sequenceParallel: sequenceParallel && mesh.tensor > 1,
  }));
  return { parts, indices, total };
}

/** The groups of ranks that carry out collectives together, by the names that collectives use, as seen by `rank`. */
export function groupsOf(mesh: Mesh, rank: number, keyValueHeads: number): Map<string, number[]> {
  const own = coordinatesOf(mesh, rank);
  const range = (count: number) => Array.from({ length: count }, (_, i) => i);
  const groups = new Map<string, number[]>([
    ["world", range(worldSize(mesh))],
    ["run", range(worldSize(mesh))],
    ["tensor", range(mesh.tensor).map((tensor) => rankAt(mesh, { ...own, tensor }))],
    ["data", range(mesh.data).map((data) => rankAt(mesh, { ...own, data }))],
    ["tied", [...new Set([0, mesh.pipeline - 1])].map((pipeline) => rankAt(mesh, { ...own, pipeline }))],
  ]);
  if (mesh.tensor > keyValueHeads) {
    const copies = mesh.tensor / keyValueHeads;
    const first = Math.floor(own.tensor / copies) * copies;
    groups.set("keyValue", range(copies).map((i) => rankAt(mesh, { ...own, tensor: first + i })));
  }
  return groups;
}
