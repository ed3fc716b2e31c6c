import assert from "node:assert/strict";
import type { Device } from "../../gpu/device.ts";
import { modelConfiguration } from "../../model/configuration.ts";
import { ModelProgram } from "../../train/model_program.ts";
import { scaledMax, withDevice } from "../kernels/harness.ts";

const configuration = modelConfiguration({
  vocabularySize: 500,
  layers: 1,
  width: 256,
  maximumSequenceLength: 64,
});
const rows = 4 * 64;
const tokens = Uint32Array.from({ length: rows }, (_, i) => (i * 37 + (i >> 3)) % 500);
const targets = Int32Array.from({ length: rows }, (_, i) => i % 9 === 0 ? -100 : (i * 11) % 500);
const count = targets.filter((target) => target >= 0).length;
const step = { learningRate: 1e-3, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clip: 1 };

async function train(device: Device, steps: number, seed = 3, dropout = 0) {
  const model = await ModelProgram.create(device, {
    configuration,
    batch: 4,
    sequenceLength: 64,
    segments: ["train"],
    dropout,
  });
  model.initialize(seed);
  const losses: number[] = [];
  const objects: number[] = [];
  for (let i = 0; i < steps; i++) {
    model.beginStep(count);
    await model.train(tokens, targets, { seed, step: i, firstRow: 0 });
    losses.push(await model.lossSum());
    if (i < steps - 1) await model.update({ ...step, step: i + 1 });
    objects.push(device.objectsCreated);
  }
  const gradients = await model.save("gradient");
  const parts = model.parameters.map(({ tensor }) => model.program.plan.placements[tensor.id].length);
  model.destroy();
  return { losses, gradients, objects, parts };
}

Deno.test("ModelProgram trains the same with parameters and activations cut at the binding limit", async () => {
  const whole = await withDevice((device) => train(device, 3));
  const cut = await withDevice((device) => train(device, 3), { bindingLimit: 262144 });
  assert.equal(Math.max(...whole.parts), 1);
  assert.ok(Math.max(...cut.parts) >= 3, `parts: ${cut.parts}`);
  whole.losses.forEach((loss, i) =>
    assert.ok(Math.abs(loss - cut.losses[i]) / loss < 1e-5, `${whole.losses} ${cut.losses}`)
  );
  whole.gradients.forEach(({ name, data }, i) => {
    const error = scaledMax(cut.gradients[i].data, data);
    // The key bias has gradient 0 but for rounding.
    if (!name.endsWith("c_attn.bias")) assert.ok(error < 5e-4, `${name}: ${error}`);
  });
});

Deno.test("ModelProgram creates no GPU object after the second step", () =>
  withDevice(async (device) => {
    const { objects } = await train(device, 6);
    assert.equal(objects[5], objects[1]);
  }));

Deno.test("ModelProgram gives the same loss bits twice with one seed, and others with another", () =>
  withDevice(async (device) => {
    const first = await train(device, 4);
    assert.deepEqual((await train(device, 4)).losses, first.losses);
    assert.notDeepEqual((await train(device, 4, 4)).losses, first.losses);
  }));

Deno.test("ModelProgram repeats dropout's masks from the seed and drops what was asked", () =>
  withDevice(async (device) => {
    const plain = await train(device, 3);
    const first = await train(device, 3, 3, 0.2);
    assert.deepEqual((await train(device, 3, 3, 0.2)).losses, first.losses);
    assert.notEqual(first.losses[0], plain.losses[0]);
    assert.ok(Math.abs(first.losses[0] - plain.losses[0]) / plain.losses[0] < 0.1);
  }));
