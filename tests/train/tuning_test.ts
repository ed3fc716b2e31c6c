import assert from "node:assert/strict";
import { readTuning, tuneSelections, tuningFile, tuningOf, writeTuning } from "../../train/tuning.ts";
import type { Selection } from "../../gpu/select.ts";
import type { Tuning } from "../../kernels/tune_matmul.ts";

const selection: Selection = { device: undefined, ways: [] };
const tuning: Tuning = {
  classes: [],
  products: {
    "NN small f32": { family: "broadcast", rows: 32, columns: 1, images: true },
    "NT large f32": { family: "tile", rows: 8, columns: 1, tile: { rows: 64, columns: 64, steps: 16, unroll: 4 } },
  },
  seconds: 1,
};

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
    writeTuning(selection, "quick", tuning);
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
    const { key } = writeTuning(selection, "quick", tuning);
    const file = tuningFile(selection);
    const good = { key, mode: "quick", ...tuning };
    const odd = (change: object) => ({
      ...good,
      products: { "NN small f32": { ...tuning.products["NN small f32"], ...change } },
    });
    for (
      const text of [
        "{",
        "",
        "null",
        JSON.stringify({ ...good, key: { ...key, deno: "1.0.0" } }),
        JSON.stringify({ ...good, mode: "slow" }),
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
