/**
 * Runs this program once more for something that may crash or hang, as drivers do, and reads what it tells.
 * @module
 */

import { messageOf } from "../errors.ts";
import { ownCommand } from "./supervisor.ts";

/** What came of it. */
export interface OwnProcess {
  /** The JSON that it printed, line by line. */
  readonly told: readonly unknown[];
  readonly code: number;
  /** Why it did not end by itself, or badly; undefined if it ended well. */
  readonly fault: string | undefined;
}

/** Runs a command line that prints JSON; it is killed when its time is over. */
export async function runOwn(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  seconds: number,
): Promise<OwnProcess> {
  let child: Deno.ChildProcess;
  try {
    child = ownCommand(args, { env: { ...env }, stdout: "piped", stderr: "piped" }).spawn();
  } catch (error) {
    return { told: [], code: 1, fault: `its process cannot be started (${messageOf(error)})` };
  }
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    child.kill("SIGKILL");
  }, seconds * 1e3);
  const { code, signal, stdout, stderr } = await child.output();
  clearTimeout(timer);
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  const told = text(stdout).split("\n").flatMap((line) => {
    try {
      return [JSON.parse(line) as unknown];
    } catch {
      return []; // Cut off, or a driver's own words.
    }
  });
  const said = text(stderr).trim().split("\n").pop()!.replace(/^muster: /, "");
  const fault = late
    ? `it did not end within ${seconds} s`
    : signal !== null
    ? `its process was ended by ${signal}`
    : code !== 0
    ? messageAmong(told) ?? (said || `its process ended with code ${code}`)
    : undefined;
  return { told, code, fault };
}

/** The message of an error that was told. */
function messageAmong(told: readonly unknown[]): string | undefined {
  for (const event of told as readonly { event?: unknown; message?: unknown }[]) {
    if (event?.event === "error" && typeof event.message === "string") return event.message;
  }
  return undefined;
}
