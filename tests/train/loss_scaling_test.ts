import assert from "node:assert/strict";
import { openSafetensors, writeSafetensors } from "../../data/safetensors.ts";
import { UserError } from "../../errors.ts";
import type { TrainEvent } from "../../train/events.ts";
import { fixedScale, LossScaler, scalingName } from "../../train/loss_scaling.ts";
import { completeSettings, type GivenSettings } from "../../train/settings.ts";
import { train } from "../../train/trainer.ts";
import { withFolder } from "../folder.ts";
import { withDevice } from "../kernels/harness.ts";

const text = Array.from({ length: 400 }, (_, i) => `${i}. the whale swam ${i % 7} days\n`).join("");

const small: GivenSettings = {
  family: "gpt2",
  layers: 1,
  heads: 2,
  width: 32,
  sequenceLength: 16,
  evalInterval: 0,
  evalBatches: 1,
  lrSchedule: "constant",
  warmupSteps: 0,
};

async function trainIt(settings: GivenSettings) {
  const events: TrainEvent[] = [];
  const { checkpoint } = await train(settings, { onEvent: (event) => events.push(event) });
  const steps = events.flatMap((event) => event.event === "step" ? [event] : []);
  return { checkpoint, steps, losses: steps.map(({ loss }) => loss) };
}

function scalingOf(checkpoint: string): number[] {
  const optimizer = openSafetensors(`${checkpoint}/optimizer.safetensors`);
  const state = new Float32Array(3);
  optimizer.readInto(scalingName, state);
  optimizer.close();
  return [...state];
}

/** A copy of a checkpoint with another state of the scaler. */
async function withScaling(checkpoint: string, folder: string, scaling: readonly number[]): Promise<string> {
  Deno.mkdirSync(folder);
  for (const { name } of Deno.readDirSync(checkpoint)) Deno.copyFileSync(`${checkpoint}/${name}`, `${folder}/${name}`);
  const file = `${folder}/optimizer.safetensors`;
  const optimizer = openSafetensors(file);
  const tensors = [...optimizer.tensors.values()].map(({ name, shape }) => {
    const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
    optimizer.readInto(name, data);
    if (name === scalingName) data.set(scaling);
    return { name, shape, data };
  });
  optimizer.close();
  const hash = await writeSafetensors(file, tensors);
  const trainer = JSON.parse(Deno.readTextFileSync(`${folder}/trainer.json`));
  trainer.files["optimizer.safetensors"] = hash;
  Deno.writeTextFileSync(`${folder}/trainer.json`, JSON.stringify(trainer));
  return folder;
}

const offered = await withDevice(({ capabilities }) => Promise.resolve(capabilities.shaderF16));
const unless = offered ? "" : " (skipped: the device does not offer f16)";

Deno.test({
  name:
    `in half a resumed run equals an uninterrupted one bit for bit; an overflow is skipped, and any precision goes on from any${unless}`,
  ignore: !offered,
  fn: () =>
    withFolder({ "text.txt": text }, async (folder) => {
      const last: Record<string, string> = {};
      for (const precision of ["bf16", "f16"] as const) {
        const settings = { ...small, data: `${folder}/text.txt`, precision };
        const whole = await trainIt({ ...settings, steps: 6, out: `${folder}/${precision}` });
        const first = await trainIt({ ...settings, steps: 3, out: `${folder}/${precision} parts` });
        const rest = await trainIt({ resume: `${folder}/${precision} parts`, steps: 6 });
        assert.deepEqual([...first.losses, ...rest.losses], whole.losses);
        const [a, b] = [whole, rest].map(({ checkpoint }) => Deno.readFileSync(`${checkpoint}/model.safetensors`));
        assert.deepEqual(a, b);
        last[precision] = rest.checkpoint;
      }
      assert.deepEqual(scalingOf(last.f16), [65536, 6, 0]);

      const scaled = await withScaling(last.f16, `${folder}/scaled`, [2 ** 24, 1000, 3]);
      const { steps, checkpoint } = await trainIt({ resume: scaled, steps: 14, out: `${folder}/go on` });
      const skipped = steps.filter(({ gradNorm }) => !Number.isFinite(gradNorm)).length;
      assert.ok(skipped >= 1 && skipped <= 6, `${skipped} steps were skipped`);
      // Halved as often as a step was skipped, the last ones not.
      steps.forEach(({ lossScale, skipped: count }, i) => {
        assert.equal(lossScale, 2 ** (24 - Math.min(i, skipped)));
        assert.equal(count, 3 + Math.min(i + 1, skipped));
      });
      assert.ok(steps.every(({ loss }) => Number.isFinite(loss)));
      assert.deepEqual(scalingOf(checkpoint), [2 ** (24 - skipped), 8 - skipped, 3 + skipped]);

      const whole = await trainIt({ resume: last.f16, precision: "f32", steps: 8, out: `${folder}/f32` });
      assert.ok(whole.steps.every(({ lossScale }) => lossScale === undefined));
      const half = await trainIt({ resume: whole.checkpoint, precision: "bf16", steps: 10, out: `${folder}/half` });
      const losses = [...whole.losses, ...half.losses];
      assert.ok(losses.every((loss) => loss < steps[0].loss + 0.2), `${losses}`);
    }),
});

Deno.test("LossScaler doubles behind 2,000 good steps, halves at an overflow, and gives up behind 20 in a row", () => {
  const scaler = new LossScaler("dynamic");
  for (let i = 0; i < 2000; i++) scaler.good();
  assert.deepEqual(scaler.state, [131072, 0, 0]);
  scaler.good();
  assert.ok(scaler.overflowed());
  assert.deepEqual(scaler.state, [65536, 0, 1]);
  for (let i = 0; i < 1999; i++) scaler.good();
  assert.equal(scaler.scale, 65536);
  const tried = Array.from({ length: 20 }, () => scaler.overflowed());
  assert.deepEqual(tried, [...new Array(19).fill(true), false]);

  const fixed = new LossScaler("512", [65536, 7, 2]);
  fixed.overflowed();
  assert.deepEqual([fixed.scale, fixed.skipped], [512, 3]);
});

Deno.test("--loss-scale is a number or dynamic, and for f16 only", () => {
  assert.equal(fixedScale("1024"), 1024);
  for (const wrong of ["0", "-1", "much", "1e9"]) assert.throws(() => fixedScale(wrong), UserError);
  assert.throws(() => completeSettings({ lossScale: "1024" }), /--loss-scale is for --precision f16/);
  assert.equal(completeSettings({ lossScale: "1024", precision: "f16" }).lossScale, "1024");
  // Of a run that goes on in another precision.
  assert.equal(completeSettings({ precision: "bf16" }, { lossScale: "1024", precision: "f16" }).lossScale, "dynamic");
});
