import assert from "node:assert/strict";
import { UserError } from "../../errors.ts";
import { learningRateAt } from "../../train/learning_rate.ts";
import { completeSettings, flagName, parseSettings, readSettingsFile, settingNames } from "../../train/settings.ts";

Deno.test("parseSettings() checks kinds and ranges and names the flag", () => {
  assert.deepEqual(parseSettings({ learningRate: "1e-3", steps: "7", json: true }, "flags"), {
    learningRate: 1e-3,
    steps: 7,
    json: true,
  });
  const cases: [Record<string, unknown>, RegExp][] = [
    [{ steps: "1.5" }, /--steps is "1.5", but must be a whole number, at least 1/],
    [{ steps: "0" }, /at least 1/],
    [{ learningRate: "0" }, /above 0/],
    [{ learningRate: "fast" }, /--learning-rate is "fast"/],
    [{ learningRate: "" }, /--learning-rate/],
    [{ beta1: "1" }, /below 1/],
    [{ lrSchedule: "cosinus" }, /one of constant, linear, cosine, wsd/],
    [{ dropout: "-0.1" }, /at least 0/],
    [{ seed: String(2 ** 33) }, /--seed/],
  ];
  for (const [given, message] of cases) {
    assert.throws(
      () => parseSettings(given, "flags"),
      (error: Error) => error instanceof UserError && message.test(error.message),
    );
  }
});

Deno.test("readSettingsFile() reads TOML and JSON in either spelling and suggests for unknown keys", async () => {
  const folder = Deno.makeTempDirSync();
  try {
    Deno.writeTextFileSync(`${folder}/a.toml`, 'learning-rate = 0.002\nlayers = 3\nfamily = "llama"\n');
    assert.deepEqual(await readSettingsFile(`${folder}/a.toml`), { learningRate: 0.002, layers: 3, family: "llama" });
    Deno.writeTextFileSync(`${folder}/a.json`, '{"learningRate":0.002,"weight_decay":0}');
    assert.deepEqual(await readSettingsFile(`${folder}/a.json`), { learningRate: 0.002, weightDecay: 0 });
    Deno.writeTextFileSync(`${folder}/b.toml`, "learning-rat = 1\n");
    await assert.rejects(
      readSettingsFile(`${folder}/b.toml`),
      /unknown setting learning-rat; did you mean learning-rate/,
    );
    Deno.writeTextFileSync(`${folder}/c.toml`, "a = = 1\n");
    await assert.rejects(readSettingsFile(`${folder}/c.toml`), UserError);
    await assert.rejects(readSettingsFile(`${folder}/none.toml`), UserError);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("completeSettings() prefers what comes first and derives what depends on others", () => {
  const settings = completeSettings({ steps: 100 }, { steps: 7, layers: 9 });
  assert.equal(settings.steps, 100);
  assert.equal(settings.layers, 9);
  assert.equal(settings.warmupSteps, 5);
  assert.equal(settings.minLearningRate, settings.learningRate / 10);
  assert.throws(() => completeSettings({ steps: 10, warmupSteps: 11 }), UserError);
  assert.throws(() => completeSettings({ learningRate: 1e-4, minLearningRate: 1e-3 }), UserError);
  assert.equal(settingNames.length, Object.keys(settings).length);
  assert.equal(flagName("minLearningRate"), "min-learning-rate");
});

Deno.test("learningRateAt() follows the closed forms", () => {
  const base = { learningRate: 1, minLearningRate: 0.1, warmupSteps: 10, steps: 110 };
  const at = (lrSchedule: "constant" | "linear" | "cosine" | "wsd", step: number) =>
    learningRateAt(step, { ...base, lrSchedule });
  for (const schedule of ["constant", "linear", "cosine", "wsd"] as const) {
    assert.equal(at(schedule, 1), 0.1);
    assert.equal(at(schedule, 10), 1);
  }
  assert.equal(at("constant", 110), 1);
  assert.ok(Math.abs(at("linear", 60) - 0.55) < 1e-12);
  assert.ok(Math.abs(at("cosine", 60) - 0.55) < 1e-12);
  assert.ok(Math.abs(at("cosine", 35) - (0.1 + 0.9 * (1 + Math.SQRT1_2) / 2)) < 1e-12);
  assert.equal(at("wsd", 90), 1);
  assert.ok(Math.abs(at("wsd", 100) - 0.55) < 1e-12);
  for (const schedule of ["linear", "cosine", "wsd"] as const) assert.ok(Math.abs(at(schedule, 110) - 0.1) < 1e-12);
  assert.equal(learningRateAt(1, { ...base, warmupSteps: 0, lrSchedule: "constant" }), 1);
});
