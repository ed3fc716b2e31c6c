/**
 * Carries out a memory's collectives: device to shared memory, sums by the host, shared memory to device.
 * @module
 */

import { type CollectiveAttributes, collectiveName } from "../graph/collective.ts";
import type { Op } from "../graph/graph.ts";
import type { CollectiveExecutor } from "../graph/executor.ts";
import { elementCount, type Tensor } from "../graph/tensor.ts";
import type { TensorMemory } from "../graph/tensor_memory.ts";
import { Channel, type ChannelSetup } from "./channel.ts";
import { Group, type GroupSetup, type WaitLimit } from "./shared_memory.ts";
import { RunStatus } from "./status.ts";

/** Plain data from which a rank makes its executor. */
export interface ExecutorSetup {
  readonly rank: number;
  readonly status: SharedArrayBuffer;
  readonly groups: Readonly<Record<string, GroupSetup>>;
  readonly channels: Readonly<Record<string, ChannelSetup>>;
}

/** The executor of a rank. */
export class SharedMemoryExecutor implements CollectiveExecutor {
  readonly status: RunStatus;
  readonly #groups: ReadonlyMap<string, Group>;
  readonly #channels: ReadonlyMap<string, Channel>;
  readonly #names = new Map<Op<CollectiveAttributes>, string>();
  /** Time spent in collectives, copies included, in ms. */
  milliseconds = 0;

  constructor(readonly setup: ExecutorSetup, limit: WaitLimit) {
    const { rank, groups, channels } = setup;
    this.status = new RunStatus(setup.status);
    this.#groups = new Map(
      Object.entries(groups).map(([name, group]) => [name, new Group(group, rank, this.status, limit)]),
    );
    this.#channels = new Map(
      Object.entries(channels).map(([name, channel]) => [name, new Channel(channel, rank, this.status, limit)]),
    );
  }

  /** The group `name`. */
  group(name: string): Group {
    const group = this.#groups.get(name);
    if (!group) throw new Error(`Rank ${this.setup.rank} is in no group ${name}`);
    return group;
  }

  #channel(name: string): Channel {
    const channel = this.#channels.get(name);
    if (!channel) throw new Error(`Rank ${this.setup.rank} has no channel ${name}`);
    return channel;
  }

  /** Reads what this rank brings; the exchange is done at once, or returned if it can wait. */
  async execute(op: Op<CollectiveAttributes>, memory: TensorMemory): Promise<void | (() => Promise<void>)> {
    let name = this.#names.get(op);
    if (name === undefined) this.#names.set(op, name = collectiveName(op));
    const known = name;
    const rest = await this.#timed(known, () => this.#begin(op, memory));
    return rest && (() => this.#timed(known, rest));
  }

  /** The sums of numbers over all ranks; `what` names them in reports. */
  sumNumbers(what: string, values: readonly number[]): number[] {
    const { status, setup: { rank } } = this;
    status.entering(rank, what);
    const sums = this.group("world").sumNumbers(values);
    status.leaving(rank);
    return sums;
  }

  /** A sign of life; ends this rank if another has failed. */
  alive(): void {
    this.status.beat(this.setup.rank);
    this.status.check();
  }

  async #timed<T>(collective: string, body: () => Promise<T>): Promise<T> {
    const { status, setup: { rank } } = this;
    const began = performance.now();
    status.entering(rank, collective);
    const result = await body();
    status.leaving(rank);
    this.milliseconds += performance.now() - began;
    return result;
  }

  async #begin(
    { attributes, inputs: [x], outputs: [y] }: Op<CollectiveAttributes>,
    memory: TensorMemory,
  ): Promise<void | (() => Promise<void>)> {
    const { kind, start = 0 } = attributes;
    if (kind === "send") {
      const channel = this.#channel(attributes.group);
      await memory.readInto(x, channel.room());
      return channel.sent();
    }
    if (kind === "receive") {
      const channel = this.#channel(attributes.group);
      memory.write(y, channel.message());
      return channel.taken();
    }
    const group = this.group(attributes.group);
    const length = attributes.length ?? elementCount(x) - start;
    if (kind === "allReduce") {
      if (group.size === 1) return;
      if (length > group.areaElements) return await allReduceInPieces(group, memory, x, start, length);
      await bring(group, memory, x, start, length);
      return () => Promise.resolve(finishAllReduce(group, memory, x, start, length));
    }
    if (kind === "allGather") return await allGather(group, memory, x, y);
    if (elementCount(x) > group.areaElements) return await reduceScatterInPieces(group, memory, x, y);
    await bring(group, memory, x, 0, elementCount(x));
    return () => Promise.resolve(finishReduceScatter(group, memory, y));
  }
}

/** The sum of what all members brought to their areas: `take` is given each slice and where it begins. */
export function finishSum(group: Group, length: number, take: (slice: Float32Array, start: number) => void): void {
  group.meet();
  const [from, to] = group.slice(group.index, length);
  group.sumInto(group.own.subarray(from, to), from, to);
  group.meet();
  for (let i = 0; i < group.size; i++) {
    const [from, to] = group.slice(i, length);
    if (from < to) take(group.area(i).subarray(from, to), from);
  }
}

async function bring(group: Group, memory: TensorMemory, x: Tensor, start: number, length: number): Promise<void> {
  group.next();
  await memory.readInto(x, group.own.subarray(0, length), start);
}

function finishAllReduce(group: Group, memory: TensorMemory, x: Tensor, start: number, length: number): void {
  finishSum(group, length, (slice, from) => memory.write(x, slice, start + from));
}

async function allReduceInPieces(
  group: Group,
  memory: TensorMemory,
  x: Tensor,
  start: number,
  length: number,
): Promise<void> {
  for (let done = 0; done < length; done += group.areaElements) {
    const count = Math.min(group.areaElements, length - done);
    await bring(group, memory, x, start + done, count);
    finishAllReduce(group, memory, x, start + done, count);
  }
}

/** Every member brings all; member i keeps the i-th of equal parts of the sum. */
function finishReduceScatter(group: Group, memory: TensorMemory, y: Tensor): void {
  group.meet();
  const share = elementCount(y);
  const from = group.index * share;
  // The own area's own part is read by nobody else.
  const sum = group.own.subarray(from, from + share);
  group.sumInto(sum, from, from + share);
  memory.write(y, sum);
}

async function reduceScatterInPieces(group: Group, memory: TensorMemory, x: Tensor, y: Tensor): Promise<void> {
  const share = elementCount(y);
  const most = Math.floor(group.areaElements / group.size / 64) * 64;
  for (let done = 0; done < share; done += most) {
    const count = Math.min(most, share - done);
    group.next();
    for (let i = 0; i < group.size; i++) {
      await memory.readInto(x, group.own.subarray(i * count, (i + 1) * count), i * share + done);
    }
    group.meet();
    const sum = group.own.subarray(group.index * count, (group.index + 1) * count);
    group.sumInto(sum, group.index * count, (group.index + 1) * count);
    memory.write(y, sum, done);
  }
}

async function allGather(group: Group, memory: TensorMemory, x: Tensor, y: Tensor): Promise<void> {
  const share = elementCount(x);
  for (let done = 0; done < share; done += group.areaElements) {
    const count = Math.min(group.areaElements, share - done);
    await bring(group, memory, x, done, count);
    group.meet();
    for (let i = 0; i < group.size; i++) memory.write(y, group.area(i).subarray(0, count), i * share + done);
  }
}
