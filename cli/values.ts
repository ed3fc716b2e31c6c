/** Reads numbers among a command's options. */

import { UserError } from "../errors.ts";
import type { Precision } from "../graph/tensor.ts";
import { parseSettings } from "../train/settings.ts";

/** Options as commander gives them. */
export type Options = Record<string, unknown>;

/** The number of option `name`, checked. */
export function numberOption(
  options: Options,
  name: string,
  range: { least?: number; most?: number; whole?: boolean },
): number {
  const flag = `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
  const given = options[name];
  const value = typeof given === "string" && given.trim() !== "" ? Number(given) : NaN;
  const { least = -Infinity, most = Infinity, whole = false } = range;
  if (Number.isFinite(value) && value >= least && value <= most && (!whole || Number.isSafeInteger(value))) {
    return value;
  }
  const limits = [
    Number.isFinite(least) ? `at least ${least}` : "",
    Number.isFinite(most) ? `at most ${most}` : "",
  ].filter(Boolean).join(" and ");
  throw new UserError(
    `${flag} is ${JSON.stringify(given)}, but must be ${whole ? "a whole number" : "a number"}${
      limits ? `, ${limits}` : ""
    }`,
  );
}

/** The same, or undefined where the option was not given. */
export function optionalNumber(
  options: Options,
  name: string,
  range: { least?: number; most?: number; whole?: boolean },
): number | undefined {
  return options[name] === undefined ? undefined : numberOption(options, name, range);
}

const units: Readonly<Record<string, number>> = {
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

/** Bytes written with a unit, like `24GiB`; undefined where the option was not given. */
export function bytesOption(options: Options, name: string): number | undefined {
  const given = options[name];
  if (given === undefined) return undefined;
  const [, number, unit] = /^\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*$/i.exec(String(given)) ?? [];
  const bytes = Number(number) * (units[unit?.toLowerCase()] ?? NaN);
  if (bytes > 0) return bytes;
  throw new UserError(`--${name} is ${JSON.stringify(given)}, but must be a size with its unit, like 24GiB or 8GB`);
}

/** In what weights and activations are stored, if it is said. */
export function precisionOption({ precision }: Options): { precision?: Precision } {
  const parsed = parseSettings({ precision }, "flags").precision;
  return parsed === undefined ? {} : { precision: parsed };
}
