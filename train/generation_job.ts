/**
 * What a rank needs to know to generate, and the jobs of all ranks of a mesh.
 * @module
 */

import { UserError } from "../errors.ts";
import { noDeviceError } from "../gpu/open.ts";
import { listSelections, type Selection, selectionsFor } from "../gpu/select.ts";
import type { Precision } from "../graph/tensor.ts";
import type { ModelConfiguration } from "../model/configuration.ts";
import type { ExecutorSetup } from "../parallel/executor.ts";
import { createMailbox, type MailboxSetup } from "../parallel/mailbox.ts";
import { type Mesh, partsOf, rankAt, worldSize } from "../parallel/mesh.ts";
import { makeExecutors, parseDevices } from "./launch.ts";
import { type RankLayout, soleRank } from "./rank_layout.ts";
import type { SamplingOptions } from "./sampling.ts";
import { trainOptions } from "./options.ts";
import { completeSettings } from "./settings.ts";
import { withKeptTuning } from "./tuning_file.ts";
import { blockRowsOf, type TurnOptions } from "./turns.ts";

/** Seconds that a rank waits for another before all is given up, where nothing else is asked for. */
export const usualStallTimeout = trainOptions.stallTimeout.fallback;

/** How ranks are laid out. */
export interface GenerationMesh {
  /** Pipeline stages into which the blocks are cut; 1 if left out. */
  readonly pp?: number | undefined;
  /** Ranks over which each block is split; 1 if left out. */
  readonly tp?: number | undefined;
  /** GPUs, as `muster devices` lists them, like `0,2` or `all`; as many as there are ranks, from the first on, if left out. */
  readonly devices?: string | undefined;
  /** In what weights and activations are stored; f32 if left out. */
  readonly precision?: Precision | undefined;
  /** Seconds that a rank waits for another before all is given up; 60 if left out. */
  readonly stallTimeout?: number | undefined;
}

/** What to generate, in tokens. */
export interface TokenRequest extends GenerationMesh {
  /** Folder of the model. */
  readonly folder: string;
  readonly configuration: ModelConfiguration;
  /** Ids of the prompts, none empty. */
  readonly prompts: readonly (readonly number[])[];
  /** Tokens to add to each. */
  readonly tokens: number;
  readonly endOfText: number | undefined;
  /** Ids below this are chosen from. */
  readonly choices: number;
  readonly sampling: SamplingOptions;
  readonly seed: number;
}

/** What a rank is to do. Plain data. */
export interface GenerationJob extends TurnOptions {
  readonly request: TokenRequest;
  readonly rank: number;
  readonly mesh: Mesh;
  /** Rows of the blocks of tokens that go through at once. */
  readonly blockRows: readonly number[];
  readonly executor: ExecutorSetup;
  /** The tokens chosen for each slot, from the rank that has all logits. */
  readonly mailboxes: readonly MailboxSetup[];
  readonly selection: Selection;
}

/** What rank `rank` holds. */
export function generationLayout(
  configuration: ModelConfiguration,
  { mesh, rank, slots }: Pick<GenerationJob, "mesh" | "rank" | "slots">,
  precision?: Precision,
): RankLayout {
  return {
    ...soleRank(configuration, precision),
    ...partsOf(configuration, mesh, rank),
    slots,
    world: worldSize(mesh),
  };
}

/** The GPU of each rank. */
function devicesOf({ devices, pp = 1, tp = 1 }: GenerationMesh, selections: readonly Selection[]): number[] {
  const ranks = pp * tp;
  const indices = parseDevices(devices ?? "all", selections);
  const flags = `--pp ${pp} --tp ${tp}`;
  if (devices === undefined) {
    if (indices.length >= ranks) return indices.slice(0, ranks);
    throw new UserError(
      `${flags} needs ${ranks} GPUs, but there ${indices.length === 1 ? "is 1" : `are ${indices.length}`}: ` +
        `lower it, or name one several times, --devices ${new Array(ranks).fill("0").join()}`,
    );
  }
  if (indices.length !== ranks) {
    throw new UserError(
      `${flags} makes ${ranks} rank${ranks === 1 ? "" : "s"}, but --devices ${devices} names ${indices.length} GPU${
        indices.length === 1 ? "" : "s"
      }`,
    );
  }
  return indices;
}

/** The jobs of all ranks. `UserError` if the mesh does not fit the GPUs or the model. */
export function generationJobs(request: TokenRequest): GenerationJob[] {
  const { configuration, prompts, tokens, endOfText, pp = 1, tp = 1 } = request;
  const mesh: Mesh = { data: 1, pipeline: pp, tensor: tp };
  // While the last stages work on a text's token, the first ones have others: what they need next has then arrived.
  const slots = Math.min(prompts.length, 2 * pp - 1);
  const layouts = Array.from(
    { length: worldSize(mesh) },
    (_, rank) => generationLayout(configuration, { mesh, rank, slots }, request.precision),
  );
  const selections = listSelections();
  if (selections.length === 0) throw noDeviceError();
  const devices = devicesOf(request, selections);
  const chosen = withKeptTuning(selectionsFor(devices, selections));
  const last = rankAt(mesh, { data: 0, pipeline: pp - 1, tensor: 0 });
  const mailboxes = Array.from({ length: slots }, () => createMailbox(last));
  const positions = configuration.maximumSequenceLength;
  const blockRows = blockRowsOf(prompts, { tokens, positions });
  const rows = [Math.max(...blockRows)];
  return makeExecutors(configuration, mesh, completeSettings({ pp, tp }), layouts, rows).map((executor, rank) => ({
    request,
    slots,
    tokens,
    endOfText,
    positions,
    rank,
    mesh,
    blockRows,
    executor,
    mailboxes,
    selection: chosen[rank],
  }));
}
