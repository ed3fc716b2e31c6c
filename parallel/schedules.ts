/**
 * Pipeline schedules: pure functions that say what each stage does, in order.
 *
 * - `gpipe`: all forwards, then all backwards (Huang et al., "GPipe", 2019).
 * - `1f1b`: one forward, one backward, once the pipeline is full: fewer micro-batches under way (Narayanan et al.,
 *   "PipeDream", 2019, with a flush).
 * - `interleaved`: a stage holds several parts of the model, so that a bubble is as short as a part (Narayanan et al.,
 *   "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM", 2021).
 * - `zero-bubble`: ZB-H1 of Qi et al., "Zero Bubble Pipeline Parallelism", 2023: gradients of weights, which nobody waits
 *   for, fill the bubbles at the end.
 * @module
 */

import { UserError } from "../errors.ts";

/** The schedules. */
export const scheduleNames = ["gpipe", "1f1b", "interleaved", "zero-bubble"] as const;

/** Name of a schedule. */
export type ScheduleName = (typeof scheduleNames)[number];

/** What a stage does at a time; `weights` are the gradients of weights, where `backward` leaves them out. */
export interface Action {
  readonly kind: "forward" | "backward" | "weights";
  readonly microBatch: number;
  /** Which of the stage's parts of the model: part `chunk * stages + stage` of all. */
  readonly chunk: number;
}

/** What a schedule depends on. */
export interface ScheduleOptions {
  readonly stages: number;
  readonly microBatches: number;
  /** Parts of the model on each stage; 1 but for `interleaved`. */
  readonly chunks: number;
}

const forward = (microBatch: number, chunk = 0): Action => ({ kind: "forward", microBatch, chunk });
const backward = (microBatch: number, chunk = 0): Action => ({ kind: "backward", microBatch, chunk });
const weights = (microBatch: number): Action => ({ kind: "weights", microBatch, chunk: 0 });
const range = (count: number) => Array.from({ length: count }, (_, i) => i);

/** `warmup` forwards, then forward and backward in turn, then the backwards that are left. */
function oneForwardOneBackward(
  total: number,
  warmup: number,
  forwardAt: (i: number) => Action,
  backwardAt: (i: number) => Action,
): Action[] {
  const actions = range(warmup).map(forwardAt);
  for (let i = warmup; i < total; i++) actions.push(forwardAt(i), backwardAt(i - warmup));
  for (let i = total - warmup; i < total; i++) actions.push(backwardAt(i));
  return actions;
}

function interleaved({ stages, microBatches, chunks }: ScheduleOptions, stage: number): Action[] {
  if (microBatches % stages !== 0) {
    const near = Math.max(1, Math.round(microBatches / stages)) * stages;
    throw new UserError(
      `The interleaved schedule needs --micro-batches as a multiple of its ${stages} stages, not ${microBatches}: ` +
        `choose ${near}`,
    );
  }
  const total = microBatches * chunks;
  // Groups of as many micro-batches as stages go through all chunks in turn.
  const group = stages * chunks;
  const chunkOf = (i: number) => Math.floor(i % group / stages);
  const microBatchOf = (i: number) => Math.floor(i / group) * stages + i % stages;
  const warmup = microBatches === stages ? total : Math.min(total, 2 * (stages - stage - 1) + (chunks - 1) * stages);
  return oneForwardOneBackward(
    total,
    warmup,
    (i) => forward(microBatchOf(i), chunkOf(i)),
    (i) => backward(microBatchOf(i), chunks - 1 - chunkOf(i)),
  );
}

/** 1F1B whose `weights` lag behind `backward` by the stage's number, and catch up where 1F1B is idle. */
function zeroBubble({ stages, microBatches }: ScheduleOptions, stage: number): Action[] {
  const warmup = Math.min(stages - 1 - stage, microBatches);
  const plain = oneForwardOneBackward(microBatches, warmup, (i) => forward(i), (i) => backward(i));
  const actions: Action[] = [];
  let forwards = 0;
  let backwards = 0;
  let done = 0;
  for (const action of plain) {
    actions.push(action);
    if (action.kind === "forward") forwards++;
    else {
      backwards++;
      const lag = forwards === microBatches ? 0 : stage;
      if (backwards - done > lag) actions.push(weights(done++));
    }
  }
  while (done < microBatches) actions.push(weights(done++));
  return actions;
}

/** The actions of each stage, in order. `UserError` if the numbers do not fit the schedule. */
export function makeSchedule(name: ScheduleName, options: ScheduleOptions): Action[][] {
  const { stages, microBatches, chunks } = options;
  if (chunks > 1 && name !== "interleaved") throw new RangeError(`${name} has one chunk on a stage, not ${chunks}`);
  return range(stages).map((stage) => {
    switch (name) {
      case "gpipe":
        return [...range(microBatches).map((i) => forward(i)), ...range(microBatches).map((i) => backward(i))];
      case "1f1b":
        return oneForwardOneBackward(
          microBatches,
          Math.min(stages - 1 - stage, microBatches),
          (i) => forward(i),
          (i) => backward(i),
        );
      case "interleaved":
        return interleaved(options, stage);
      case "zero-bubble":
        return zeroBubble(options, stage);
    }
  });
}

