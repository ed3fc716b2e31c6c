/**
 * What the tuner chose, kept in the cache folder: one file for each adapter, driver, Deno and setting of the driver. A run
 * notes it in its checkpoints too, so that it goes on with the same kernels whatever has become of the cache.
 * @module
 */

import { createHash } from "node:crypto";
import { cacheFolder } from "../data/catalogue.ts";
import { MachineError, messageOf } from "../errors.ts";
import type { ProductVariant, ProductVariants } from "../gpu/capabilities.ts";
import type { Selection } from "../gpu/select.ts";
import { type ClassTuning, productsOf, type Tuning, type TuningMode } from "../kernels/tune_matmul.ts";

/** Raised when other variants are tried, or they are timed otherwise. */
const tunerVersion = 3;

/** What a tuning is good for. */
export interface TuningKey {
  readonly tuner: number;
  readonly adapter: string;
  readonly driver: string;
  readonly deno: string;
  /** Settings that change the lanes of a subgroup. */
  readonly environment: string;
}

/** What a run computes products with on devices of a kind, as its checkpoints note it. */
export interface NotedTuning {
  readonly key: TuningKey;
  /** What was asked for. */
  readonly mode: TuningMode;
  readonly products: ProductVariants;
}

/** A tuning, and what it is good for. */
export interface StoredTuning extends Tuning {
  readonly key: TuningKey;
}

/** What a tuning of a device is good for. */
export function keyOf({ device }: Selection): TuningKey {
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
  const { family, rows, columns, images, tile, split } = value as Partial<ProductVariant>;
  const power = (x: unknown, most: number) =>
    typeof x === "number" && x >= 1 && x <= most && Number.isInteger(Math.log2(x));
  return ["broadcast", "direct", "tile"].includes(String(family)) && power(rows, 64) && power(columns, 16) &&
    (images === undefined || typeof images === "boolean") && (split === undefined || power(split, 4096)) &&
    (family === "tile") === (tile !== undefined) &&
    (tile === undefined || (power(tile.rows, 128) && power(tile.columns, 128) && power(tile.steps, 32) &&
      power(tile.unroll, tile.steps) && tile.steps >= 4));
}

function isClassTuning(value: unknown): value is ClassTuning {
  if (typeof value !== "object" || value === null) return false;
  const { productClass, sizes, trials, chosen, tried } = value as Partial<ClassTuning>;
  return typeof productClass === "string" && typeof sizes === "object" && Array.isArray(trials) &&
    (chosen === undefined || isVariant(chosen)) && (tried === undefined || ["quick", "full"].includes(tried));
}

/** The tunings in a part of a checkpoint's `trainer.json`, which may be anything. */
export function readNoted(value: unknown): NotedTuning[] {
  return !Array.isArray(value)
    ? []
    : value.filter((noted: Partial<NotedTuning> | null) =>
      typeof noted?.key === "object" && ["quick", "full"].includes(String(noted.mode)) &&
      typeof noted.products === "object" && noted.products !== null && Object.values(noted.products).every(isVariant)
    );
}

/** The stored tuning of a device, or undefined where there is none, it is of something else, or the file is damaged. */
export function readTuning(selection: Selection): StoredTuning | undefined {
  try {
    const { key, classes, seconds } = JSON.parse(Deno.readTextFileSync(tuningFile(selection))) as StoredTuning;
    const good = JSON.stringify(key) === JSON.stringify(keyOf(selection)) && classes.every(isClassTuning) &&
      typeof seconds === "number";
    return good ? { key, classes, products: productsOf(classes), seconds } : undefined;
  } catch {
    return undefined;
  }
}

/** True if the environment forbids what the tuner chooses, for the same numbers each time: it chooses by time. */
export function tuningIsOff(): boolean {
  return Deno.env.get("MUSTER_TUNE") === "off";
}

/** Selections with what is kept of their devices' tunings: for work that is too short to tune for. */
export function withKeptTuning(selections: readonly Selection[]): Selection[] {
  return selections.map((selection) => {
    const products = tuningIsOff() ? undefined : readTuning(selection)?.products;
    return products ? { ...selection, products } : selection;
  });
}

/** Keeps a tuning; who reads meanwhile sees the old file or the new one. */
export function writeTuning(selection: Selection, { classes, seconds }: Tuning): void {
  const file = tuningFile(selection);
  try {
    Deno.mkdirSync(`${cacheFolder()}/tuning`, { recursive: true });
    const beside = `${file}.${Deno.pid}`;
    Deno.writeTextFileSync(beside, JSON.stringify({ key: keyOf(selection), classes, seconds }, undefined, 1));
    Deno.renameSync(beside, file);
  } catch (error) {
    throw new MachineError(
      `Cannot write ${file}: ${messageOf(error)}; MUSTER_CACHE names another folder, --tune off does without`,
    );
  }
}
