import assert from "node:assert/strict";
import { modelConfiguration, parameterCount, presets } from "../../model/configuration.ts";
import { modelFlopsPerToken, modelFlopsUtilization } from "../../model/flops.ts";

Deno.test("modelFlopsPerToken(): 6 N + 12 L H Q T, tables that are only looked up left out", () => {
  const gpt2 = modelConfiguration(presets["gpt2-124m"]);
  // As nanoGPT counts: all parameters but the positions' (123,653,376 of 124,439,808).
  assert.equal(parameterCount(gpt2), 124_439_808);
  assert.equal(modelFlopsPerToken(gpt2, 1024), 6 * 123_653_376 + 12 * 12 * 12 * 64 * 1024);
  const llama = modelConfiguration(presets["tinyllama-1.1b"]);
  const matrices = parameterCount(llama) - 32000 * 2048;
  assert.equal(modelFlopsPerToken(llama, 2048), 6 * matrices + 12 * 22 * 32 * 64 * 2048);
});

Deno.test("modelFlopsUtilization() is 1 where the devices do nothing but the model's FLOPs at their peak", () => {
  const configuration = modelConfiguration({ layers: 2, heads: 2, width: 64 });
  const flops = modelFlopsPerToken(configuration, 32) * 100;
  const step = { sequenceLength: 32, tokens: 100, milliseconds: 500 };
  assert.equal(modelFlopsUtilization(configuration, step, 2 * flops), 1);
  assert.equal(modelFlopsUtilization(configuration, { ...step, milliseconds: 1000 }, 4 * flops), 0.25);
});
