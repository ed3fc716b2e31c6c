/** Reads numbers among a command's options. */

import { UserError } from "../errors.ts";

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
