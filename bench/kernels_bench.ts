/** `deno bench`: every op of kernels/ and its gradient, from the table that `muster bench` takes its kernels from. */

import { openDevice } from "../gpu/open.ts";
import { kernelCases } from "./kernel_cases.ts";
import { hasGradient, prepareCase, type PreparedCase } from "./kernel_subjects.ts";

const device = await openDevice();
let ready: { readonly name: string; readonly prepared: PreparedCase } | undefined;

for (const test of kernelCases()) {
  for (const [i, name] of [test.name, ...(hasGradient(test) ? [`${test.name} gradient`] : [])].entries()) {
    Deno.bench({
      name,
      group: test.definition.name,
      async fn(bench) {
        if (ready?.name !== test.name) {
          ready?.prepared.destroy();
          ready = { name: test.name, prepared: await prepareCase(device, test) };
        }
        const { run } = ready.prepared.subjects[i];
        device.drain();
        bench.start();
        run();
        device.drain();
        bench.end();
        await device.settleNowAndThen();
      },
    });
  }
}
