/**
 * Muster trains language models on GPUs through WebGPU, with kernels written in WGSL.
 *
 * The functions here are those of the command line: `train`, `generate`, `evaluate`, `prepare`, `listDevices`,
 * `planTraining`, `verifyLayouts`.
 *
 * Devices are opened in Workers that are started from Muster's own module. In a program bundled into one file that module
 * is the whole program: do nothing there if `isRankWorker()`.
 *
 * @example Train a small model and write with it
 * ```ts ignore
 * import { generate, train } from "@muster/muster";
 *
 * const { run } = await train({ data: "moby-dick", steps: 200 });
 * console.log((await generate({ checkpoint: run, prompt: "Call me", tokens: 100 })).text);
 * ```
 * @module
 */

export { MachineError, UserError } from "./errors.ts";
export { train, type TrainHooks, type TrainResult } from "./train/trainer.ts";
export type { TrainEvent } from "./train/events.ts";
export { type CompleteSettings, type GivenSettings, type SettingName, type TrainSettings } from "./train/settings.ts";
export { type Option, trainOptions } from "./train/options.ts";
export { isRankWorker } from "./train/rank.ts";
export {
  generate,
  generateAll,
  type GenerateAllOptions,
  type Generated,
  type GeneratedTexts,
  type GenerateOptions,
} from "./train/generate.ts";
export type { CompileProgress } from "./train/generate_tokens.ts";
export type { GenerationMesh } from "./train/generation_job.ts";
export type { SamplingOptions } from "./train/sampling.ts";
export { evaluate, type EvaluateOptions, type Evaluation } from "./train/evaluate.ts";
export { type DatasetDescription, prepare, type PrepareOptions } from "./data/prepare.ts";
export { loadTokenizer, type Tokenizer } from "./data/tokenizer.ts";
export type { AdapterFacts, DeviceDescription } from "./gpu/list.ts";
export { listDevices } from "./train/devices.ts";
export { type DescribedGpus, type PlanOptions, planTraining, type TrainingPlan } from "./train/plan_training.ts";
export type { Pick, PlannedMesh, RefusedMesh, Survey } from "./train/planner.ts";
export type { NodesOptions, NodesPlan, NodesPrediction } from "./train/plan_nodes.ts";
export type { BucketSum, Lane, Phase } from "./train/exchange.ts";
export type { GradientCompression, LaneSum, LinkModel, PlannedAlgorithm } from "./parallel/link_model.ts";
export { parseLink } from "./parallel/link_model.ts";
export type { Hardware } from "./train/hardware.ts";
export { type LayoutCheck, type Verification, verifyLayouts, type VerifyOptions } from "./train/verify.ts";
export type { Mesh } from "./parallel/mesh.ts";
export { Node, type NodeOptions, type Offer, World } from "./network/node.ts";
export type { Address, MemberFacts, Membership, Place } from "./network/gathering.ts";
export type { Credentials } from "./network/handshake.ts";
export type { TlsIdentity } from "./network/tls_identity.ts";
export type { CompressedSum } from "./parallel/compressed_sum.ts";
export type { Compression } from "./parallel/gradient_codecs.ts";
export {
  type AlgorithmBounds,
  type AlgorithmChoice,
  type AlgorithmTimes,
  type AllReduceAlgorithm,
  type CollectiveAlgorithm,
  ProcessGroup,
  type ProcessGroupOptions,
} from "./parallel/process_group.ts";
export {
  type AllReduceMeasurement,
  type LinkMeasurement,
  type LinkMeasurements,
  measureLinks,
  type MeasureLinksOptions,
} from "./parallel/measure_links.ts";
export { slowLinks } from "./parallel/slow_links.ts";
export type { Link } from "./network/link.ts";
export type { Capabilities, ProductVariant, ProductVariants } from "./gpu/capabilities.ts";
export type { HalfType, Precision, Role } from "./graph/tensor.ts";
export {
  type ModelConfiguration,
  modelConfiguration,
  type ModelOptions,
  parameterCount,
  presets,
} from "./model/configuration.ts";
