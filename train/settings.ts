/**
 * The settings of a training run: read from flags and configuration files, checked against the table, and completed.
 * @module
 */

import { nearest } from "../data/nearest.ts";
import { UserError } from "../errors.ts";
import { fixedScale } from "./loss_scaling.ts";
import { type Option, trainOptions } from "./options.ts";

/** Names of settings. */
export type SettingName = keyof typeof trainOptions;

/** All settings of a run. */
export type TrainSettings = {
  -readonly [K in SettingName]: (typeof trainOptions)[K] extends Option<infer T> ? T : never;
};

/** Settings as given: some of them. */
export type GivenSettings = { -readonly [K in SettingName]?: TrainSettings[K] | undefined };

const names = Object.keys(trainOptions) as SettingName[];

/** `learningRate` → `learning-rate`. */
export function flagName(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

function optionOf(name: SettingName): Option<unknown> {
  return trainOptions[name] as Option<unknown>;
}

/** Checks one value; `given` is what the user wrote (a string from the command line, anything from a file). */
function parseValue(name: SettingName, given: unknown, where: string): unknown {
  const option = optionOf(name);
  const bad = (rule: string): never => {
    throw new UserError(`${where} is ${JSON.stringify(given)}, but must be ${rule}`);
  };
  switch (option.kind) {
    case "switch":
      return typeof given === "boolean" ? given : bad("true or false");
    case "text":
      return typeof given === "string" && given !== ""
        ? given
        : typeof given === "number"
        ? String(given)
        : bad("a text");
    case "choice":
      if (option.choices!.includes(given as string)) return given;
      return bad(`one of ${option.choices!.join(", ")}`);
    default: {
      const value = typeof given === "string" && given.trim() !== "" ? Number(given) : given;
      const { least, above, most, below } = option;
      const limits = [
        least !== undefined && `at least ${least}`,
        above !== undefined && `above ${above}`,
        most !== undefined && `at most ${most}`,
        below !== undefined && `below ${below}`,
      ].filter(Boolean).join(" and ");
      const what = option.kind === "integer" ? "a whole number" : "a number";
      const rule = limits ? `${what}, ${limits}` : what;
      if (typeof value !== "number" || !Number.isFinite(value)) return bad(rule);
      if (option.kind === "integer" && !Number.isSafeInteger(value)) return bad(rule);
      if (value < (least ?? -Infinity) || value <= (above ?? -Infinity)) return bad(rule);
      if (value > (most ?? Infinity) || value >= (below ?? Infinity)) return bad(rule);
      return value;
    }
  }
}

/** Checks settings under the names of flags (`kind` "flag") or of configuration files. */
export function parseSettings(given: Readonly<Record<string, unknown>>, source: string): GivenSettings {
  const settings: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(given)) {
    if (value === undefined) continue;
    const name = names.find((name) =>
      name === key || flagName(name) === key || flagName(name) === key.replaceAll("_", "-")
    );
    if (!name) {
      const near = nearest(key, [...names, ...names.map(flagName)]);
      throw new UserError(`${source} has the unknown setting ${key}${near ? `; did you mean ${near}?` : ""}`);
    }
    settings[name] = parseValue(name, value, source === "flags" ? `--${flagName(name)}` : `${source}: ${key}`);
  }
  return settings as GivenSettings;
}

/** Reads a configuration file in TOML or JSON. */
export async function readSettingsFile(path: string): Promise<GivenSettings> {
  let content: string;
  try {
    content = Deno.readTextFileSync(path);
  } catch {
    throw new UserError(`Cannot read the configuration ${path}`);
  }
  let parsed: unknown;
  try {
    if (path.endsWith(".json")) parsed = JSON.parse(content);
    else parsed = (await import("smol-toml")).parse(content);
  } catch (error) {
    throw new UserError(`${path} cannot be parsed: ${(error as Error).message.split("\n")[0]}`);
  }
  if (typeof parsed !== "object" || parsed === null) throw new UserError(`${path} holds no settings`);
  return parseSettings(parsed as Record<string, unknown>, path);
}

/** Settings in which nothing that a schedule needs is left open. */
export type CompleteSettings = TrainSettings & { minLearningRate: number; warmupSteps: number };

/** All settings: what is given, earlier arguments first, then the defaults. */
export function completeSettings(...given: readonly GivenSettings[]): CompleteSettings {
  const settings: Record<string, unknown> = {};
  for (const name of names) {
    const found = given.find((some) => some[name] !== undefined);
    settings[name] = found ? found[name] : optionOf(name).fallback;
  }
  const complete = settings as TrainSettings;
  complete.warmupSteps ??= Math.min(50, Math.ceil(complete.steps / 20));
  complete.minLearningRate ??= complete.learningRate / 10;
  // Of a run that is resumed for fewer steps than it meant to warm up, the warm-up just does not end.
  if (given[0]?.warmupSteps !== undefined && complete.warmupSteps > complete.steps) {
    throw new UserError(`--warmup-steps ${complete.warmupSteps} is more than --steps ${complete.steps}: lower it`);
  }
  if (fixedScale(complete.lossScale) !== undefined && complete.precision !== "f16") {
    if (given[0]?.lossScale !== undefined) {
      throw new UserError(`--loss-scale is for --precision f16: in ${complete.precision} no gradient is too small`);
    }
    // A run that is resumed in another precision does without.
    complete.lossScale = trainOptions.lossScale.fallback;
  }
  if (complete.minLearningRate > complete.learningRate) {
    throw new UserError(
      `--min-learning-rate ${complete.minLearningRate} is above --learning-rate ${complete.learningRate}: lower it`,
    );
  }
  return complete as CompleteSettings;
}

/** Settings of where a run is, not of what it is: one that is resumed elsewhere does not take them along. */
const placeSettings = [
  "trace",
  "nodes",
  "rendezvous",
  "nodeRank",
  "listen",
  "secretFile",
  "tlsCert",
  "tlsKey",
  "tlsCa",
  "minNodes",
] as const;

/** The settings that a resumed run takes over from its checkpoint. */
export function inheritedSettings(saved: GivenSettings): GivenSettings {
  return { ...saved, ...Object.fromEntries(placeSettings.map((name) => [name, undefined])) };
}

/** One line of the help: flag, meaning, default. */
export function describeOptions(): { flag: string; help: string; fallback: string }[] {
  return names.map((name) => {
    const option = optionOf(name);
    const argument = option.kind === "switch"
      ? ""
      : option.kind === "choice"
      ? ` ${option.choices!.join("|")}`
      : ` <${option.value ?? option.kind}>`;
    return {
      flag: `--${flagName(name)}${argument}`,
      help: option.help,
      fallback: option.fallback === undefined || option.kind === "switch" ? "" : String(option.fallback),
    };
  });
}

/** Names of all settings. */
export const settingNames: readonly SettingName[] = names;

/** True for settings that are switches. */
export function isSwitch(name: SettingName): boolean {
  return optionOf(name).kind === "switch";
}
