/** `muster tune`. */

import type { ProductVariant } from "../gpu/capabilities.ts";
import { noDeviceError } from "../gpu/open.ts";
import { listSelections, selectionsFor } from "../gpu/select.ts";
import { variantName } from "../kernels/matmul_variants.ts";
import type { ClassTuning } from "../kernels/tune_matmul.ts";
import { parseDevices } from "../train/launch.ts";
import { type StoredTuning, tuningFile, tuningOf } from "../train/tuning.ts";
import { columns } from "./columns.ts";
import { print, printError, printJson } from "./output.ts";
import type { Options } from "./values.ts";

/** The command. */
export async function tuneCommand(options: Options): Promise<number> {
  const selections = listSelections();
  if (selections.length === 0) throw noDeviceError();
  const indices = [...new Set(parseDevices(String(options.devices ?? "all"), selections))];
  const told = [];
  for (const [i, selection] of selectionsFor(indices, selections).entries()) {
    const name = selection.device?.name ?? "the GPU";
    let fresh = false;
    const tuning = await tuningOf(selection, options.full === true ? "full" : "quick", {
      again: options.again === true,
      begin: () => {
        fresh = true;
        if (options.json !== true) printError(`tuning ${name} …\n`);
      },
    });
    const file = tuningFile(selection);
    if (options.json === true) told.push({ index: indices[i], name, file, fresh, ...tuning });
    else show(indices[i], name, file, fresh, tuning);
  }
  if (options.json === true) printJson(told);
  return 0;
}

function show(index: number, name: string, file: string, fresh: boolean, { classes, seconds }: StoredTuning): void {
  print(`${index}  ${name}: ${fresh ? `tuned in ${seconds.toFixed(1)} s` : "tuned before (--again tunes anew)"}\n`);
  const rows = classes.flatMap((tuned) => rowsOf(tuned));
  for (const line of columns([["class, product", "variant", "ms", "GFLOP/s", ""], ...rows])) print(`   ${line}\n`);
  print(`   kept in ${file}\n`);
}

function rowsOf({ productClass, sizes: { M, N, K }, trials, chosen }: ClassTuning): string[][] {
  const same = (variant: ProductVariant) => JSON.stringify(variant) === JSON.stringify(chosen);
  if (trials.length === 0) return [[productClass, "built in", "", "", "no time was left to try any"]];
  return trials.map(({ variant, milliseconds, reason }, i) => [
    i === 0 ? `${productClass}, ${M} x ${N} x ${K}` : "",
    variantName(variant),
    milliseconds?.toFixed(2) ?? "",
    milliseconds ? (2 * M * N * K / milliseconds / 1e6).toFixed(0) : "",
    reason ?? (same(variant) ? "chosen" : ""),
  ]);
}
