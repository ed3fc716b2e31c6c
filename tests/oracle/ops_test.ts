import assert from "node:assert/strict";
import { type Overrides, withDevice } from "../kernels/harness.ts";
import { compareOp, opNames } from "./ops.ts";

const families: Record<string, Overrides> = {
  "as the adapter is": {},
  "with no feature at all": { subgroupSize: 0 },
  "as on a GPU": { type: "gpu" },
};

for (const [family, overrides] of Object.entries(families)) {
  Deno.test(`every op and its gradients equal PyTorch's within the limits, ${family}`, (t) =>
    withDevice(async (device) => {
      for (const op of opNames) {
        await t.step(op, async () => {
          const failed = (await compareOp(device, op)).filter(({ error, limit }) => !(error <= limit));
          assert.deepEqual(failed, []);
        });
      }
    }, overrides));
}