/** Time that actions take. */
export interface ActionCosts {
  readonly forward: number;
  readonly backward: number;
  readonly weights: number;
}

/** The same where stages differ. */
export type StageCosts = (stage: number, action: Action) => number;

/** An action in time. */
export interface TimedAction {
  readonly stage: number;
  readonly action: Action;
  readonly start: number;
  readonly end: number;
}

/**
 * Plays a schedule: an action begins when its stage is free and what it needs is there. Returns the whole time, the share
 * of it in which stages are idle, and every action's times. Throws if the stages wait for each other for ever.
 */
export function simulate(
  schedule: readonly (readonly Action[])[],
  { stages, chunks }: ScheduleOptions,
  costs: ActionCosts | StageCosts,
): { total: number; bubble: number; timeline: TimedAction[] } {
  const parts = stages * chunks;
  const costOf: StageCosts = typeof costs === "function" ? costs : (_, { kind }) => costs[kind];
  const done = new Map<string, number>();
  const key = (kind: string, part: number, microBatch: number) => `${kind} ${part} ${microBatch}`;
  const timeline: TimedAction[] = [];
  const next = schedule.map(() => 0);
  const free = schedule.map(() => 0);
  let busy = 0;
  for (let progress = true; progress;) {
    progress = false;
    for (let stage = 0; stage < schedule.length; stage++) {
      for (; next[stage] < schedule[stage].length; next[stage]++) {
        const action = schedule[stage][next[stage]];
        const { kind, microBatch, chunk } = action;
        const part = chunk * stages + stage;
        const needs = kind === "weights"
          ? [key("backward", part, microBatch)]
          : kind === "forward"
          ? (part > 0 ? [key("forward", part - 1, microBatch)] : [])
          : [key("forward", part, microBatch), ...(part < parts - 1 ? [key("backward", part + 1, microBatch)] : [])];
        if (!needs.every((need) => done.has(need))) break;
        const start = Math.max(free[stage], ...needs.map((need) => done.get(need)!));
        const end = start + costOf(stage, action);
        busy += end - start;
        free[stage] = end;
        done.set(key(kind, part, microBatch), end);
        timeline.push({ stage, action, start, end });
        progress = true;
      }
    }
  }
  if (next.some((at, stage) => at < schedule[stage].length)) throw new Error("The schedule never ends");
  const total = Math.max(...free);
  return { total, bubble: 1 - busy / (stages * total), timeline };
}

/** The idle share that the papers state, for backwards that take twice as long as forwards (`zero-bubble`: three equal parts). */
export function bubbleFormula(name: ScheduleName, { stages, microBatches, chunks }: ScheduleOptions): number {
  const idle = stages - 1;
  switch (name) {
    case "gpipe":
    case "1f1b":
      return idle / (microBatches + idle);
    case "interleaved":
      return idle / (chunks * microBatches + idle);
    case "zero-bubble":
      // (p - 1)(tF + tB - tW) of idle time beside m (tF + tB + tW) of work.
      return idle / (3 * microBatches + idle);
  }
}

/** Whether `weights` actions end what `forward` began; `backward` does where there are none. */
function releaseOf(actions: readonly Action[]): Action["kind"] {
  return actions.some(({ kind }) => kind === "weights") ? "weights" : "backward";
}

/** Most micro-batches whose activations a stage holds at once, over all its chunks. */
export function mostInFlight(actions: readonly Action[]): number {
  const release = releaseOf(actions);
  let held = 0;
  let most = 0;
  for (const { kind } of actions) {
    if (kind === "forward") most = Math.max(most, ++held);
    if (kind === release) held--;
  }
  return most;
}

/** A place for every micro-batch under way: for each action its slot, numbered for each chunk from 0, as few as can be. */
export function assignSlots(actions: readonly Action[]): { slots: number[]; count: number } {
  const release = releaseOf(actions);
  const held = new Map<string, number>();
  let count = 0;
  const slots = actions.map(({ kind, microBatch, chunk }) => {
    const key = `${chunk} ${microBatch}`;
    if (kind === "forward") {
      const used = new Set([...held].filter(([other]) => other.startsWith(`${chunk} `)).map(([, slot]) => slot));
      let slot = 0;
      while (used.has(slot)) slot++;
      held.set(key, slot);
      count = Math.max(count, slot + 1);
    }
    const slot = held.get(key)!;
    if (kind === release) held.delete(key);
    return slot;
  });
  return { slots, count };
}
