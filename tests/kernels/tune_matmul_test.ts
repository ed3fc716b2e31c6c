import assert from "node:assert/strict";
import type { ProductVariant } from "../../gpu/capabilities.ts";
import { type ClassTuning, tuneProducts } from "../../kernels/tune_matmul.ts";
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
    const { products, classes, seconds } = await tuneProducts(device, "quick", ["f32"], {
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
