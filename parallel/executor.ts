/**
 * Carries out a memory's collectives: device to shared memory, sums by the host, shared memory to device.
 * @module
 */

import { type CollectiveAttributes, collectiveName, type Run } from "../graph/collective.ts";
import type { Op } from "../graph/graph.ts";
import type { CollectiveExecutor } from "../graph/executor.ts";
import { elementCount, type Tensor } from "../graph/tensor.ts";
import { asElements, type TensorMemory } from "../graph/tensor_memory.ts";
import { Channel, type ChannelSetup } from "./channel.ts";
import type { GroupSetup } from "./group_setup.ts";
import { Group, type WaitLimit } from "./shared_memory.ts";
import { allReduceParts, reduceScatterParts, sumHere, type Summand, takeSum } from "./summands.ts";
import { RunStatus } from "./status.ts";

/** A sum that the network is making. */
interface SumUnderWay {
  readonly group: Group;
  readonly exchange: number;
  readonly asked: number;
  readonly summand: Summand;
}

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
  readonly #summands = new Map<Op<CollectiveAttributes>, readonly Summand[]>();
  /** Buffers of each group so far. */
  readonly #buckets = new Map<Group, number>();
  /** The oldest first. */
  readonly #underWay: SumUnderWay[] = [];
  /** Time spent in collectives, copies included, in ms. */
  milliseconds = 0;
  /** What gradients are multiplied by; on all ranks the same. */
  scale = 1;

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

  /** The sums of numbers over all ranks of all machines; `what` names them in reports. */
  sumNumbers(what: string, values: readonly number[], group = "run"): number[] {
    const { status, setup: { rank } } = this;
    const began = performance.now();
    status.entering(rank, what);
    const sums = this.group(group).sumNumbers(values);
    status.leaving(rank);
    this.milliseconds += performance.now() - began;
    return sums;
  }

  /** Waits until all ranks of this machine have come here; `what` names it in reports. */
  meet(what: string): void {
    this.sumNumbers(what, [0], "world");
  }

  /** Finishes what the network still has to do. */
  async settle(): Promise<void> {
    if (this.#underWay.length === 0) return;
    await this.#timed("the sums over all machines", () => Promise.resolve(this.#takeSums(() => true)));
  }

  /** Takes sums over machines, in order: those that are there, and those that must be. */
  #takeSums(must: (sum: SumUnderWay) => boolean): void {
    const [...all] = this.#underWay;
    for (const sum of all) {
      const { group, exchange, asked, summand } = sum;
      if (must(sum)) group.awaitMachines(asked);
      else if (!group.isThere(asked)) return;
      this.#underWay.shift();
      takeSum(group, exchange, summand);
    }
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
    op: Op<CollectiveAttributes>,
    memory: TensorMemory,
  ): Promise<void | (() => Promise<void>)> {
    const { attributes, inputs: [x], outputs: [y] } = op;
    const { kind, start = 0 } = attributes;
    if (kind === "send") {
      const channel = this.#channel(attributes.group);
      await memory.readInto(x, asElements(x, channel.room().subarray(0, elementCount(x))));
      return channel.sent();
    }
    if (kind === "receive") {
      const channel = this.#channel(attributes.group);
      memory.write(y, asElements(y, channel.message().subarray(0, elementCount(y))));
      return channel.taken();
    }
    if (kind === "toHost" || kind === "fromHost") {
      const tensor = kind === "toHost" ? x : y;
      const elements = elementCount(tensor);
      const host = asElements(tensor, this.hostMemory(attributes.group, start + elements))
        .subarray(start, start + elements);
      if (kind === "toHost") return void await memory.readInto(x, host);
      // The upload is queued behind what has been submitted: the host copies while the device computes that.
      return memory.write(y, host);
    }
    const group = this.group(attributes.group);
    const length = attributes.length ?? elementCount(x) - start;
    const known = this.#summands.get(op);
    if (known) return await this.#sum(group, known);
    const sum = (summands: readonly Summand[]) => {
      this.#summands.set(op, summands);
      for (const summand of summands) {
        summand.bucket = this.#buckets.get(group) ?? 0;
        this.#buckets.set(group, summand.bucket + 1);
      }
      return this.#sum(group, summands);
    };
    if (kind === "allReduce" && group.size === 1 && !group.setup.machines) return;
    if (kind === "allReduce") return await sum(allReduceParts(group, memory, x, start, length));
    const share = elementCount(kind === "allGather" ? y : x) / group.size;
    // Where this rank's part is: in the whole tensor, or in one of its own.
    const part = { start: attributes.inPlace ? group.index * share : 0, length: share };
    if (kind === "allGather") return await allGather(group, memory, x, y, part);
    return await sum(reduceScatterParts(group, memory, x, y, part));
  }

  /** Exchanges what does not fit an area piece by piece; the last exchange is begun, and returned. */
  async #sum(group: Group, summands: readonly Summand[]): Promise<void | (() => Promise<void>)> {
    for (const [i, summand] of summands.entries()) {
      const exchange = group.next();
      // All members must have taken what was in an area before somebody brings something there.
      const least = exchange - (group.setup.turns - 1);
      this.#takeSums((sum) => sum.group === group && sum.exchange <= least);
      await summand.bring(group.own);
      const finish = () => Promise.resolve(this.#finishSum(group, exchange, summand));
      if (i === summands.length - 1) return finish;
      await finish();
    }
  }

  /** The sum over this machine's members; over machines it is only asked for. */
  #finishSum(group: Group, exchange: number, summand: Summand): void {
    sumHere(group, exchange, summand);
    if (!group.setup.machines) return takeSum(group, exchange, summand);
    if (summand.ownOnly) group.meet();
    this.#underWay.push({
      group,
      exchange,
      asked: group.askMachines(exchange, summand.length, summand.bucket, this.scale),
      summand,
    });
    this.#takeSums(() => false);
  }
}

/** Every member brings its part, which is at `part` of `x`. */
async function allGather(group: Group, memory: TensorMemory, x: Tensor, y: Tensor, part: Run): Promise<void> {
  for (let done = 0; done < part.length; done += group.areaElements) {
    const count = Math.min(group.areaElements, part.length - done);
    group.next();
    await memory.readInto(x, asElements(x, group.own).subarray(0, count), part.start + done);
    group.meet();
    for (let i = 0; i < group.size; i++) {
      if (x === y && i === group.index) continue;
      memory.write(y, asElements(y, group.area(i)).subarray(0, count), i * part.length + done);
    }
  }
}
