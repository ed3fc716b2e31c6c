/**
 * What the tuner chose, kept in the cache folder: one file for each adapter, driver, Deno and setting of the driver. The coordinator
 * reads or makes it and hands it to the ranks with their devices, so all that share a device kind compute alike.
 * @module
 */

import { createHash } from "node:crypto";
import { cacheFolder } from "../data/catalogue.ts";
import { MachineError, messageOf } from "../errors.ts";
import type { ProductVariant, ProductVariants } from "../gpu/capabilities.ts";
import type { Selection } from "../gpu/select.ts";
import type { Tuning, TuningMode } from "../kernels/tune_matmul.ts";
import { tuneInWorker } from "./rank.ts";

/** Raised when other variants are tried, or they are timed otherwise. */
const tunerVersion = 1;

/** What a tuning is good for. */
interface TuningKey {
  readonly tuner: number;
  readonly adapter: string;
  readonly driver: string;
  readonly deno: string;
  /** Settings that change the lanes of a subgroup. */
  readonly environment: string;
}

/** A tuning in a file. */
export interface StoredTuning extends Tuning {
  readonly key: TuningKey;
  readonly mode: TuningMode;
}

function keyOf({ device }: Selection): TuningKey {
  const settings = ["LP_NATIVE_VECTOR_WIDTH", "MUSTER_SUBGROUPS"].map((name) => `${name}=${Deno.env.get(name) ?? ""}`);
  return {
    tuner: tunerVersion,
    adapter: device?.name ?? "the only adapter",
    driver: device ? `${device.driver} ${device.driverVersion} ${device.driverUuid}` : Deno.build.os,
    deno: Deno.version.deno,
    environment: settings.join(" "),
  };
}

/** The file in which the tuning of a device is kept. */
export function tuningFile(selection: Selection): string {
  const hash = createHash("sha256").update(JSON.stringify(keyOf(selection))).digest("hex");
  return `${cacheFolder()}/tuning/${hash.slice(0, 24)}.json`;
}

/** True for what the tuner may have written: a file may be anything. */
function isVariant(value: unknown): value is ProductVariant {
  if (typeof value !== "object" || value === null) return false;
  const { family, rows, columns, images, tile } = value as Partial<ProductVariant>;
  const power = (x: unknown, most: number) =>
    typeof x === "number" && x >= 1 && x <= most && Number.isInteger(Math.log2(x));
  return ["broadcast", "direct", "tile"].includes(String(family)) && power(rows, 64) && power(columns, 16) &&
    (images === undefined || typeof images === "boolean") &&
    (family === "tile") === (tile !== undefined) &&
    (tile === undefined || (power(tile.rows, 128) && power(tile.columns, 128) && power(tile.steps, 32) &&
      power(tile.unroll, tile.steps) && tile.steps >= 4));
}

function areVariants(value: unknown): value is ProductVariants {
  return typeof value === "object" && value !== null && Object.values(value).every(isVariant);
}

/** The stored tuning of a device, or undefined where there is none, it is of something else, or the file is damaged. */
export function readTuning(selection: Selection): StoredTuning | undefined {
  try {
    const stored: StoredTuning = JSON.parse(Deno.readTextFileSync(tuningFile(selection)));
    const good = JSON.stringify(stored.key) === JSON.stringify(keyOf(selection)) && areVariants(stored.products) &&
      Array.isArray(stored.classes) && typeof stored.seconds === "number" && ["quick", "full"].includes(stored.mode);
    return good ? stored : undefined;
  } catch {
    return undefined;
  }
}

/** Keeps a tuning; who reads meanwhile sees the old file or the new one. */
export function writeTuning(selection: Selection, mode: TuningMode, tuning: Tuning): StoredTuning {
  const file = tuningFile(selection);
  const stored = { key: keyOf(selection), mode, ...tuning };
  try {
    Deno.mkdirSync(`${cacheFolder()}/tuning`, { recursive: true });
    const beside = `${file}.${Deno.pid}`;
    Deno.writeTextFileSync(beside, JSON.stringify(stored, undefined, 1));
    Deno.renameSync(beside, file);
  } catch (error) {
    throw new MachineError(
      `Cannot write ${file}: ${messageOf(error)}; MUSTER_CACHE names another folder, --tune off does without`,
    );
  }
  return stored;
}

/** How a device's tuning is come by. */
interface TuningHooks {
  /** Also where there is one. */
  readonly again?: boolean;
  /** Told before it is made. */
  readonly begin?: () => void;
  /** Told why it could not be kept; a failure if left out. */
  readonly unkept?: (reason: string) => void;
  /** Makes it (tests have another). */
  readonly tune?: typeof tuneInWorker;
}

/** The device's tuning: read, or (also if less was tried than is asked for, or `again`) made and kept. */
export async function tuningOf(
  selection: Selection,
  mode: TuningMode,
  { again = false, begin = () => {}, unkept, tune = tuneInWorker }: TuningHooks = {},
): Promise<StoredTuning> {
  const stored = again ? undefined : readTuning(selection);
  if (stored && (mode === "quick" || stored.mode === "full")) return stored;
  begin();
  const made = await tune(selection, mode);
  if ("reason" in made) {
    throw new MachineError(
      `${selection.device?.name ?? "The GPU"} cannot be tuned: ${made.reason}; --tune off does without`,
    );
  }
  try {
    return writeTuning(selection, mode, made);
  } catch (error) {
    if (!unkept) throw error;
    unkept(messageOf(error));
    return { key: keyOf(selection), mode, ...made };
  }
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
    const begin = () => report(`tuning matrix products for ${name}, once (--tune off does without) …`);
    const unkept = (reason: string) => report(`${reason}; this run goes on with what was found`);
    found.set(file, (await tuningOf(selection, mode, { begin, unkept })).products);
  }
  return selections.map((selection) => ({ ...selection, products: found.get(tuningFile(selection))! }));
}
