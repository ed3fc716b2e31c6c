/**
 * What a program needs from outside, and what it tells of itself.
 * @module
 */

import type { CollectiveAttributes } from "./collective.ts";
import type { Op } from "./graph.ts";
import type { Plan } from "./plan.ts";
import type { TensorMemory } from "./tensor_memory.ts";

/** How to make a program. */
export interface CreateOptions {
  /** May throw before anything is made. */
  readonly check?: (plan: Plan) => void;
  /** Told of each kernel that has been compiled: how many by now, of how many. */
  readonly compiled?: (done: number, total: number) => void;
}

/** What carries collectives out. */
export interface CollectiveExecutor {
  /** Carries one out; the part that may be deferred is returned. */
  execute(op: Op<CollectiveAttributes>, memory: TensorMemory): Promise<void | (() => Promise<void>)>;
  /** Called at the end of a segment: what is still under way by then is finished. */
  settle?(): Promise<void>;
  /** The host memory `name`, which has `elements` at least. */
  hostMemory(name: string, elements: number): Float32Array;
  /** Told whenever the device has come further; throws if the run is to end. */
  alive?(): void;
}

/** Time of one op in a profiled run. */
export interface OpTime {
  readonly op: Op;
  readonly kernel: string;
  readonly milliseconds: number;
  readonly flops: number;
  readonly bytes: number;
}
