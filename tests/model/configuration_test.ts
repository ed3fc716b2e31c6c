import assert from "node:assert/strict";
import { UserError } from "../../errors.ts";
import {
  fromHuggingFace,
  modelConfiguration,
  parameterCount,
  presets,
  toHuggingFace,
} from "../../model/configuration.ts";

Deno.test("the presets have the numbers of parameters that their papers tell", () => {
  const count = (name: string) => parameterCount(modelConfiguration(presets[name]));
  assert.equal(count("gpt2-124m"), 124_439_808);
  assert.equal(count("gpt2-355m"), 354_823_168);
  assert.equal(count("gpt2-774m"), 774_030_080);
  assert.equal(count("gpt2-1558m"), 1_557_611_200);
  assert.equal(count("tinyllama-1.1b"), 1_100_048_384);
});

Deno.test("toHuggingFace() and fromHuggingFace() are each other's inverse for every preset", () => {
  for (const preset of Object.values(presets)) {
    const made = modelConfiguration(preset);
    assert.deepEqual(fromHuggingFace(JSON.parse(JSON.stringify(toHuggingFace(made))), "config.json"), made);
  }
});

Deno.test("modelConfiguration() refuses sizes that do not fit each other", () => {
  const cases: [Parameters<typeof modelConfiguration>[0], RegExp][] = [
    [{ width: 30, heads: 4 }, /4 heads do not divide a width of 30/],
    [{ family: "llama", heads: 6, width: 96, keyValueHeads: 4 }, /4 key\/value heads do not divide 6 heads/],
    [{ family: "gpt2", keyValueHeads: 2 }, /GPT-2 has as many key\/value heads/],
    [{ family: "llama", heads: 4, width: 20 }, /even head size/],
    [{ heads: 1, width: 512 }, /head size of 512 is above 256/],
    [{ layers: 0 }, /layers is 0/],
    [{ vocabularySize: 2.5 }, /vocabularySize is 2\.5/],
  ];
  for (const [options, message] of cases) {
    assert.throws(() => modelConfiguration(options), (e: Error) => e instanceof UserError && message.test(e.message));
  }
});

Deno.test("fromHuggingFace() refuses by name what it cannot compute exactly", () => {
  const gpt2 = toHuggingFace(modelConfiguration({ family: "gpt2" }));
  const llama = toHuggingFace(modelConfiguration({ family: "llama" }));
  const cases: [unknown, RegExp][] = [
    [[], /no JSON object/],
    [{ model_type: "bert" }, /model_type is "bert"/],
    [{ ...gpt2, activation_function: "relu" }, /activation_function is "relu"/],
    [{ ...gpt2, n_layer: "twelve" }, /n_layer is "twelve"/],
    [{ ...gpt2, scale_attn_by_inverse_layer_idx: true }, /scale_attn_by_inverse_layer_idx/],
    [{ ...llama, attention_bias: true }, /attention_bias is true/],
    [{ ...llama, rope_scaling: { rope_type: "llama3", factor: 8 } }, /rope_scaling: rope_type is "llama3"/],
  ];
  for (const [config, message] of cases) {
    assert.throws(
      () => fromHuggingFace(config, "c.json"),
      (e: Error) => e instanceof UserError && message.test(e.message),
    );
  }
  const newer = { ...llama, rope_theta: undefined, rope_parameters: { rope_type: "default", rope_theta: 5e5 } };
  assert.equal(fromHuggingFace(newer, "c.json").ropeTheta, 5e5);
});
