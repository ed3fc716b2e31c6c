import assert from "node:assert/strict";
import { tuneSelections, tuningOf } from "../../train/tuning.ts";
import { readTuning, tuningFile, writeTuning } from "../../train/tuning_file.ts";
import type { ProductVariant } from "../../gpu/capabilities.ts";
import type { Selection } from "../../gpu/select.ts";
import { type ClassTuning, productsOf, type Tuning, type TuningMode } from "../../kernels/tune_matmul.ts";

const selection: Selection = { device: undefined, ways: [] };
const square: ProductVariant = { family: "broadcast", rows: 32, columns: 1, images: true };
const tiled: ProductVariant = {
  family: "tile",
  rows: 8,
  columns: 1,
  tile: { rows: 64, columns: 64, steps: 16, unroll: 4 },
};

/** A tuning in which all was tried, but of the classes that are `missing`. */
function tuningWith(missing: readonly string[] = [], mode: TuningMode = "quick"): Tuning {
  const names = ["NN", "NT", "TN"].flatMap((layout) => ["small", "large"].map((size) => `${layout} ${size} f32`));
  const classes = names.map((productClass): ClassTuning => {
    const chosen = productClass.endsWith("small f32") ? square : tiled;
    const all = !missing.includes(productClass);
    const trials = all ? [{ variant: chosen, milliseconds: 1 }] : [];
    return { productClass, sizes: { M: 1, N: 1, K: 1 }, trials, ...(all ? { chosen, tried: mode } : none) };
  });
  return { classes, products: productsOf(classes), seconds: 1 };
}
const none = { chosen: undefined, tried: undefined };
const tuning = tuningWith();

/** Runs `body` with a cache folder of its own and without the tests' ban on tuning. */
async function withCache(body: () => Promise<void> | void): Promise<void> {
  const names = ["MUSTER_CACHE", "MUSTER_TUNE"];
  const before = names.map((name) => Deno.env.get(name));
  const folder = Deno.makeTempDirSync();
  Deno.env.set("MUSTER_CACHE", folder);
  Deno.env.delete("MUSTER_TUNE");
  try {
    await body();
  } finally {
    names.forEach((name, i) => before[i] === undefined ? Deno.env.delete(name) : Deno.env.set(name, before[i]));
    Deno.removeSync(folder, { recursive: true });
  }
}

Deno.test("a tuning is read back as it was kept, and handed to all ranks with their devices", () =>
  withCache(async () => {
    assert.equal(readTuning(selection), undefined);
    writeTuning(selection, tuning);
    assert.deepEqual(readTuning(selection)?.products, tuning.products);
    assert.deepEqual((await tuningOf(selection, "quick")).products, tuning.products);
    const told: string[] = [];
    const tuned = await tuneSelections([selection, selection], "quick", (message) => told.push(message));
    assert.deepEqual(tuned.map(({ products }) => products), [tuning.products, tuning.products]);
    assert.deepEqual(told, []);
    assert.deepEqual(await tuneSelections([selection], "off", () => {}), [selection]);
  }));

Deno.test("a damaged tuning, one of another Deno and one with impossible variants are as none", () =>
  withCache(() => {
    writeTuning(selection, tuning);
    const file = tuningFile(selection);
    const good = JSON.parse(Deno.readTextFileSync(file));
    const { key } = good;
    const first = (change: object) => ({ ...good, classes: [{ ...good.classes[0], ...change }] });
    const odd = (change: object) => first({ chosen: { ...square, ...change } });
    for (
      const text of [
        "{",
        "",
        "null",
        JSON.stringify({ ...good, key: { ...key, deno: "1.0.0" } }),
        JSON.stringify({ ...good, classes: undefined }),
        JSON.stringify(first({ tried: "slow" })),
        JSON.stringify(odd({ rows: 7 })),
        JSON.stringify(odd({ family: "cube" })),
        JSON.stringify(odd({ tile: { rows: 64, columns: 64, steps: 16, unroll: 16 } })),
      ]
    ) {
      Deno.writeTextFileSync(file, text);
      assert.equal(readTuning(selection), undefined, text);
    }
    Deno.writeTextFileSync(file, JSON.stringify(good));
    assert.deepEqual(readTuning(selection)?.products, tuning.products);
  }));

Deno.test("a tuning that cannot be kept is a failure only where it was the aim", () =>
  withCache(async () => {
    Deno.writeTextFileSync(`${Deno.env.get("MUSTER_CACHE")}/tuning`, "a file where the folder should be");
    const tune = () => Promise.resolve(tuning);
    await assert.rejects(tuningOf(selection, "quick", { tune }), /Cannot write .*--tune off does without/);
    const told: string[] = [];
    const { products } = await tuningOf(selection, "quick", { tune, unkept: (reason) => told.push(reason) });
    assert.deepEqual(products, tuning.products);
    assert.match(told.join(), /^Cannot write /);
  }));

Deno.test("of a tuning for which time was over the rest is made at the next start; what was tried fully will do for quick", () =>
  withCache(async () => {
    const asked: (readonly ClassTuning[])[] = [];
    const begun: boolean[] = [];
    const start = async (mode: TuningMode, made: Tuning) =>
      (await tuningOf(selection, mode, {
        begin: (isRest) => begun.push(isRest),
        tune: (_, __, before) => {
          asked.push(before);
          return Promise.resolve(made);
        },
      })).products;
    const part = tuningWith(["TN small f32", "TN large f32"]);
    assert.deepEqual(await start("quick", part), part.products);
    assert.deepEqual(await start("quick", tuning), tuning.products);
    assert.deepEqual(await start("quick", part), tuning.products);
    // In full there is more to try; as it is not all there behind it either, a quick start has no need of more.
    const full = tuningWith([], "full");
    assert.deepEqual(await start("full", full), full.products);
    assert.deepEqual(await start("quick", part), full.products);
    assert.deepEqual(asked.map(({ length }) => length), [0, 6, 6]);
    assert.deepEqual(asked[1].map(({ tried }) => tried), [...Array(4).fill("quick"), undefined, undefined]);
    assert.deepEqual(begun, [false, true, true]);
  }));
