/** A thread that takes part in collectives as one rank. */

import type { CollectiveAttributes, CollectiveKind } from "../../graph/collective.ts";
import type { Op } from "../../graph/graph.ts";
import type { Tensor } from "../../graph/tensor.ts";
import type { TensorMemory } from "../../graph/tensor_memory.ts";
import { Channel, type ChannelSetup } from "../../parallel/channel.ts";
import { type ExecutorSetup, SharedMemoryExecutor } from "../../parallel/executor.ts";
import { awaitCounter } from "../../parallel/shared_memory.ts";
import { RunStatus } from "../../parallel/status.ts";

interface Common {
  readonly rank: number;
  readonly status: SharedArrayBuffer;
}

/** A collective of the group `world`: what this rank brings, and how many elements it gets. */
export interface Call {
  readonly kind: CollectiveKind;
  readonly input: Float32Array;
  readonly length: number;
}

/** What a rank is to do. */
export type CollectiveTask =
  & Common
  & (
    | { kind: "collectives"; setup: ExecutorSetup; calls: readonly Call[] }
    | { kind: "numbers"; setup: ExecutorSetup; values: readonly number[] }
    | { kind: "send"; channel: ChannelSetup; count: number }
    | { kind: "receive"; channel: ChannelSetup; count: number; pause: number }
    | { kind: "wait"; counters: SharedArrayBuffer; other: number; index: number; limit: number }
    | { kind: "work"; counters: SharedArrayBuffer; beats: number; pause: number }
    | { kind: "fail"; counters: SharedArrayBuffer }
  );

/** What came of it. */
export type CollectiveAnswer =
  | { kind: "collectives"; results: readonly Float32Array[] }
  | { kind: "numbers"; sums: readonly number[] }
  | { kind: "send"; aheadMost: number }
  | { kind: "receive"; messages: readonly number[] }
  | { kind: "wait"; error: string }
  | { kind: "work" }
  | { kind: "fail" };

const limit = () => 20_000;
const pause = (milliseconds: number) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);

/** Carries a collective out as a program does, with arrays for a device's memory. */
async function execute(executor: SharedMemoryExecutor, { kind, input, length }: Call): Promise<Float32Array> {
  const inPlace = kind === "allReduce";
  const arrays = [input.slice(), inPlace ? undefined : new Float32Array(length)];
  const data = (tensor: Tensor) => arrays[tensor.id] ?? arrays[0]!;
  const memory = {
    device: { drain: () => {} },
    write: (tensor: Tensor, values: Float32Array, start = 0) => data(tensor).set(values, start),
    readInto: (tensor: Tensor, target: Float32Array, start = 0) => {
      target.set(data(tensor).subarray(start, start + target.length));
      return Promise.resolve(target);
    },
  } as unknown as TensorMemory;
  const tensor = (id: number, length: number) => ({ id, name: `t${id}`, shape: [length] });
  const op = {
    name: "collective",
    attributes: { kind, group: "world" },
    inputs: [tensor(0, input.length)],
    outputs: [tensor(inPlace ? 0 : 1, length)],
  } as unknown as Op<CollectiveAttributes>;
  await (await executor.execute(op, memory))?.();
  return data(op.outputs[0]);
}

async function answer(task: CollectiveTask): Promise<CollectiveAnswer> {
  const { rank } = task;
  const status = new RunStatus(task.status);
  if (task.kind === "collectives") {
    const executor = new SharedMemoryExecutor(task.setup, limit);
    const results: Float32Array[] = [];
    for (const call of task.calls) results.push(await execute(executor, call));
    return { kind: "collectives", results };
  }
  if (task.kind === "numbers") {
    return { kind: "numbers", sums: new SharedMemoryExecutor(task.setup, limit).sumNumbers("numbers", task.values) };
  }
  if (task.kind === "send") {
    const channel = new Channel(task.channel, rank, status, limit);
    const taken = new Int32Array(task.channel.memory, 64, 1);
    const first = taken[0];
    let aheadMost = 0;
    for (let i = 0; i < task.count; i++) {
      channel.room().fill(i);
      channel.sent();
      aheadMost = Math.max(aheadMost, i + 1 - ((Atomics.load(taken, 0) - first) | 0));
    }
    return { kind: "send", aheadMost };
  }
  if (task.kind === "receive") {
    const channel = new Channel(task.channel, rank, status, limit);
    pause(task.pause);
    const messages: number[] = [];
    for (let i = 0; i < task.count; i++) {
      const message = channel.message();
      const [value] = message;
      messages.push(message.every((element) => element === value) ? value : NaN);
      channel.taken();
    }
    return { kind: "receive", messages };
  }
  if (task.kind === "fail") {
    status.fail();
    return { kind: "fail" };
  }
  const counters = new Int32Array(task.counters);
  if (task.kind === "work") {
    for (let i = 0; i < task.beats; i++) {
      pause(task.pause);
      status.beat(rank);
    }
  } else {
    try {
      awaitCounter(counters, task.index, 1, { status, rank, other: task.other, limit: () => task.limit });
    } catch (error) {
      return { kind: "wait", error: (error as Error).message };
    }
  }
  Atomics.store(counters, rank, 1);
  Atomics.notify(counters, rank);
  return task.kind === "work" ? { kind: "work" } : { kind: "wait", error: "" };
}

const scope = globalThis as unknown as {
  onmessage: (event: MessageEvent<CollectiveTask>) => void;
  postMessage(message: CollectiveAnswer): void;
};
scope.onmessage = async ({ data }) => scope.postMessage(await answer(data));
