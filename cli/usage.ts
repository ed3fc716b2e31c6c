/** Mistakes on the command line, in Muster's own words. */

import type { Command, CommanderError } from "commander";
import { nearest } from "../data/nearest.ts";
import { UserError } from "../errors.ts";

/** What commander found wrong, as one sentence. */
export function usageError(program: Command, error: CommanderError, args: readonly string[]): UserError {
  const names = program.commands.flatMap((sub) => [sub.name(), ...sub.aliases()]);
  const message = error.message.replace(/^error: /, "").replace(/\s*\n\(Did you mean (.*)\?\)$/s, "; did you mean $1?");
  // Commander answers `help x` by showing all there is.
  const unknownCommand = error.code === "commander.help" ? args[1] : args[0];
  if (["commander.unknownCommand", "commander.help"].includes(error.code) && unknownCommand) {
    const near = nearest(unknownCommand, names);
    return new UserError(
      `There is no command ${unknownCommand}${near ? `; did you mean ${near}?` : ""} (commands: ${names.join(", ")})`,
    );
  }
  // A required flag that is missing may be one that is misspelt.
  const flags = program.commands.find((sub) => sub.name() === args[0])?.options.map(({ long }) => long ?? "") ?? [];
  const unknown = args.slice(1).find((arg) => arg.startsWith("--") && !flags.includes(arg.split("=")[0]));
  if (error.code === "commander.missingMandatoryOptionValue" && unknown) {
    const near = nearest(unknown, flags);
    return new UserError(`Unknown option '${unknown}'${near ? `; did you mean ${near}?` : ""}`);
  }
  return new UserError(`${message.charAt(0).toUpperCase()}${message.slice(1)}`);
}
