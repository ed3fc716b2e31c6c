/**
 * The table of a training run's settings, which makes the flags, the keys of configuration files, the help, the checks and the
 * types.
 * @module
 */

import type { Precision } from "../graph/tensor.ts";
import { familyNames, presets } from "../model/configuration.ts";
import { allReduceAlgorithms } from "../parallel/algorithms.ts";
import { scheduleNames } from "../parallel/schedules.ts";
import { schedules } from "./learning_rate.ts";
import { traceSteps } from "./trace_file.ts";

/** One setting. */
export interface Option<T> {
  /** How a value is written. */
  readonly kind: "text" | "integer" | "number" | "choice" | "switch";
  /** The default; undefined where it depends on others. */
  readonly fallback: T;
  /** What it means, in the help. */
  readonly help: string;
  /** What a text is, if it is more than that: shells complete files, folders and so on. */
  readonly value?: "file" | "folder" | "data" | "tokenizer" | "preset";
  /** Smallest value. */
  readonly least?: number;
  /** Values above this, not this itself. */
  readonly above?: number;
  /** Largest value. */
  readonly most?: number;
  /** Values below this, not this itself. */
  readonly below?: number;
  /** The values of a choice. */
  readonly choices?: readonly string[];
}

const text = (fallback: string, help: string): Option<string> => ({ kind: "text", fallback, help });
const optional = (help: string): Option<string | undefined> => ({ kind: "text", fallback: undefined, help });
/** A text that is a `value`. */
const of = <T>(value: Option<T>["value"] & string, option: Option<T>): Option<T> => ({ ...option, value });
const integer = (fallback: number, least: number, help: string): Option<number> => ({
  kind: "integer",
  fallback,
  least,
  help,
});
const size = (help: string): Option<number | undefined> => ({ kind: "integer", fallback: undefined, least: 1, help });
const number = (fallback: number, range: Partial<Option<number>>, help: string): Option<number> => ({
  kind: "number",
  fallback,
  help,
  ...range,
});
const flag = (help: string): Option<boolean> => ({ kind: "switch", fallback: false, help });
function choice<T extends string>(fallback: T, choices: readonly T[], help: string): Option<T> {
  return { kind: "choice", fallback, choices, help };
}

