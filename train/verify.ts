/**
 * Trains a few steps on layout after layout and compares their losses with those of one rank.
 * @module
 */

import { prepare } from "../data/prepare.ts";
import { messageOf, UserError } from "../errors.ts";
import { noDeviceError } from "../gpu/open.ts";
import { listSelections, selectionsFor } from "../gpu/select.ts";
import type { Precision } from "../graph/tensor.ts";
import { worldSize } from "../parallel/mesh.ts";
import { parseDevices } from "./launch.ts";
import { allLayouts, type Layout, parseLayout } from "./layouts.ts";
import { completeSettings, type GivenSettings } from "./settings.ts";
import { train } from "./trainer.ts";
import { tuneSelections } from "./tuning.ts";

/** The law: losses of a layout are within this of those of one rank, relatively. Halves are rounded in other places. */
export const lossBounds: Readonly<Record<Precision, number>> = { f32: 1e-4, f16: 1e-3, bf16: 5e-3 };

/** What came of one layout. */
export interface LayoutCheck {
  /** In words, like `dp 2 zero 1`. */
  readonly layout: string;
  /** Largest relative difference of a loss from one rank's; undefined if the layout did not train. */
  readonly difference: number | undefined;
  /** Largest difference that passes. */
  readonly bound: number;
  /** True if the difference is within the bound. */
  readonly passed: boolean;
  /** Why it did not train. */
  readonly failure: string | undefined;
}

/** What came of all. */
export interface Verification {
  /** Largest relative difference that passes. */
  readonly bound: number;
  /** Losses of one rank: of each step, and of the validation behind them. */
  readonly losses: readonly number[];
  /** One for each layout that was trained, in order. */
  readonly checks: readonly LayoutCheck[];
  /** Layouts that the model cannot have. */
  readonly leftOut: readonly { readonly layout: string; readonly reason: string }[];
}

/** What to verify, and who is told. */
export interface VerifyOptions {
  /** `all`, or layouts with commas between them, like `dp 2, pp 2 gpipe`. */
  readonly layouts?: string;
  /** Told before each training: what it is, which of how many. */
  readonly onStart?: (name: string, index: number, count: number) => void;
  /** Told after each layout. */
  readonly onCheck?: (check: LayoutCheck) => void;
  /** Told in words of what was settled. */
  readonly onMessage?: (message: string) => void;
  /** Ends the work behind the step under way. */
  readonly signal?: AbortSignal;
}

/** A model that any of so many ranks can be split over: heads, blocks, hidden width (8/3 of the width) and batch. */
function smallModel(ranks: number): GivenSettings {
  const heads = ranks * Math.ceil(4 / ranks);
  return { layers: Math.max(4, 2 * ranks), heads, width: 12 * heads, sequenceLength: 32, batchSize: 2 * ranks };
}

const words = "the a whale sea ship captain sailed swam saw north south under over grey white great".split(" ");

/** Some text that is neither constant nor noise. */
function someText(): string {
  let state = 1;
  const word = () => words[(state = state * 1103515245 + 12345 & 0x7fffffff) >> 16 & 15];
  return Array.from({ length: 600 }, () => `${word()} ${word()} ${word()} ${word()} ${word()}.\n`).join("");
}

/** Devices of the ranks; where there is but one, it is used twice. */
function ranksOf(given: GivenSettings, onMessage: (message: string) => void): number[] {
  const selections = listSelections();
  if (selections.length === 0) throw noDeviceError();
  const devices = parseDevices(completeSettings(given).devices, selections);
  if (devices.length > 1) return devices;
  onMessage(`There is one rank: GPU ${devices[0]} is used twice (more with --devices 0,0,0,0)`);
  return [devices[0], devices[0]];
}

