/** What shells complete, read from the commands' own definitions. */

import type { Command, Option } from "commander";
import { selectable } from "../bench/run.ts";
import { catalogue } from "../data/catalogue.ts";
import { presets } from "../model/configuration.ts";

/** What a flag or an argument takes. */
export interface CompletedValue {
  readonly words: readonly string[];
  /** Whether names of files, or of folders, will do. */
  readonly paths: "files" | "folders" | "none";
}

/** A flag. */
export interface CompletedFlag {
  /** Like `--out`, and `-h` where there is one. */
  readonly names: readonly string[];
  readonly description: string;
  /** Undefined for a switch. */
  readonly value: CompletedValue | undefined;
}

/** A command. */
export interface CompletedCommand {
  readonly name: string;
  readonly description: string;
  readonly flags: readonly CompletedFlag[];
  /** Of its arguments; undefined if it takes none. */
  readonly argument: CompletedValue | undefined;
}

/** Everything that is completed. */
export interface Completions {
  readonly commands: readonly CompletedCommand[];
  /** Flags of the program itself. */
  readonly flags: readonly CompletedFlag[];
}

const nothing: CompletedValue = { words: [], paths: "none" };

/** What goes in the place of `<text>`: one of several words, what its name stands for, or anything. */
function valueOf(text: string, commands: readonly string[]): CompletedValue {
  if (text.includes("|")) return { words: text.split("|"), paths: "none" };
  const known: Readonly<Record<string, CompletedValue>> = {
    file: { words: [], paths: "files" },
    inputs: { words: [], paths: "files" },
    folder: { words: [], paths: "folders" },
    run: { words: [], paths: "folders" },
    data: { words: catalogue.map(({ name }) => name), paths: "files" },
    tokenizer: { words: ["byte", "gpt2"], paths: "files" },
    preset: { words: Object.keys(presets), paths: "none" },
    command: { words: commands, paths: "none" },
    part: { words: selectable(), paths: "none" },
  };
  return known[text] ?? nothing;
}

function describeFlag({ flags, short, long, description }: Option, commands: readonly string[]): CompletedFlag {
  const placeholder = /[<[](.+?)(?:\.\.\.)?[>\]]/.exec(flags)?.[1];
  return {
    names: [long, short].filter((name) => name !== undefined),
    description,
    value: placeholder === undefined ? undefined : valueOf(placeholder, commands),
  };
}

/** What there is to complete of a program. */
export function completionsOf(program: Command): Completions {
  const help = program.createHelp();
  const commands = help.visibleCommands(program);
  const names = commands.map((command) => command.name());
  const flags = (command: Command) => help.visibleOptions(command).map((option) => describeFlag(option, names));
  return {
    flags: flags(program),
    commands: commands.map((command) => {
      const argument = command.registeredArguments[0];
      return {
        name: command.name(),
        description: command.description(),
        flags: flags(command),
        argument: argument && valueOf(argument.name(), names),
      };
    }),
  };
}
