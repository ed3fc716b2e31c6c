/** `muster completions`. */

import type { Command } from "commander";
import { UserError } from "../errors.ts";
import { bashScript, fishScript, zshScript } from "./completion_scripts.ts";
import { type Completions, completionsOf } from "./completion_table.ts";
import { print, printJson } from "./output.ts";
import type { Options } from "./values.ts";

const scripts: Readonly<Record<string, (completions: Completions) => string>> = {
  bash: bashScript,
  zsh: zshScript,
  fish: fishScript,
};

/** The command. */
export function completionsCommand(program: Command, shell: string, options: Options): number {
  const script = scripts[shell];
  if (!script) {
    throw new UserError(`There are no completions for ${shell}: name one of ${Object.keys(scripts).join(", ")}`);
  }
  const completions = completionsOf(program);
  if (options.json === true) printJson(completions);
  else print(script(completions));
  return 0;
}
