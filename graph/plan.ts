/**
 * A graph made ready for one kind of device: its dispatches in order, and a place in a few buffers for every tensor.
 * Activations whose lives do not overlap share memory. A pure function: it tells the bytes before anything runs.
 * @module
 */

import { MachineError, UserError } from "../errors.ts";
import { imageSize } from "../gpu/bindings.ts";
import type { Capabilities } from "../gpu/capabilities.ts";
import { type CollectiveAttributes, isCollective } from "./collective.ts";
import { checkTypes, type Dispatch, type Target } from "./dispatch.ts";
import type { Graph, Op } from "./graph.ts";
import { assignImages, type ImageShape, type ImageUse } from "./images.ts";
import { alignment, cutsOf, layOut, type Part } from "./layout.ts";
import { elementCount, type Role, rowCount, rowSize, type Tensor } from "./tensor.ts";

/** A dispatch and the op it came from. */
export interface PlannedDispatch extends Dispatch {
  readonly op: Op;
  /** By window: the image that it is bound as. */
  readonly images?: readonly (ImageUse | undefined)[];
}

/** Dispatches with a collective behind them, or a segment's last dispatches. */
export interface Stretch {
  readonly dispatches: PlannedDispatch[];
  readonly collective: Op<CollectiveAttributes> | undefined;
}

/** Where a part of a tensor lies. */
export interface Placement {
  readonly buffer: number;
  /** Bytes. */
  readonly offset: number;
  /** First element of the tensor that lies here. */
  readonly start: number;
  /** Elements. */
  readonly length: number;
}

/** The result of planning. */
export interface Plan {
  readonly graph: Graph;
  readonly segments: ReadonlyMap<string, readonly Stretch[]>;
  /** Sizes of the buffers to create, in bytes. */
  readonly buffers: readonly number[];
  /** Textures to create, for windows that are bound as images. */
  readonly images: readonly ImageShape[];
  /** Placements by tensor id; those of scratch memory behind those of the graph's tensors. */
  readonly placements: readonly (readonly Placement[])[];
  /** Bytes by role, and of images; activations count once however many share the memory. */
  readonly bytes: Readonly<Record<Role | "image", number>>;
  /** Sum of `buffers` and `images`. */
  readonly totalBytes: number;
}

/** What the host reads and writes whether or not an op does. */
const hostRoles: readonly Role[] = ["input", "constant", "output"];

interface Life {
  block: number;
  bytes: number;
  first: number;
  last: number;
}

/** Plans `graph` for a device. `chunkBytes` may lower the size of buffers below what the device states. */
export function makePlan(graph: Graph, capabilities: Capabilities, chunkBytes = capabilities.chunkBytes): Plan {
  const limit = Math.floor(Math.min(chunkBytes, capabilities.bindingLimit) / 256) * 256;
  const laidOut = layOut(graph, limit);
  const layout = { parts: [...laidOut.parts], blocks: [...laidOut.blocks] };
  const tensors = [...graph.tensors];
  const segments = new Map<string, Stretch[]>();
  const lives: Life[] = layout.blocks.map(({ bytes, owner }, block) => {
    const kept = hostRoles.includes(owner.role);
    return { block, bytes, first: kept ? 0 : Infinity, last: kept ? Infinity : -1 };
  });
  let time = 0;
  const scratch = (shape: readonly number[]): Tensor | undefined => {
    const bytes = Math.ceil(4 * elementCount({ shape }) / alignment) * alignment;
    if (bytes > limit) return undefined;
    const id = tensors.length;
    const tensor: Tensor = { id, name: `scratch.${id}`, shape, dtype: "f32", role: "activation", rowUnit: 64 };
    tensors.push(tensor);
    const block = layout.blocks.push({ bytes, owner: tensor }) - 1;
    layout.parts.push([{ block, offset: 0, startRow: 0, rows: rowCount(tensor) }]);
    lives.push({ block, bytes, first: time, last: time });
    return tensor;
  };
  const target: Target = { capabilities, cuts: (tensor) => cutsOf(layout.parts[tensor.id]), scratch };
  for (const [name, ops] of graph.segments) {
    const stretches: Stretch[] = [];
    const begun = time;
    let dispatches: PlannedDispatch[] = [];
    for (const op of ops) {
      for (const tensor of [...op.inputs, ...op.outputs]) {
        for (const part of layout.parts[tensor.id]) {
          const life = lives[part.block];
          // Used in two segments: who knows in what order these are run. It is kept, and so is what is no activation.
          if (life.first < begun || layout.blocks[part.block].owner.role !== "activation") life.last = Infinity;
          life.first = Math.min(life.first, time);
          life.last = Math.max(life.last, time);
        }
      }
      if (isCollective(op)) {
        stretches.push({ dispatches, collective: op });
        dispatches = [];
      }
      for (const dispatch of op.definition.lower(op, target)) {
        checkTypes(dispatch);
        dispatches.push({ ...dispatch, op });
      }
      time++;
    }
    stretches.push({ dispatches, collective: undefined });
    segments.set(name, stretches);
  }

  const used = lives.filter((life) => life.last >= 0);
  const kept = pack(used.filter((life) => life.last === Infinity), limit);
  const shared = pack(used.filter((life) => life.last !== Infinity), limit);
  const buffers = [...kept.buffers, ...shared.buffers];
  const place = (part: Part, tensor: Tensor): Placement => {
    const inKept = kept.places.get(part.block);
    const found = inKept ?? shared.places.get(part.block);
    // A tensor that no op touches takes no memory.
    const { buffer, offset } = found ?? { buffer: -1, offset: 0 };
    return {
      buffer: inKept || !found ? buffer : buffer + kept.buffers.length,
      offset: offset + part.offset,
      start: part.startRow * rowSize(tensor),
      length: part.rows * rowSize(tensor),
    };
  };
  const placements = tensors.map((tensor) => layout.parts[tensor.id].map((part) => place(part, tensor)));

  const blocksOf = (tensor: Tensor) => layout.parts[tensor.id].map(({ block }) => block);
  const images = assignImages([...segments.values()].flat(), blocksOf);
  const imageBytes = images.reduce(
    (sum, { width, height, halves }) => {
      const [vectors, rows] = imageSize(width, height, halves);
      return sum + (halves ? 8 : 16) * vectors * rows;
    },
    0,
  );
  const bytes: Record<Role | "image", number> = {
    parameter: 0,
    gradient: 0,
    optimizer: 0,
    input: 0,
    constant: 0,
    output: 0,
    activation: shared.buffers.reduce((sum, size) => sum + size, 0),
    image: imageBytes,
  };
  for (const life of used) {
    const { role } = layout.blocks[life.block].owner;
    if (role !== "activation" || life.last === Infinity) bytes[role] += life.bytes;
  }
  const totalBytes = buffers.reduce((sum, size) => sum + size, imageBytes);
  return { graph, segments, buffers, images, placements, bytes, totalBytes };
}

