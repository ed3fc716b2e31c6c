/**
 * What the coordinator and the thread that has the links to other machines say to each other.
 * @module
 */

import type { TraceSpans } from "../gpu/trace.ts";
import type { NodeOptions, Offer } from "../network/node.ts";
import type { Compression } from "../parallel/gradient_codecs.ts";
import type { CollectiveAlgorithm } from "../parallel/algorithms.ts";
import type { GroupSetup } from "../parallel/group_setup.ts";
import type { Failure } from "./rank_protocol.ts";

/** How to be a machine among others; plain data. */
export type NetworkOptions = Omit<NodeOptions, "report">;

/** What the groups of ranks of this machine need from the network. */
export interface ServeOrder {
  readonly type: "serve";
  /** As many links for each as there are connections, in order; none if there is no other machine. */
  readonly groups: readonly GroupSetup[];
  readonly status: SharedArrayBuffer;
  /** Longest time in which a collective may make no headway. */
  readonly timeoutSeconds: number;
  readonly compression: Compression | "none";
  readonly algorithm: CollectiveAlgorithm;
  /** Measure first which algorithm is the fastest for which size. */
  readonly tune: boolean;
  readonly trace: boolean;
}

/** What the coordinator orders. */
export type NetworkOrder =
  | { readonly type: "meet"; readonly offer: Offer }
  /** Gives tensors of machine `root` to all. */
  | { readonly type: "share"; readonly tensors: readonly Float32Array[]; readonly root: number }
  | ServeOrder
  /** Stands back from the world in good order, when all do: nothing more is exchanged, or all meet `anew`. */
  | { readonly type: "leave"; readonly anew: boolean }
  /** Ends the world for all, and why; `mistake`: the run cannot go on elsewhere either. */
  | { readonly type: "end"; readonly reason: string; readonly mistake: boolean }
  /** Records no more for the timeline. */
  | { readonly type: "untrace" }
  /** Gives up a meeting. */
  | { readonly type: "abandon" }
  | { readonly type: "close" };

/** A world as it is told to the coordinator. */
export interface MetWorld {
  /** Tells it from all others, on all its machines alike. */
  readonly id: string;
  readonly rank: number;
  readonly size: number;
  /** Names by rank. */
  readonly machines: readonly string[];
  /** Ranks that were in rank 0's last world; none at the first meeting. */
  readonly survivors: readonly number[];
  /** What each told, by rank. */
  readonly facts: readonly Readonly<Record<string, string>>[];
}

/** What the network tells. */
export type NetworkMessage =
  | { readonly type: "opened" }
  | { readonly type: "met"; readonly world: MetWorld }
  | { readonly type: "shared" }
  | { readonly type: "left" }
  | { readonly type: "closed" }
  /** What was ordered could not be done. */
  | { readonly type: "failed"; readonly failure: Failure }
  /** The world has ended. */
  | { readonly type: "lost"; readonly failure: Failure }
  | { readonly type: "waiting"; readonly machines: readonly string[] }
  | { readonly type: "report"; readonly sentence: string }
  | { readonly type: "trace"; readonly lane: number; readonly spans: TraceSpans };
