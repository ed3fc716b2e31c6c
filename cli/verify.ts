/** `muster verify`. */

import { type LayoutCheck, verifyLayouts } from "../train/verify.ts";
import { interruptedExitCode } from "./exit_codes.ts";
import { print, printError, printJson } from "./output.ts";
import { readSettings } from "./train.ts";
import type { Options } from "./values.ts";

/** Columns of a layout's name; longer ones push the rest to the right. */
const nameColumns = 44;

const formatDifference = (value: number) => value === 0 ? "0" : value.toExponential(1);

function line({ layout, difference, bound, passed, failure }: LayoutCheck): string {
  const found = failure ?? `${formatDifference(difference!).padStart(10)}  ${String(bound).padStart(7)}`;
  return `${layout.padEnd(nameColumns)}  ${failure ? `FAILED  ${found}` : `${found}  ${passed ? "ok" : "FAILED"}`}\n`;
}

/** The command. */
export async function verifyCommand({ layouts, ...options }: Options): Promise<number> {
  const given = await readSettings(options);
  const json = given.json === true;
  const live = !json && Deno.stderr.isTerminal();
  const clear = () => live && printError("\r\x1b[K");
  const controller = new AbortController();
  // The temporary folder is removed before the end; a second interrupt stops at once.
  const stop = () => controller.signal.aborted ? Deno.exit(interruptedExitCode) : controller.abort();
  Deno.addSignalListener("SIGINT", stop);
  try {
    let begun = false;
    const { checks, leftOut, losses, bound } = await verifyLayouts(given, {
      layouts: String(layouts ?? "all"),
      signal: controller.signal,
      onMessage: (message) => json || printError(`${message}\n`),
      onStart: (name, index, count) => {
        if (live) printError(`\r\x1b[K${index} of ${count}: ${name}`);
        else if (!json && !begun) printError(`training on one rank, then on ${count} layouts\n`);
        if (!json && !begun) print(`${"layout".padEnd(nameColumns)}  difference    bound\n`);
        begun = true;
      },
      onCheck: (check) => {
        if (json) return;
        clear();
        print(line(check));
      },
    });
    clear();
    const passed = checks.filter((check) => check.passed).length;
    const failed = checks.length - passed;
    if (json) printJson({ bound, losses, checks, leftOut, passed, failed });
    else {
      for (const { layout, reason } of leftOut) print(`${layout.padEnd(nameColumns)}  left out: ${reason}\n`);
      if (controller.signal.aborted) print("stopped before all layouts were trained\n");
      print(`${passed} passed, ${failed} failed\n`);
    }
    if (controller.signal.aborted) return interruptedExitCode;
    return failed > 0 ? 1 : 0;
  } finally {
    clear();
    Deno.removeSignalListener("SIGINT", stop);
  }
}
