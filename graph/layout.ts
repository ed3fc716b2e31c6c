/**
 * Where tensors are cut: nothing that a kernel binds, and no buffer, may exceed the device's limits, so a large tensor
 * is laid out in several parts, each a run of whole rows.
 * @module
 */

import { UserError } from "../errors.ts";
import type { Bank, Graph } from "./graph.ts";
import { alignedElements, bytesOf, elementCount, rowCount, rowSize, type Tensor } from "./tensor.ts";

/** Every tensor starts at a multiple of this many bytes: the largest binding offset alignment that WebGPU allows. */
export const alignment = 256;

/** A run of rows of a tensor inside one block of memory. */
export interface Part {
  /** Index into `Layout.blocks`. */
  readonly block: number;
  /** Bytes from the block's start. */
  readonly offset: number;
  readonly startRow: number;
  readonly rows: number;
}

/** Memory that stays together: one tensor's part, or a chunk of a bank. */
export interface Block {
  readonly bytes: number;
  /** The tensor (for a bank its flat tensor) that it belongs to; it decides how long the block lives. */
  readonly owner: Tensor;
}

/** Parts of every tensor. */
export interface Layout {
  readonly blocks: readonly Block[];
  /** Parts by tensor id, in order of rows. */
  readonly parts: readonly (readonly Part[])[];
}

/** Row indices at which the parts of a tensor begin, and the end: `[0, …, rowCount]`. */
export function cutsOf(parts: readonly Part[]): number[] {
  const last = parts[parts.length - 1];
  return [...parts.map((part) => part.startRow), last.startRow + last.rows];
}

function padded(bytes: number): number {
  return Math.ceil(bytes / alignment) * alignment;
}

/** Rows in all parts but the last of a tensor that exceeds `limit` bytes: a multiple of `unit`. */
function rowsPerPart(tensor: Tensor, limit: number, unit = tensor.rowUnit): number {
  const rowBytes = rowSize(tensor) * bytesOf(tensor.dtype);
  const rows = Math.floor(limit / rowBytes / unit) * unit;
  if (rows === 0) {
    throw new UserError(
      `${tensor.name} cannot be cut into pieces of ${limit} bytes, the most that this device binds at once: ` +
        `${unit} rows take ${unit * rowBytes} bytes; use a shorter sequence or a narrower model`,
    );
  }
  return rows;
}

function layOutTensor(tensor: Tensor, limit: number, blocks: Block[]): Part[] {
  const rows = rowCount(tensor);
  const rowBytes = rowSize(tensor) * bytesOf(tensor.dtype);
  const step = rows * rowBytes <= limit ? rows : rowsPerPart(tensor, limit);
  const parts: Part[] = [];
  for (let start = 0; start < rows; start += step) {
    const count = Math.min(step, rows - start);
    parts.push({ block: blocks.length, offset: 0, startRow: start, rows: count });
    blocks.push({ bytes: padded(count * rowBytes), owner: tensor });
  }
  return parts;
}

/** Members one behind the other in chunks of at most `limit` bytes; only a member larger than that is cut. */
function layOutBank(bank: Bank, limit: number, blocks: Block[], parts: (readonly Part[])[]): void {
  const bytes = bytesOf(bank.tensor.dtype);
  const padded = (size: number) => Math.ceil(size / (alignedElements * bytes)) * alignedElements * bytes;
  const chunks: { block: number; bytes: number }[] = [];
  let used = limit;
  const grow = (bytes: number): number => {
    if (used + bytes > limit) {
      chunks.push({ block: blocks.length + chunks.length, bytes: 0 });
      used = 0;
    }
    const offset = used;
    used += bytes;
    chunks[chunks.length - 1].bytes = used;
    return offset;
  };
  for (const member of bank.members) {
    const rows = rowCount(member);
    const rowBytes = rowSize(member) * bytes;
    const whole = padded(rows * rowBytes);
    // Parts of a member follow each other without padding.
    const unit = rowSize(member) * member.rowUnit % alignedElements === 0 ? member.rowUnit : 2 * member.rowUnit;
    const step = whole <= limit ? rows : rowsPerPart(member, limit, unit);
    const own: Part[] = [];
    for (let start = 0; start < rows; start += step) {
      const count = Math.min(step, rows - start);
      const offset = grow(padded(count * rowBytes));
      own.push({ block: chunks[chunks.length - 1].block, offset, startRow: start, rows: count });
    }
    parts[member.id] = own;
  }
  const padding = elementCount(bank.tensor) * bytes - chunks.reduce((sum, { bytes }) => sum + bytes, 0);
  if (padding > 0) grow(padding);
  let start = 0;
  parts[bank.tensor.id] = chunks.map(({ block, bytes: size }) => {
    const part = { block, offset: 0, startRow: start, rows: size / bytes };
    start += part.rows;
    return part;
  });
  if (start !== elementCount(bank.tensor)) throw new Error(`Bank ${bank.tensor.name} has ${start} elements`);
  for (const { bytes } of chunks) blocks.push({ bytes, owner: bank.tensor });
}

/** The parts of a view: those of the whole, as far as its rows reach. */
function partsOfView(view: Tensor, start: number, whole: readonly Part[]): Part[] {
  const rowBytes = rowSize(view) * bytesOf(view.dtype);
  const end = start + rowCount(view);
  return whole.flatMap((part) => {
    const from = Math.max(start, part.startRow);
    const to = Math.min(end, part.startRow + part.rows);
    if (from >= to) return [];
    const offset = part.offset + (from - part.startRow) * rowBytes;
    if (offset % alignment !== 0) throw new Error(`${view.name} begins at byte ${offset} of its memory`);
    return [{ block: part.block, offset, startRow: from - start, rows: to - from }];
  });
}

/** Cuts every tensor of `graph` so that no part exceeds `limit` bytes. */
export function layOut(graph: Graph, limit: number): Layout {
  const blocks: Block[] = [];
  const parts: (readonly Part[])[] = new Array(graph.tensors.length);
  for (const bank of graph.banks.values()) layOutBank(bank, limit, blocks, parts);
  const place = (tensor: Tensor): readonly Part[] => {
    const view = graph.views.get(tensor.id);
    return parts[tensor.id] ??= view
      ? partsOfView(tensor, view.start, place(view.whole))
      : layOutTensor(tensor, limit, blocks);
  };
  graph.tensors.forEach(place);
  return { blocks, parts };
}