/** The table. Keys are the names in configuration files; flags are the same in kebab case. */
export const trainOptions = {
  data: of("data", text("moby-dick", "prepared folder, text file, folder of texts, or moby-dick, state-of-the-union")),
  tokenizer: of(
    "tokenizer",
    text("byte", "byte, gpt2, a tokenizer.json or its folder; prepared data and --init bring their own"),
  ),
  model: of("preset", optional(`preset: ${Object.keys(presets).join(", ")}`)),
  family: choice("llama", familyNames, "architecture"),
  layers: size("transformer blocks (default 4)"),
  heads: size("attention heads (default 4)"),
  kvHeads: size("key/value heads, for grouped-query attention (llama; default: as many as heads)"),
  width: size("width of the residual stream (default 128)"),
  sequenceLength: size("tokens in a sequence (default 64; with --model or --init what the model knows, at most 1024)"),
  batchSize: integer(4, 1, "sequences per step, over all devices"),
  microBatchSize: size("sequences computed at a time; their gradients are summed (default: as many as fit)"),
  steps: integer(1300, 1, "steps to train in all"),
  learningRate: number(3e-3, { above: 0, most: 10 }, "peak learning rate"),
  minLearningRate: {
    kind: "number",
    fallback: undefined,
    least: 0,
    most: 10,
    help: "learning rate at the end of linear, cosine and wsd (default: a tenth of the peak)",
  } as Option<number | undefined>,
  warmupSteps: {
    kind: "integer",
    fallback: undefined,
    least: 0,
    help: "steps in which the learning rate rises (default: 5% of the steps, at most 50)",
  } as Option<number | undefined>,
  lrSchedule: choice("cosine", schedules, "learning rate behind the warm-up"),
  weightDecay: number(0.1, { least: 0, most: 10 }, "AdamW's decay of matrices"),
  beta1: number(0.9, { least: 0, below: 1 }, "AdamW's decay of the mean"),
  beta2: number(0.95, { least: 0, below: 1 }, "AdamW's decay of the square"),
  epsilon: number(1e-8, { least: 1e-30, most: 1 }, "AdamW's epsilon"),
  clip: number(1, { least: 0 }, "largest global gradient norm; 0: no clipping"),
  precision: choice<Precision>(
    "f32",
    ["f32", "f16", "bf16"],
    "in what weights, activations and their gradients are stored; f16 on GPUs that offer it, bf16 on all",
  ),
  lossScale: text(
    "dynamic",
    "with f16: what the loss is multiplied by, a number; dynamic: as large as gradients allow",
  ),
  dropout: number(0, { least: 0, below: 1 }, "dropout of embeddings and residual branches"),
  seed: {
    kind: "integer",
    fallback: 1337,
    least: 0,
    most: 2 ** 32 - 1,
    help: "of weights, sample order and dropout",
  } as Option<number>,
  evalInterval: integer(250, 0, "steps between validations; 0: only at the end"),
  evalBatches: integer(50, 1, "batches of a validation"),
  checkpointInterval: integer(500, 0, "steps between checkpoints; 0: only at the end"),
  keep: integer(2, 0, "checkpoints kept; 0: all"),
  out: of("folder", optional("folder of the run (default: runs/1, runs/2, …)")),
  resume: of(
    "folder",
    optional(
      "run or checkpoint to go on from, whose settings hold unless given again; auto: the run in --out, if there is one",
    ),
  ),
  init: of("folder", optional("Hugging Face folder whose weights to start from")),
  devices: text(
    "all",
    "GPUs to use: all, or as `muster devices` lists them 0,2; a repeated index is another rank on it",
  ),
  dp: size("data-parallel copies of the model; without --dp, --tp and --pp, `muster plan` picks all three"),
  tp: size("ranks over which each block is split (tensor-parallel; default beside --dp or --pp: 1)"),
  pp: size("pipeline stages into which the blocks are cut (default beside --dp or --tp: 1)"),
  microBatches: size("with --pp: micro-batches of each copy in a step (default: at most four for each stage)"),
  pipelineSchedule: choice("1f1b", scheduleNames, "order of forwards and backwards in a pipeline"),
  pipelineChunks: integer(2, 2, "with the interleaved schedule: parts of the model on each stage"),
  sequenceParallel: flag("with --tp: norms and residuals on a share of the rows each"),
  zero: choice(
    "0",
    ["0", "1", "2", "3"],
    "what data-parallel ranks share out: 1: optimizer state; 2: gradients too; 3: parameters too",
  ),
  recompute: choice(
    "none",
    ["none", "selective", "block"],
    "activations computed again in backward instead of kept: norms and activation functions, or whole blocks",
  ),
  tune: choice(
    "quick",
    ["off", "quick", "full"],
    "kernels of matrix products to time on a GPU's first use: none, a few (some 10 s), or all; `muster tune` shows them; " +
      "a resumed run keeps its own",
  ),
  cpuOffload: choice("none", ["none", "optimizer"], "what is kept in host memory instead of on the GPU"),
  balance: text(
    "auto",
    "how data-parallel ranks share a batch: auto (unequal GPUs by measured speed), even, or parts like 3:1",
  ),
  bucketMb: number(4, { above: 0, most: 1024 }, "MB of gradients that are summed over ranks at a time"),
  nodes: size("machines that train together; 1, or what Slurm, MPI or Kubernetes says, if not given"),
  rendezvous: optional("host:port where the machines meet: an address of node 0, the same for all"),
  nodeRank: {
    kind: "integer",
    fallback: undefined,
    least: 0,
    help: "this machine's number among them, from 0; node 0 hosts the rendezvous (default: whoever can)",
  } as Option<number | undefined>,
  listen: optional("address of the interface on which other machines reach this one (default: that to the rendezvous)"),
  secretFile: of(
    "file",
    optional("file with the secret that the machines share, or MUSTER_SECRET; needed but on loopback"),
  ),
  tlsCert: of("file", optional("this machine's certificate, for mutual TLS with or instead of a secret (PEM)")),
  tlsKey: of("file", optional("the key to it")),
  tlsCa: of("file", optional("certificate of the authority that must have signed every machine's")),
  minNodes: size("go on with as few machines as these when others are lost; who comes back joins (default: --nodes)"),
  peerTimeout: number(15, { least: 0.1, most: 3600 }, "seconds without a sign of life behind which a machine is lost"),
  rendezvousTimeout: number(300, { above: 0, most: 1e6 }, "seconds in which the machines must come together"),
  commitSteps: integer(
    10,
    0,
    "steps between copies of the state in host memory, from which the machines go on; 0: none",
  ),
  commTune: flag("measure at the start which way of summing over machines is the fastest for which size"),
  commAlgorithm: choice(
    "auto",
    ["auto", ...allReduceAlgorithms],
    "how sums over machines go: by size, or always alike",
  ),
  connections: { ...integer(1, 1, "connections between each two machines for each group of ranks that sum"), most: 16 },
  gradCompression: choice("none", ["none", "f16", "bf16", "int8"] as const, "how gradients travel between machines"),
  stallTimeout: number(60, { above: 0 }, "seconds without a sign of life from a rank before the run is given up"),
  restarts: integer(0, 0, "times to go on from the last checkpoint after a crash"),
  trace: of("file", optional(`file for a timeline of the first ${traceSteps} steps, for Perfetto or chrome://tracing`)),
  json: flag("one JSON event per line"),
  quiet: flag("print only the end"),
  verbose: flag("print stacks with errors"),
};