/**
 * Places blocks in buffers of at most `limit` bytes, largest first, each in the lowest gap that is free for its whole
 * life (the greedy-by-size rule of Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020).
 */
function pack(lives: readonly Life[], limit: number) {
  const order = [...lives].sort((a, b) => b.bytes - a.bytes || a.first - b.first || a.block - b.block);
  const chunks: { size: number; placed: (Life & { offset: number })[] }[] = [];
  const places = new Map<number, { buffer: number; offset: number }>();
  for (const life of order) {
    let buffer = 0;
    let offset = -1;
    for (; buffer < chunks.length && offset < 0; buffer++) {
      let end = 0;
      for (const other of chunks[buffer].placed) {
        if (other.first > life.last || other.last < life.first) continue;
        if (other.offset - end >= life.bytes) break;
        end = Math.max(end, other.offset + other.bytes);
      }
      if (end + life.bytes <= limit) offset = end;
    }
    if (offset < 0) {
      chunks.push({ size: 0, placed: [] });
      buffer++;
      offset = 0;
    }
    const chunk = chunks[buffer - 1];
    const at = chunk.placed.findIndex((other) => other.offset > offset);
    chunk.placed.splice(at < 0 ? chunk.placed.length : at, 0, { ...life, offset });
    chunk.size = Math.max(chunk.size, offset + life.bytes);
    places.set(life.block, { buffer: buffer - 1, offset });
  }
  return { buffers: chunks.map((chunk) => chunk.size), places };
}

const partNames: Record<Role | "image", string> = {
  parameter: "weights",
  gradient: "gradients",
  optimizer: "optimizer",
  activation: "activations",
  input: "inputs",
  constant: "constants",
  output: "outputs",
  image: "textures",
};

/** `1.5 GiB`, `20.0 MiB`, `3 KiB`. */
export function formatBytes(bytes: number): string {
  if (bytes >= 2 ** 30) return `${(bytes / 2 ** 30).toFixed(2)} GiB`;
  if (bytes >= 2 ** 20) return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
  return `${Math.ceil(bytes / 1024)} KiB`;
}

/** `weights 3.2 MiB, gradients 3.2 MiB, …`: what a plan needs, part by part, largest first. */
export function describeBytes({ bytes }: Pick<Plan, "bytes">): string {
  return (Object.entries(bytes) as [Role | "image", number][])
    .filter(([, bytes]) => bytes >= 1024)
    .sort((a, b) => b[1] - a[1])
    .map(([role, bytes]) => `${partNames[role]} ${formatBytes(bytes)}`).join(", ");
}

/** Share of a device's memory that is planned for; drivers and other programs need the rest. */
export const usableMemory = 0.9;

/** Throws `UserError` if the plan needs more than 90% of `memoryBytes`, saying what takes it and what to lower. */
export function assertFits(plan: Plan, memoryBytes: number | undefined): void {
  if (memoryBytes === undefined || plan.totalBytes <= usableMemory * memoryBytes) return;
  const activations = plan.bytes.activation > plan.totalBytes / 3;
  const half = plan.graph.activationType === "f32" ? ", store them in half (--precision bf16)" : "";
  throw new UserError(
    `This run needs ${formatBytes(plan.totalBytes)} of device memory (${describeBytes(plan)}), ` +
      `but ${formatBytes(usableMemory * memoryBytes)} can be used; ` +
      (activations
        ? `lower --micro-batch-size or --sequence-length${half}, or compute activations again (--recompute block)`
        : "keep the optimizer in host memory (--cpu-offload optimizer), spread the model over GPUs (--zero 3, --pp, --tp), " +
          "or choose a smaller one (--layers, --width)"),
  );
}

/** Checks that every window of every dispatch lies inside one placement; a failure is a bug in an op's `lower`. */
export function placementOf(plan: Plan, tensor: Tensor, start: number, length: number): Placement {
  const found = plan.placements[tensor.id].find((p) => start >= p.start && start + length <= p.start + p.length);
  if (!found || found.buffer < 0) {
    throw new MachineError(
      `Internal error: elements ${start} to ${start + length} of ${tensor.name} (${elementCount(tensor)}) ` +
        `do not lie in one buffer`,
    );
  }
  return found;
}
