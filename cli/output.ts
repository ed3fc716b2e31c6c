/** Standard output and error, for commands. */

import { MachineError, messageOf, UserError } from "../errors.ts";

const encoder = new TextEncoder();

function writeAll(stream: { writeSync(bytes: Uint8Array): number }, text: string): void {
  const bytes = encoder.encode(text);
  try {
    for (let done = 0; done < bytes.length;) done += stream.writeSync(bytes.subarray(done));
  } catch (error) {
    // Whoever read this has gone (`| head`): there is nobody left to tell.
    if (error instanceof Deno.errors.BrokenPipe) Deno.exit(0);
    throw error;
  }
}

/** Writes to standard output. */
export function print(text: string): void {
  writeAll(Deno.stdout, text);
}

/** Writes to standard error. */
export function printError(text: string): void {
  writeAll(Deno.stderr, text);
}

/** Columns of the terminal; some know no size and say 0. */
export function terminalColumns(): number {
  return Deno.consoleSize().columns || 80;
}

/** Prints one JSON object on a line. */
export function printJson(value: unknown): void {
  print(`${JSON.stringify(value)}\n`);
}

/** What Deno says of a package that it could not fetch, in a sentence. */
function packageError(error: unknown): MachineError | undefined {
  const [first, second = ""] = messageOf(error).split("\n");
  const name = /^Failed caching npm package '(.+)'/.exec(first)?.[1];
  if (!name) return undefined;
  const reason = second.replace(/^\s*\d+:\s*/, "");
  const sentence = `The npm package ${name} could not be fetched${reason ? ` (${reason})` : ""}: go online once`;
  return new MachineError(`${sentence}; later runs need no network`);
}

/** Reports what was thrown, as one sentence, and returns the exit code. */
export function report(error: unknown, options: { json: boolean; verbose: boolean }): number {
  error = packageError(error) ?? error;
  const exitCode = error instanceof UserError ? 2 : 1;
  const message = messageOf(error).trim();
  if (options.json) printJson({ event: "error", message, exitCode });
  const known = error instanceof Error && (error.name === "UserError" || error.name === "MachineError");
  printError(`muster: ${message}\n`);
  if (options.verbose && error instanceof Error) printError(`${error.stack}\n`);
  else if (!known) printError("This is a fault of Muster: run again with --verbose and report what it prints\n");
  return exitCode;
}
