/** The help of the whole program: commands by purpose, with an example each. */

import type { Command } from "commander";
import { exitCodes } from "./exit_codes.ts";

const examples = new WeakMap<Command, readonly string[]>();

/** Remembers examples of a command. */
export function setExamples(command: Command, given: readonly string[]): void {
  examples.set(command, given);
}

/** Examples of a command, the simplest first. */
export function examplesOf(command: Command): readonly string[] {
  return examples.get(command) ?? [`muster ${command.name()} train`];
}

/** The page. */
export function overview(program: Command): string {
  const help = program.createHelp();
  const commands = help.visibleCommands(program);
  const nameColumns = Math.max(...commands.map((command) => command.name().length));
  const line = (term: string, text: string) => `  ${term.padEnd(nameColumns)}  ${text}\n`;
  const groups = Map.groupBy(commands, (command) => command.helpGroup());
  const parts = [...groups].map(([heading, members]) =>
    `${heading}\n` +
    members.map((command) =>
      line(command.name(), command.description()) + line("", `  ${examplesOf(command)[0].replace(/ {2,}[(#].*$/, "")}`)
    ).join("")
  );
  const options = help.visibleOptions(program).map((option) => `  ${option.flags.padEnd(15)}${option.description}\n`);
  const codes = exitCodes.map(([code, meaning]) => `  ${String(code).padEnd(15)}${meaning}\n`);
  return [
    "Usage: muster <command> [options]\n",
    `${program.description()}\n`,
    ...parts,
    `Options:\n${options.join("")}`,
    `Exit codes:\n${codes.join("")}`,
    "Every command has --help with its flags and examples. Is this machine fit? muster doctor\n",
  ].join("\n");
}
