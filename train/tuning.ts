/**
 * Tuning before a run: the coordinator reads or makes what the tuner chooses and hands it to the ranks with their devices, so
 * all that share a device kind compute alike.
 * @module
 */

import { MachineError, messageOf } from "../errors.ts";
import type { ProductVariants } from "../gpu/capabilities.ts";
import type { Selection } from "../gpu/select.ts";
import { isTuned, type Tuning, type TuningMode } from "../kernels/tune_matmul.ts";
import { tuneInWorker } from "./rank.ts";
import { readTuning, tuningFile, writeTuning } from "./tuning_file.ts";

/** How a device's tuning is come by. */
interface TuningHooks {
  /** Also where there is one. */
  readonly again?: boolean;
  /** Told before it is made, and whether some of it was there. */
  readonly begin?: (isRest: boolean) => void;
  /** Told why it could not be kept; a failure if left out. */
  readonly unkept?: (reason: string) => void;
  /** Makes it (tests have another). */
  readonly tune?: typeof tuneInWorker;
}

/** The device's tuning: read, or (also what is missing of what is asked for, and `again` all) made and kept. */
export async function tuningOf(
  selection: Selection,
  mode: TuningMode,
  { again = false, begin = () => {}, unkept, tune = tuneInWorker }: TuningHooks = {},
): Promise<Tuning> {
  const stored = again ? undefined : readTuning(selection);
  if (stored && isTuned(stored.classes, mode)) return stored;
  begin(stored !== undefined);
  const made = await tune(selection, mode, stored?.classes ?? []);
  if ("reason" in made) {
    throw new MachineError(
      `${selection.device?.name ?? "The GPU"} cannot be tuned: ${made.reason}; --tune off does without`,
    );
  }
  try {
    writeTuning(selection, made);
  } catch (error) {
    if (!unkept) throw error;
    unkept(messageOf(error));
  }
  return made;
}

/** Selections with what the tuner chose for their devices. `MUSTER_TUNE=off` leaves it out whatever is asked for. */
export async function tuneSelections(
  selections: readonly Selection[],
  mode: "off" | TuningMode,
  report: (message: string) => void,
): Promise<Selection[]> {
  if (mode === "off" || Deno.env.get("MUSTER_TUNE") === "off") return [...selections];
  const found = new Map<string, ProductVariants>();
  for (const selection of selections) {
    const file = tuningFile(selection);
    if (found.has(file)) continue;
    const name = selection.device?.name ?? "the GPU";
    const begin = (isRest: boolean) =>
      report(
        isRest
          ? `tuning what is missing of matrix products for ${name} (--tune off does without) …`
          : `tuning matrix products for ${name}, once (--tune off does without) …`,
      );
    const unkept = (reason: string) => report(`${reason}; this run goes on with what was found`);
    found.set(file, (await tuningOf(selection, mode, { begin, unkept })).products);
  }
  return selections.map((selection) => ({ ...selection, products: found.get(tuningFile(selection))! }));
}
