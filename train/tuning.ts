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
import { keyOf, type NotedTuning, readTuning, tuningIsOff, type TuningKey, writeTuning } from "./tuning_file.ts";

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

/** Devices, and what a run has noted of tunings. */
interface TunedDevices {
  readonly selections: readonly Selection[];
  readonly tunings: readonly NotedTuning[];
}

const sameKey = (a: TuningKey, b: TuningKey) => JSON.stringify(a) === JSON.stringify(b);

/**
 * Selections with what is noted for their devices, else with what the tuner chooses, and the notes with that.
 * `MUSTER_TUNE=off` leaves it out whatever is asked for.
 */
export async function tuneSelections(
  { selections, tunings }: TunedDevices,
  mode: "off" | TuningMode,
  report: (message: string) => void,
): Promise<TunedDevices> {
  if (mode === "off" || tuningIsOff()) return { selections, tunings };
  const own: NotedTuning[] = [];
  const tuned: Selection[] = [];
  for (const selection of selections) {
    const key = keyOf(selection);
    const known = own.find((noted) => sameKey(noted.key, key)) ??
      tunings.find((noted) => sameKey(noted.key, key) && (mode === "quick" || noted.mode === "full"));
    const noted = known ?? { key, mode, products: await productsFor(selection, mode, report) };
    if (!own.includes(noted)) own.push(noted);
    tuned.push({ ...selection, products: noted.products });
  }
  // A run may come back to devices that it had before.
  const others = tunings.filter(({ key }) => !own.some((noted) => sameKey(noted.key, key)));
  return { selections: tuned, tunings: [...own, ...others] };
}

async function productsFor(
  selection: Selection,
  mode: TuningMode,
  report: (message: string) => void,
): Promise<ProductVariants> {
  const name = selection.device?.name ?? "the GPU";
  const begin = (isRest: boolean) =>
    report(
      isRest
        ? `tuning what is missing of matrix products for ${name} (--tune off does without) …`
        : `tuning matrix products for ${name}, once (--tune off does without) …`,
    );
  const unkept = (reason: string) => report(`${reason}; this run goes on with what was found`);
  return (await tuningOf(selection, mode, { begin, unkept })).products;
}
