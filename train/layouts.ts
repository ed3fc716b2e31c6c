/**
 * Layouts in words, `dp 2 pp 2 zero-bubble zero 1`: settings of the parallel kind, by the names of their flags.
 * @module
 */

import { UserError } from "../errors.ts";
import { type Mesh, meshesOf } from "../parallel/mesh.ts";
import { type ScheduleName, scheduleNames } from "../parallel/schedules.ts";
import { type Option, trainOptions } from "./options.ts";
import { flagName, type GivenSettings, isSwitch, parseSettings, type SettingName, settingNames } from "./settings.ts";

/** A layout. */
export interface Layout {
  /** In words. */
  readonly name: string;
  readonly settings: GivenSettings;
  readonly mesh: Mesh;
}

const isSchedule = (word: string): word is ScheduleName => (scheduleNames as readonly string[]).includes(word);

function layout(settings: GivenSettings): Layout {
  const { dp = 1, pp = 1, tp = 1 } = settings;
  const words = Object.entries({ ...settings, dp, pp, tp }).flatMap(([name, value]) => {
    const extent = ["dp", "pp", "tp"].includes(name);
    if (value === undefined || (extent && value === 1)) return [];
    if (name === "pipelineSchedule") return [String(value)];
    return isSwitch(name as SettingName) ? [flagName(name)] : [flagName(name), String(value)];
  });
  return {
    name: words.join(" ") || "one rank",
    settings: { ...settings, dp, pp, tp },
    mesh: { data: dp, pipeline: pp, tensor: tp },
  };
}

/** Reads a layout. `UserError` if it is none. */
export function parseLayout(text: string): Layout {
  const words = text.trim().split(/\s+/);
  const found: Record<string, unknown> = {};
  for (let i = 0; i < words.length; i++) {
    const word = words[i];
    if (isSchedule(word)) {
      found.pipelineSchedule = word;
      continue;
    }
    const name = settingNames.find((name) => flagName(name) === word);
    if (!name || (!isSwitch(name) && words[i + 1] === undefined)) {
      throw new UserError(
        `--layouts has ${
          JSON.stringify(text.trim())
        }, which is no layout: write it like "dp 2 zero 1" or "pp 2 gpipe", ` +
          `with commas between several`,
      );
    }
    found[name] = isSwitch(name) ? true : words[++i];
  }
  // Extents first, so that equal layouts have equal names.
  const { dp, pp, tp, ...rest } = parseSettings(found, "flags");
  return layout({ dp, pp, tp, ...rest });
}

/** Settings that layouts differ in besides the mesh, where they mean something. */
const variations: readonly [name: SettingName, applies: (mesh: Mesh) => boolean][] = [
  ["pipelineSchedule", ({ pipeline }) => pipeline > 1],
  ["sequenceParallel", ({ tensor }) => tensor > 1],
  ["zero", ({ data }) => data > 1],
  ["recompute", () => true],
  ["cpuOffload", () => true],
];

/** Values of a setting other than its default. */
function otherValues(name: SettingName): unknown[] {
  const { kind, choices = [], fallback }: Option<unknown> = trainOptions[name];
  return kind === "switch" ? [true] : choices.filter((choice) => choice !== fallback);
}

/** Every mesh of the ranks as it is, and with one setting varied at a time. */
export function allLayouts(ranks: number): Layout[] {
  return meshesOf(ranks).flatMap((mesh) => {
    const plain: GivenSettings = { dp: mesh.data, pp: mesh.pipeline, tp: mesh.tensor };
    const varied = variations.filter(([, applies]) => applies(mesh)).flatMap(([name]) =>
      otherValues(name).map((value) => ({ ...plain, [name]: value }))
    );
    const { fallback } = trainOptions.pipelineSchedule;
    return [mesh.pipeline > 1 ? { ...plain, pipelineSchedule: fallback } : plain, ...varied].map(layout);
  });
}
