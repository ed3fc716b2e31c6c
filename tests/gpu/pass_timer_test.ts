import assert from "node:assert/strict";
import { openDevice } from "../../gpu/open.ts";
import { PassTimer } from "../../gpu/pass_timer.ts";
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
