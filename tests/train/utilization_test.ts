import assert from "node:assert/strict";
import { openDevice } from "../../gpu/open.ts";
import { measureFlops } from "../../gpu/peak.ts";
import { modelFlopsPerToken } from "../../model/flops.ts";
import { prepareRun } from "../../train/prepare_run.ts";
import { train } from "../../train/trainer.ts";
import { withFolder } from "../folder.ts";

const text = Array.from({ length: 400 }, (_, i) => `${i}. the whale swam for ${i % 7} days\n`).join("");

for (const layout of [{ dp: 2 }, { tp: 2 }]) {
  Deno.test(`MFU of two ranks on a device is of what it can do in all (${JSON.stringify(layout)})`, () =>
    withFolder({ "text.txt": text }, async (folder) => {
      const settings = {
        data: `${folder}/text.txt`,
        out: `${folder}/run`,
        layers: 1,
        heads: 2,
        width: 32,
        sequenceLength: 16,
        batchSize: 4,
        steps: 4,
        evalBatches: 1,
        devices: "0,0",
        ...layout,
      } as const;
      const { configuration } = await prepareRun(settings, () => {});
      const flops = modelFlopsPerToken(configuration, 16) * 4 * 16;
      const peaks: number[] = [];
      await train(settings, {
        onEvent(event) {
          if (event.event !== "step") return;
          peaks.push(flops / (event.milliseconds / 1e3) / event.modelFlopsUtilization);
        },
      });
      assert.equal(peaks.length, 4);
      assert.ok(peaks.every((peak, i) => i === 0 || peak > 0.999 * peaks[i - 1]), `it never falls: ${peaks}`);
      // Opened alone it has all cores, which the ranks have shared.
      const device = await openDevice();
      const whole = Math.max(await measureFlops(device), await measureFlops(device));
      await device.destroy();
      const last = peaks[peaks.length - 1];
      assert.ok(last > 0.6 * whole && last < 1.6 * whole, `${last / 1e9} of ${whole / 1e9} GFLOP/s`);
    }));
}
