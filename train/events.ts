/**
 * What a training run tells while it goes.
 * @module
 */

import type { CompleteSettings } from "./settings.ts";

/** A run's events, in the order in which they come; with `--json` each is a line. */
export type TrainEvent =
  /** Kernels that rank 0 has compiled, before the first step. */
  | { readonly event: "compile"; readonly done: number; readonly total: number; readonly seconds: number }
  | {
    readonly event: "start";
    readonly config: CompleteSettings;
    readonly run: string;
    readonly device: string;
    /** Layout of several ranks, in words. */
    readonly mesh?: string;
    /** What was picked and why, where no layout was asked for. */
    readonly pick?: string;
    readonly parameters: number;
    readonly vocabularySize: number;
    readonly microBatchSize: number;
    /** Device memory planned, in bytes. */
    readonly bytes: number;
    readonly memory: string;
    readonly firstStep: number;
  }
  | {
    readonly event: "step";
    readonly step: number;
    /** Nats per token, mean over the step. */
    readonly loss: number;
    /** Before clipping; not finite in a step that is skipped. */
    readonly gradNorm: number;
    /** With f16: what the loss was multiplied by for its gradients. */
    readonly lossScale?: number;
    /** With f16: steps so far whose gradients overflowed, and which changed no weight. */
    readonly skipped?: number;
    readonly learningRate: number;
    /** Trained on since the start of the run. */
    readonly tokens: number;
    readonly tokensPerSecond: number;
    readonly milliseconds: number;
    /** The model's FLOPs as a share of the multiply-add peaks of all ranks' devices, the highest rates measured so far. */
    readonly modelFlopsUtilization: number;
    /** Of these, spent by rank 0 in collectives: copies between device and memory, sums, and waiting for others. */
    readonly collectiveMilliseconds?: number;
  }
  | { readonly event: "evaluation"; readonly step: number; readonly loss: number }
  | { readonly event: "checkpoint"; readonly step: number; readonly path: string }
  /** From this step on the copies of the model, in order, take so many sequences each. */
  | { readonly event: "balance"; readonly step: number; readonly shares: readonly number[] }
  /** Of several machines: behind this step they go on as these, of which this is `node`. */
  | {
    readonly event: "world";
    readonly step: number;
    readonly node: number;
    readonly nodes: number;
    readonly machines: readonly string[];
  }
  /** A machine was lost: the others meet again and go on behind this step. */
  | { readonly event: "lost"; readonly step: number; readonly message: string }
  /** A machine computes so many times as long as the one in the middle. */
  | { readonly event: "straggler"; readonly step: number; readonly machine: string; readonly slowness: number }
  | { readonly event: "message"; readonly message: string }
  /** A rank that has waited for another for 5 seconds, or has shown no sign of life for as long. */
  | { readonly event: "stall"; readonly message: string }
  | { readonly event: "error"; readonly message: string; readonly exitCode: number }
  | {
    readonly event: "done";
    readonly step: number;
    readonly loss: number;
    readonly validationLoss: number;
    readonly seconds: number;
    readonly checkpoint: string;
    /** True if the run was asked to stop before its last step. */
    readonly stopped: boolean;
  };
