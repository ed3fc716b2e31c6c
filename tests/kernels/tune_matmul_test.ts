import assert from "node:assert/strict";
import type { ProductVariant } from "../../gpu/capabilities.ts";
import { type ClassTuning, isTuned, tuneProducts } from "../../kernels/tune_matmul.ts";
import { withDevice } from "./harness.ts";

Deno.test("the tuner keeps a variant whose numbers are the plain kernel's and discards others", () =>
  withDevice(async (device) => {
    const plain: ProductVariant = { family: "direct", rows: 8, columns: 4 };
    // Lanes that the device has not: what is broadcast from them is not what they loaded.
    const wrong: ProductVariant = { family: "broadcast", rows: 32, columns: 4 };
    // 4,096 threads in a workgroup, more than any device has: it does not compile.
    const large: ProductVariant = {
      family: "tile",
      rows: 1,
      columns: 1,
      tile: { rows: 128, columns: 128, steps: 4, unroll: 4 },
    };
    const before = device.capabilities;
    device.capabilities = { ...before, subgroupSize: 32 };
    const told: ClassTuning[] = [];
    const { products, classes, seconds } = await tuneProducts(device, "quick", {
      tell: (done) => told.push(done),
      candidates: (_, name) => name.startsWith("NT") ? [wrong, plain] : [large, plain],
    });
    device.capabilities = before;
    assert.deepEqual(told, classes);
    const tried = classes.find(({ productClass }) => productClass === "NT small f32")!;
    if (before.subgroupSize > 0 && before.subgroupSize < 32) {
      assert.deepEqual(tried.trials[0], { variant: wrong, milliseconds: undefined, reason: "wrong numbers" });
      assert.deepEqual(products["NT small f32"], plain);
    }
    const [failed] = classes.find(({ productClass }) => productClass === "NN small f32")!.trials;
    assert.match(failed.reason!, /Cannot compile kernels\/matmul_tile\.wgsl/);
    assert.deepEqual(products["NN small f32"], plain);
    assert.ok(seconds > 0);
  }));

Deno.test("where time is over the tuner keeps what it has, at least a class more, and goes on with the rest", () =>
  withDevice(async (device) => {
    const plain: ProductVariant = { family: "direct", rows: 8, columns: 4 };
    const candidates = () => [plain, { ...plain, rows: 4 }];
    let before: readonly ClassTuning[] = [];
    for (const finished of [1, 2]) {
      const { classes, products } = await tuneProducts(device, "quick", { before, seconds: 0, candidates });
      assert.deepEqual(classes.map(({ tried }) => tried), classes.map((_, i) => i < finished ? "quick" : undefined));
      // What was there is as it was, times included.
      assert.deepEqual(classes.slice(0, finished - 1), before.slice(0, finished - 1));
      assert.equal(Object.keys(products).length, finished);
      assert.ok(!isTuned(classes, "quick"));
      before = classes;
    }
    // A class that was begun is no worse for a time in which nothing of it could be tried.
    const begun = before.map((tuned, i) =>
      i === 3 ? { ...tuned, trials: before[0].trials.slice(0, 1), chosen: plain } : tuned
    );
    const { classes } = await tuneProducts(device, "quick", { before: begun, seconds: 0, candidates });
    assert.deepEqual(classes[3], begun[3]);
    assert.equal(classes[2].tried, "quick");
    const all = classes.map((tuned) => ({ ...tuned, tried: "quick" as const }));
    assert.ok(isTuned(all, "quick") && !isTuned(all, "full"));
    assert.deepEqual((await tuneProducts(device, "quick", { before: all, seconds: 0, candidates })).classes, all);
  }));
