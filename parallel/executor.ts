/**
 * Carries out a memory's collectives: device to shared memory, sums by the host, shared memory to device.
 * @module
 */

import { type CollectiveAttributes, collectiveName, type Run } from "../graph/collective.ts";
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
  /** Host memory that ranks share, by name; what has no name here is the rank's own. */
  readonly hostMemories: Readonly<Record<string, SharedArrayBuffer>>;
}

/** The executor of a rank. */
export class SharedMemoryExecutor implements CollectiveExecutor {
  readonly status: RunStatus;
  readonly #groups: ReadonlyMap<string, Group>;
  readonly #channels: ReadonlyMap<string, Channel>;
  readonly #hostMemories: Map<string, Float32Array>;
  readonly #names = new Map<Op<CollectiveAttributes>, string>();
  /** Time spent in collectives, copies included, in ms. */
  milliseconds = 0;

  constructor(readonly setup: ExecutorSetup, limit: WaitLimit) {
    const { rank, groups, channels, hostMemories } = setup;
    this.status = new RunStatus(setup.status);
    this.#groups = new Map(
      Object.entries(groups).map(([name, group]) => [name, new Group(group, rank, this.status, limit)]),
    );
    this.#channels = new Map(
      Object.entries(channels).map(([name, channel]) => [name, new Channel(channel, rank, this.status, limit)]),
    );
    this.#hostMemories = new Map(
      Object.entries(hostMemories).map(([name, memory]) => [name, new Float32Array(memory)]),
    );
  }

  hostMemory(name: string, elements: number): Float32Array {
    let memory = this.#hostMemories.get(name);
    if (!memory) {
      memory = new Float32Array(elements);
      this.#hostMemories.set(name, memory);
    }
    if (memory.length < elements) throw new Error(`Host memory ${name} has ${memory.length} elements, not ${elements}`);
    return memory;
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
    // Reading back waits for the device: what that still computes is no time of the collective.
    const { kind } = op.attributes;
    if (kind !== "receive" && kind !== "fromHost") memory.device.drain();
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
    if (kind === "toHost" || kind === "fromHost") {
      const elements = elementCount(kind === "toHost" ? x : y);
      const host = this.hostMemory(attributes.group, start + elements).subarray(start, start + elements);
      if (kind === "toHost") return void await memory.readInto(x, host);
      // The upload is queued behind what has been submitted: the host copies while the device computes that.
      return memory.write(y, host);
    }
    const group = this.group(attributes.group);
    const length = attributes.length ?? elementCount(x) - start;
    if (kind === "allReduce") {
      if (group.size === 1) return;
      if (length > group.areaElements) return await allReduceInPieces(group, memory, x, start, length);
      await bring(group, memory, x, start, length);
      return () => Promise.resolve(finishAllReduce(group, memory, x, start, length));
    }
    const share = elementCount(kind === "allGather" ? y : x) / group.size;
    // Where this rank's part is: in the whole tensor, or in one of its own.
    const part = { start: attributes.inPlace ? group.index * share : 0, length: share };
    if (kind === "allGather") return await allGather(group, memory, x, y, part);
    if (elementCount(x) > group.areaElements) return await reduceScatterInPieces(group, memory, x, y, part);
    await bring(group, memory, x, 0, elementCount(x));
    return () => Promise.resolve(finishReduceScatter(group, memory, y, part));
  }
}

/** The sum of what all members brought to their areas: `take` is given each slice and where it begins. */
export function finishSum(group: Group, length: number, take: (slice: Float32Array, start: number) => void): void {
  group.meet();
  group.sumOwn(...group.slice(group.index, length));
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

/** Every member brings all; member i keeps the i-th of equal parts of the sum, at `part` of `y`. */
function finishReduceScatter(group: Group, memory: TensorMemory, y: Tensor, part: Run): void {
  group.meet();
  const from = group.index * part.length;
  // The own area's own part is read by nobody else.
  memory.write(y, group.sumOwn(from, from + part.length), part.start);
}

async function reduceScatterInPieces(
  group: Group,
  memory: TensorMemory,
  x: Tensor,
  y: Tensor,
  part: Run,
): Promise<void> {
  const most = Math.floor(group.areaElements / group.size / 64) * 64;
  for (let done = 0; done < part.length; done += most) {
    const count = Math.min(most, part.length - done);
    group.next();
    for (let i = 0; i < group.size; i++) {
      await memory.readInto(x, group.own.subarray(i * count, (i + 1) * count), i * part.length + done);
    }
    group.meet();
    memory.write(y, group.sumOwn(group.index * count, (group.index + 1) * count), part.start + done);
  }
}

/** Every member brings its part, which is at `part` of `x`. */
async function allGather(group: Group, memory: TensorMemory, x: Tensor, y: Tensor, part: Run): Promise<void> {
  for (let done = 0; done < part.length; done += group.areaElements) {
    const count = Math.min(group.areaElements, part.length - done);
    await bring(group, memory, x, part.start + done, count);
    group.meet();
    for (let i = 0; i < group.size; i++) {
      if (x === y && i === group.index) continue;
      memory.write(y, group.area(i).subarray(0, count), i * part.length + done);
    }
  }
}
