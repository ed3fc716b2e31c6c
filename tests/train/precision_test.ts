import assert from "node:assert/strict";
import type { Device } from "../../gpu/device.ts";
import { UserError } from "../../errors.ts";
import { makePlan } from "../../graph/plan.ts";
import { genericCapabilities } from "../../gpu/capabilities.ts";
import type { Precision } from "../../graph/tensor.ts";
import { modelConfiguration } from "../../model/configuration.ts";
import { buildModelGraph } from "../../train/model_graph.ts";
import { ModelProgram } from "../../train/model_program.ts";
import { planTraining } from "../../train/plan_training.ts";
import { soleRank } from "../../train/rank_layout.ts";
import { withDevice } from "../kernels/harness.ts";

const sequenceLength = 32;
const batch = 4;
const shape = { vocabularySize: 256, layers: 1, width: 64, heads: 4, maximumSequenceLength: 64 };
const families = {
  gpt2: modelConfiguration({ ...shape, family: "gpt2" }),
  llama: modelConfiguration({ ...shape, family: "llama", keyValueHeads: 2 }),
};
const rows = batch * sequenceLength;
const tokens = Uint32Array.from({ length: rows }, (_, i) => (i * i * 31 + (i >> 2)) % 97);
const targets = Int32Array.from({ length: rows }, (_, i) => (i + 1) % sequenceLength ? tokens[i + 1] : -100);
const count = targets.filter((target) => target >= 0).length;
const adam = { learningRate: 3e-3, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clip: 1 };

/** Runs in f16 are for devices that offer it; the kernels work on all. */
const needsNoFeature = { shaderF16: true };

async function losses(device: Device, family: keyof typeof families, precision: Precision, steps: number, scale = 1) {
  const configuration = families[family];
  const layout = soleRank(configuration, precision);
  const options = { configuration, batch, sequenceLength, segments: ["train"], layout } as const;
  const model = await ModelProgram.create(device, options);
  model.initialize(7);
  model.lossScale = scale;
  const found: number[] = [];
  const norms: number[] = [];
  for (let step = 1; step <= steps; step++) {
    model.beginStep(count);
    await model.train(tokens, targets);
    await model.update({ ...adam, step });
    found.push(await model.lossSum() / count);
    norms.push(await model.gradientNorm());
  }
  model.destroy();
  return { losses: found, norms };
}

Deno.test("20 steps in half have the losses of f32 within 1% (bf16) and 0.2% (f16)", () =>
  withDevice(async (device) => {
    for (
      const [family, precision, scale, bound] of [["gpt2", "bf16", 1, 0.01], ["llama", "f16", 1024, 0.002]] as const
    ) {
      const exact = await losses(device, family, "f32", 20);
      const got = await losses(device, family, precision, 20, scale);
      const off = got.losses.map((loss, i) => Math.abs(loss / exact.losses[i] - 1));
      assert.ok(Math.max(...off) < bound, `${family} ${precision}: ${off}`);
    }
  }, needsNoFeature));

Deno.test("weights and activations take at most 0.6 of f32's bytes", () => {
  for (const configuration of Object.values(families)) {
    const bytes = (["f32", "bf16"] as const).map((precision) => {
      const layout = soleRank(configuration, precision);
      const options = { configuration, batch, sequenceLength, segments: ["train", "evaluate"], layout } as const;
      const plan = makePlan(buildModelGraph(options).graph, genericCapabilities);
      return plan.bytes.parameter + plan.bytes.activation;
    });
    assert.ok(bytes[1] <= 0.6 * bytes[0], `${bytes}`);
  }
});

Deno.test("a plan tells the bytes of weights and activations by precision, whichever is planned for", async () => {
  const gpus = { ranks: 2, flopsPerSecond: 1e13 };
  for (const precision of ["f32", "bf16"] as const) {
    const { stored, pick, settings } = await planTraining({ precision, layers: 2, width: 64, dp: 2 }, {
      gpus,
      vocabularySize: 256,
    });
    assert.deepEqual(stored.map(({ precision }) => precision), ["f32", "bf16"]);
    const own = stored.find(({ precision }) => precision === settings.precision)!;
    assert.equal(own.bytes, pick!.bytes.parameter + pick!.bytes.activation);
    assert.ok(stored[1].bytes <= 0.6 * stored[0].bytes);
  }
});

Deno.test("f16 is refused in one sentence where the device does not offer it; bf16 needs nothing", () =>
  withDevice(async (device) => {
    await assert.rejects(losses(device, "gpt2", "f16", 1), (error: Error) => {
      assert.ok(error instanceof UserError);
      assert.match(error.message, /^.* does not offer f16 \(shader-f16\): use --precision bf16, which every GPU can$/);
      return true;
    });
    assert.equal((await losses(device, "gpt2", "bf16", 1)).losses.length, 1);
    const odd = modelConfiguration({ ...shape, family: "llama", width: 24 });
    const options = {
      configuration: odd,
      batch,
      sequenceLength,
      segments: ["train"],
      layout: soleRank(odd, "bf16"),
    } as const;
    await assert.rejects(
      ModelProgram.create(device, options),
      /^UserError: --precision bf16 rotates .* heads have a multiple of 4$/,
    );
  }, { shaderF16: false }));

Deno.test("a step whose gradients overflow f16 changes nothing but the scale, and the next one is whole", () =>
  withDevice(async (device) => {
    const layout = soleRank(families.gpt2, "f16");
    const options = { configuration: families.gpt2, batch, sequenceLength, segments: ["train"], layout } as const;
    const model = await ModelProgram.create(device, options);
    model.initialize(7);
    const weights = async () => (await model.save()).map(({ data }) => data);
    const before = await weights();
    const norms: number[] = [];
    for (const scale of [2 ** 24, 2 ** 10]) {
      model.lossScale = scale;
      model.beginStep(count);
      await model.train(tokens, targets);
      await model.update({ ...adam, step: 1 });
      norms.push(await model.gradientNorm());
      if (scale === 2 ** 24) assert.deepEqual(await weights(), before);
    }
    assert.ok(!Number.isFinite(norms[0]));
    const { norms: [norm] } = await losses(device, "gpt2", "f32", 1);
    assert.ok(Math.abs(norms[1] / norm - 1) < 0.01, `${norms[1]} instead of ${norm}`);
    assert.notDeepEqual(await weights(), before);
    model.destroy();
  }, needsNoFeature));
