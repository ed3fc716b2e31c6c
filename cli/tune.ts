/** `muster tune`. */

import type { ProductVariant } from "../gpu/capabilities.ts";
import { noDeviceError } from "../gpu/open.ts";
import { listSelections, selectionsFor } from "../gpu/select.ts";
import { variantName } from "../kernels/matmul_variants.ts";
import { type ClassTuning, isTuned, type Tuning } from "../kernels/tune_matmul.ts";
import { parseDevices } from "../train/launch.ts";
import { tuningOf } from "../train/tuning.ts";
import { tuningFile } from "../train/tuning_file.ts";
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
    const mode = options.full === true ? "full" : "quick";
    const tuning = await tuningOf(selection, mode, {
      again: options.again === true,
      begin: () => {
        fresh = true;
        if (options.json !== true) printError(`tuning ${name} …\n`);
      },
    });
    const complete = isTuned(tuning.classes, mode);
    const found = { index: indices[i], name, file: tuningFile(selection), fresh, complete, ...tuning };
    if (options.json === true) told.push(found);
    else show(found);
  }
  if (options.json === true) printJson(told);
  return 0;
}

/** What is told of a device. */
interface Found extends Tuning {
  readonly index: number;
  readonly name: string;
  readonly file: string;
  readonly fresh: boolean;
  readonly complete: boolean;
}

function show({ index, name, file, fresh, complete, classes, seconds }: Found): void {
  print(`${index}  ${name}: ${fresh ? `tuned in ${seconds.toFixed(1)} s` : "tuned before (--again tunes anew)"}\n`);
  const rows = classes.flatMap((tuned) => rowsOf(tuned));
  for (const line of columns([["class, product", "variant", "ms", "GFLOP/s", ""], ...rows])) print(`   ${line}\n`);
  if (!complete) print("   time was over before all was tried: the rest is when this, or training, is run again\n");
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