/** The losses of a training. */
async function lossesOf(settings: GivenSettings, signal: AbortSignal | undefined): Promise<number[]> {
  const losses: number[] = [];
  const result = await train(settings, {
    ...(signal ? { signal } : {}),
    onEvent: (event) => event.event === "step" && losses.push(event.loss),
  });
  return [...losses, result.validationLoss];
}

function compare(
  layout: string,
  losses: readonly number[],
  reference: readonly number[],
  bound: number,
): LayoutCheck {
  const difference = Math.max(...reference.map((loss, i) => Math.abs(losses[i] / loss - 1)));
  // What is not a number has not passed.
  return { layout, difference, bound, passed: difference <= bound, failure: undefined };
}

/** The layouts to train, none with more ranks than there are. */
function layoutsFor(text: string, ranks: number): Layout[] {
  if (text.trim() === "all") return allLayouts(ranks);
  return text.split(",").map((part) => {
    const layout = parseLayout(part);
    const wanted = worldSize(layout.mesh);
    if (wanted <= ranks) return layout;
    const devices = new Array(wanted).fill("0").join();
    throw new UserError(`${layout.name} takes ${wanted} ranks, but --devices gives ${ranks}: try --devices ${devices}`);
  });
}

/**
 * Trains a few steps on every layout and compares each with one rank, in a temporary folder that is gone afterwards.
 * `given` may name model, data, devices and steps; by default a small model is trained for 5 steps.
 */
export async function verifyLayouts(given: GivenSettings, options: VerifyOptions = {}): Promise<Verification> {
  const { layouts: text = "all", onStart = () => {}, onCheck = () => {}, onMessage = () => {}, signal } = options;
  const devices = ranksOf(given, onMessage);
  const layouts = layoutsFor(text, devices.length);
  const { precision, tune } = completeSettings(given);
  const bound = lossBounds[precision];
  const folder = Deno.makeTempDirSync({ prefix: "muster-verify-" });
  let count = 0;
  try {
    // Every training has the same kernels then, and what takes time is told before the first.
    await tuneSelections({ selections: selectionsFor(devices, listSelections()), tunings: [] }, tune, onMessage);
    const settings: GivenSettings = {
      ...(given.model === undefined && given.init === undefined ? smallModel(devices.length) : {}),
      steps: 5,
      learningRate: 1e-3,
      ...given,
      data: given.data ?? await ownData(folder),
      evalInterval: 0,
      evalBatches: 1,
      checkpointInterval: 0,
    };
    const run = (layout: GivenSettings, ranks: number) => {
      const out = `${folder}/${count++}`;
      return lossesOf({ ...settings, ...layout, devices: devices.slice(0, ranks).join(), out }, signal);
    };
    onStart("one rank", 0, layouts.length);
    const losses = await run({ dp: 1, pp: 1, tp: 1 }, 1);
    const checks: LayoutCheck[] = [];
    const leftOut: { layout: string; reason: string }[] = [];
    for (const [i, { name, settings, mesh }] of layouts.entries()) {
      if (signal?.aborted) break;
      onStart(name, i + 1, layouts.length);
      let check: LayoutCheck;
      try {
        check = compare(name, await run(settings, worldSize(mesh)), losses, bound);
      } catch (error) {
        // What was asked for by name must be possible.
        if (error instanceof UserError && text.trim() !== "all") throw error;
        if (error instanceof UserError) {
          leftOut.push({ layout: name, reason: error.message });
          continue;
        }
        check = { layout: name, difference: undefined, bound, passed: false, failure: messageOf(error) };
      }
      if (signal?.aborted) break;
      checks.push(check);
      onCheck(check);
    }
    return { bound, losses, checks, leftOut };
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

/** A prepared folder of the text above, so that nothing is fetched and nothing stays in the cache. */
async function ownData(folder: string): Promise<string> {
  Deno.writeTextFileSync(`${folder}/text.txt`, someText());
  const output = `${folder}/tokens`;
  await prepare({ inputs: [`${folder}/text.txt`], output, tokenizer: "byte" });
  return output;
}
