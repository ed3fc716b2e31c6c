import assert from "node:assert/strict";
import { byteTokenizer } from "../../data/tokenizer.ts";
import type { ProductVariant } from "../../gpu/capabilities.ts";
import { listSelections, type Selection, selectionsFor } from "../../gpu/select.ts";
import { type ClassTuning, productsOf, type Tuning, type TuningMode } from "../../kernels/tune_matmul.ts";
import { openCheckpoint } from "../../train/checkpoint.ts";
import { evaluate } from "../../train/evaluate.ts";
import type { TrainEvent } from "../../train/events.ts";
import { generationJobs } from "../../train/generation_job.ts";
import { parseDevices } from "../../train/launch.ts";
import type { GivenSettings } from "../../train/settings.ts";
import { train } from "../../train/trainer.ts";
import { tuneSelections, tuningOf } from "../../train/tuning.ts";
import { keyOf, readNoted, readTuning, tuningFile, writeTuning } from "../../train/tuning_file.ts";
import { modelFolder } from "../fixtures.ts";
import { withFolder } from "../folder.ts";

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
  const types = mode === "full" ? ["f32", "halves"] : ["f32"];
  const names = types.flatMap((type) =>
    ["NN", "NT", "TN"].flatMap((layout) => ["small", "large", "tall"].map((size) => `${layout} ${size} ${type}`))
  );
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
    const two = { selections: [selection, selection], tunings: [] };
    const { selections, tunings } = await tuneSelections(two, "quick", (message) => told.push(message));
    assert.deepEqual(selections.map(({ products }) => products), [tuning.products, tuning.products]);
    assert.deepEqual(tunings, [{ key: keyOf(selection), mode: "quick", products: tuning.products }]);
    assert.deepEqual(told, []);
    assert.deepEqual(await tuneSelections(two, "off", () => {}), two);
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
        JSON.stringify(odd({ split: 0 })),
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
    const part = tuningWith(["TN small f32", "TN large f32", "TN tall f32"]);
    assert.deepEqual(await start("quick", part), part.products);
    assert.deepEqual(await start("quick", tuning), tuning.products);
    assert.deepEqual(await start("quick", part), tuning.products);
    const full = tuningWith([], "full");
    assert.deepEqual(await start("full", full), full.products);
    assert.deepEqual(await start("quick", part), full.products);
    assert.deepEqual(asked.map(({ length }) => length), [0, 9, 9]);
    assert.deepEqual(asked[1].map(({ tried }) => tried), [...Array(6).fill("quick"), ...Array(3).fill(undefined)]);
    assert.deepEqual(begun, [false, true, true]);
  }));

Deno.test("what a run has noted goes before what is in the cache, unless more is asked for; what is no note is left out", () =>
  withCache(async () => {
    const full = tuningWith([], "full");
    writeTuning(selection, full);
    const key = keyOf(selection);
    const own = { key, mode: "quick", products: { "NN small f32": tiled } } as const;
    const other = { key: { ...key, adapter: "another" }, mode: "full", products: { "NN small f32": square } } as const;
    const run = { selections: [selection], tunings: [other, own] };
    const quick = await tuneSelections(run, "quick", () => assert.fail("tuned"));
    assert.deepEqual(quick, { selections: [{ ...selection, products: own.products }], tunings: [own, other] });
    const { tunings } = await tuneSelections(run, "full", () => assert.fail("tuned"));
    assert.deepEqual(tunings, [{ key, mode: "full", products: full.products }, other]);

    const wrong = [null, 1, { key }, { ...own, mode: "off" }, { ...own, products: { x: { ...tiled, rows: 3 } } }];
    assert.deepEqual(readNoted([own, ...wrong, other]), [own, other]);
    for (const none of [undefined, null, "x", {}]) assert.deepEqual(readNoted(none), []);
  }));

const ownDevice = () => {
  const selections = listSelections();
  return selectionsFor(parseDevices("all", selections), selections)[0];
};

Deno.test("a resumed run computes with the kernels that it began with, whatever has become of the cache", () =>
  withCache(() =>
    withFolder({ "text.txt": "the whale swam north for many days\n".repeat(100) }, async (folder) => {
      const device = ownDevice();
      writeTuning(device, tuning);
      const small = { data: `${folder}/text.txt`, layers: 1, heads: 2, width: 32, evalInterval: 0, evalBatches: 1 };
      const events: TrainEvent[] = [];
      const onEvent = (event: TrainEvent) => events.push(event);
      const noted = async (settings: GivenSettings) => {
        const { checkpoint } = await train({ ...small, ...settings, devices: String(device.device?.index ?? 0) }, {
          onEvent,
        });
        return JSON.parse(Deno.readTextFileSync(`${checkpoint}/trainer.json`)).tunings;
      };
      const expected = [{ key: keyOf(device), mode: "quick", products: tuning.products }];
      assert.deepEqual(await noted({ out: `${folder}/run`, steps: 2 }), expected);
      Deno.removeSync(tuningFile(device));
      assert.deepEqual(await noted({ resume: `${folder}/run`, steps: 3 }), expected);
      assert.ok(!events.some((event) => event.event === "message" && event.message.includes("tuning")));
      assert.equal(readTuning(device), undefined);
    })
  ));

Deno.test("generate and eval use what was chosen before for their device, and tune nothing; MUSTER_TUNE=off is for the built-in", () =>
  withCache(() =>
    withFolder({ "text.txt": "the whale swam north for many days\n".repeat(100) }, async (folder) => {
      const model = modelFolder("gpt2_tiny").pathname;
      for (const file of ["config.json", "model.safetensors"]) {
        Deno.copyFileSync(`${model}/${file}`, `${folder}/${file}`);
      }
      for (const [name, text] of Object.entries(byteTokenizer().files())) {
        Deno.writeTextFileSync(`${folder}/${name}`, text);
      }
      const checkpoint = await openCheckpoint(folder);
      checkpoint.close();
      const { configuration } = checkpoint;
      const device = ownDevice();
      const request = { folder, configuration, prompts: [[1]], tokens: 1, endOfText: undefined, choices: 1, seed: 1 };
      const sampling = { temperature: 0, topK: 0, topP: 1 };
      const chosen = () =>
        generationJobs({ ...request, sampling, devices: String(device.device?.index ?? 0) })[0].selection.products;
      const evaluated = () =>
        evaluate({ checkpoint: folder, data: `${folder}/text.txt`, sequences: 8, sequenceLength: 32 });
      assert.equal(chosen(), undefined);
      const { loss } = await evaluated();
      assert.equal(readTuning(device), undefined);

      // No device has so many threads in a workgroup: who uses it fails.
      const impossible = {
        family: "tile",
        rows: 1,
        columns: 1,
        tile: { rows: 128, columns: 128, steps: 4, unroll: 4 },
      } as const;
      const classes = tuning.classes.map((tuned) => ({ ...tuned, chosen: impossible }));
      writeTuning(device, { ...tuning, classes });
      assert.deepEqual(chosen(), productsOf(classes));
      await assert.rejects(evaluated(), /Cannot compile kernels\/matmul_tile/);
      Deno.env.set("MUSTER_TUNE", "off");
      assert.equal(chosen(), undefined);
      assert.equal((await evaluated()).loss, loss);
    })
  ));
