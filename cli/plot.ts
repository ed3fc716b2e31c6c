/** `muster plot`. */

import { messageOf, UserError } from "../errors.ts";
import { plotSvg, plotText, readCurves } from "../train/plot.ts";
import { print, printJson, terminalColumns } from "./output.ts";
import type { Options } from "./values.ts";

/** The command. */
export function plotCommand(run: string, options: Options): Promise<number> {
  const curves = readCurves(run);
  if (options.json === true) {
    printJson(curves);
    return Promise.resolve(0);
  }
  const path = options.svg === undefined ? `${run}/loss.svg` : String(options.svg);
  try {
    Deno.writeTextFileSync(path, plotSvg(curves, `Loss of ${run}`));
  } catch (error) {
    throw new UserError(`Cannot write ${path} (${messageOf(error)}): choose another place with --svg`);
  }
  const columns = Deno.stdout.isTerminal() ? Math.min(120, terminalColumns()) : 80;
  print(`${plotText(curves, columns)}\n\nwritten to ${path}\n`);
  return Promise.resolve(0);
}
