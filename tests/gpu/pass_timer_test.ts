import assert from "node:assert/strict";
import { openDevice } from "../../gpu/open.ts";
import { multiplyAdds, usualChains } from "../../gpu/loads.ts";
import { PassTimer } from "../../gpu/pass_timer.ts";
import { measureFlops } from "../../gpu/probe.ts";
import { Graph } from "../../graph/graph.ts";
import { Program } from "../../graph/program.ts";
import { gelu } from "../../kernels/gelu.ts";

Deno.test("PassTimer tells how long a program's passes run: nearly all of a long wait, nothing when it is not asked to", async () => {
  const device = await openDevice();
  try {
    if (!PassTimer.works(device)) return;
    const timer = new PassTimer(device);
    const graph = new Graph();
    const x = graph.tensor("x", [2048, 2048], "input");
    graph.segment("run", () => graph.add(gelu, [x], {}));
    const program = await Program.create(device, graph);
    for (let i = 0; i < 3; i++) await program.run("run");
    device.drain();
    assert.equal(await timer.take(), 0);
    device.passTimer = timer;
    const start = performance.now();
    for (let i = 0; i < 10; i++) await program.run("run");
    device.drain();
    const waited = performance.now() - start;
    device.passTimer = undefined;
    const busy = await timer.take();
    assert.ok(busy > 0.2 * waited && busy < 1.05 * waited + 0.1, `${busy} of ${waited} ms`);
    timer.destroy();
    program.destroy();
  } finally {
    await device.destroy();
  }
});

Deno.test("the peak measured at opening is not far below that of other numbers of chains, and takes less than 150 ms", async () => {
  const device = await openDevice();
  try {
    await measureFlops(device);
    // Others may use the machine: the fastest of a few counts for both.
    let [least, peak, best] = [Infinity, 0, 0];
    for (let round = 0; round < 4; round++) {
      const start = performance.now();
      peak = Math.max(peak, await measureFlops(device));
      least = Math.min(least, performance.now() - start);
      for (const count of [2, 3, 4, 8]) {
        const load = await multiplyAdds(device, { ...usualChains, count }, 512);
        const began = performance.now();
        load.run();
        device.drain();
        best = Math.max(best, load.amount / ((performance.now() - began) / 1e3));
        load.destroy();
      }
    }
    assert.ok(least < 150, `${least} ms`);
    assert.ok(peak > 0.75 * best, `${peak / 1e9} of ${best / 1e9} GFLOP/s`);
  } finally {
    await device.destroy();
  }
});
