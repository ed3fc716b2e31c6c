import assert from "node:assert/strict";
import { modelFolder } from "../fixtures.ts";
import { type Overrides, withDevice } from "../kernels/harness.ts";
import { compareModel } from "./models.ts";

const families: Record<string, [Overrides, logitsBytes?: number]> = {
  "as the adapter is": [{}],
  "with no feature at all": [{ subgroupSize: 0 }],
  "as on a GPU": [{ type: "gpu" }],
  "with activations and logits cut": [{ bindingLimit: 114688 }],
  "with the losses of 64 rows at a time": [{}, 1],
};

for (const [family, [overrides, logitsBytes]] of Object.entries(families)) {
  Deno.test(`every model's losses, gradients and updates equal PyTorch's within the limits, ${family}`, (t) =>
    withDevice(async (device) => {
      for (const name of ["gpt2_tiny", "llama_tiny", "llama_tied_tiny"]) {
        await t.step(name, async () => {
          const found = await compareModel(device, modelFolder(name), logitsBytes ? { logitsBytes } : {});
          assert.ok(found.length > 40);
          assert.deepEqual(found.filter(({ error, limit }) => !(error <= limit)), []);
        });
      }
    }, overrides));
}
