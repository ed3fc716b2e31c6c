/** Prompts that go through in blocks give what they give token by token. */

import assert from "node:assert/strict";
import { openSafetensors } from "../../data/safetensors.ts";
import type { Device } from "../../gpu/device.ts";
import { fromHuggingFace, type ModelConfiguration } from "../../model/configuration.ts";
import { paddedVocabulary } from "../../model/parameters.ts";
import { computeLogits, takeTokens } from "../../train/decode.ts";
import { generateTokens } from "../../train/generate_tokens.ts";
import { ModelProgram } from "../../train/model_program.ts";
import { blockRowsOf, turnsOf } from "../../train/turns.ts";
import { modelFolder } from "../fixtures.ts";
import { scaledMax, withDevice } from "../kernels/harness.ts";

function configurationOf(name: string): ModelConfiguration {
  return fromHuggingFace(JSON.parse(Deno.readTextFileSync(new URL("config.json", modelFolder(name)))), name);
}

const text = (length: number, { vocabularySize }: ModelConfiguration) =>
  Array.from({ length }, (_, i) => (i * i * 31 + 7 * i + length) % vocabularySize);

/** The likeliest tokens behind `prompt`, and the logits of each choice; token by token, or in the blocks that turns ask for. */
async function write(model: ModelProgram, prompt: number[], tokens: number, blocks: boolean) {
  const { vocabularySize, maximumSequenceLength: positions } = model.model.options.configuration;
  const logits: Float32Array[] = [];
  const made: number[] = [];
  for (const turn of turnsOf([prompt], { slots: 1, tokens, positions, endOfText: undefined }, () => made.at(-1)!)) {
    let last = turn;
    if (blocks || turn.rows === 1) await takeTokens(model, turn);
    else {
      for (let i = 0; i < turn.tokens.length; i++) {
        last = { ...turn, tokens: turn.tokens.subarray(i, i + 1), rows: 1, position: turn.position + i };
        await takeTokens(model, last);
      }
    }
    if (!turn.chooses) continue;
    const all = new Float32Array(paddedVocabulary(model.model.options.configuration));
    await computeLogits(model, last, all);
    const real = all.subarray(0, vocabularySize);
    logits.push(real);
    made.push(real.indexOf(real.reduce((a, b) => Math.max(a, b))));
  }
  return { made, logits };
}

/** A model of a fixture. */
async function withModel(device: Device, name: string, body: (model: ModelProgram) => Promise<void>): Promise<void> {
  const configuration = configurationOf(name);
  const model = await ModelProgram.create(device, {
    configuration,
    batch: 1,
    sequenceLength: 1,
    segments: ["decode"],
    blockRows: blockRowsOf([text(1000, configuration), text(16, configuration)], { tokens: 1, positions: 64 }),
  });
  const reader = openSafetensors(new URL("model.safetensors", modelFolder(name)).pathname);
  model.load(reader);
  reader.close();
  await body(model);
  model.destroy();
}

// Both ends of a block, a block with a rest, all positions, and more than these: then half is read anew.
const lengths = [1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 150];
const tokens = 4;

/** What the lengths' prompts get token by token, checked against blocks. */
async function expectedOf(name: string): Promise<number[][]> {
  const made: number[][] = [];
  await withDevice((device) =>
    withModel(device, name, async (model) => {
      for (const length of lengths) {
        const prompt = text(length, configurationOf(name));
        const expected = await write(model, prompt, tokens, false);
        const found = await write(model, prompt, tokens, true);
        // Sums are made in another order.
        found.logits.forEach((logits, i) => {
          const error = scaledMax(logits, expected.logits[i]);
          assert.ok(error < 1e-5, `${length} tokens and ${i}: ${error}`);
        });
        assert.deepEqual(found.made, expected.made);
        made.push(expected.made);
      }
    })
  );
  return made;
}

/** What a mesh makes of all prompts at once. */
async function onMesh(name: string, pp: number, tp: number): Promise<number[][]> {
  const configuration = configurationOf(name);
  const made: number[][] = lengths.map(() => []);
  const begun: number[] = [];
  const first: number[] = [];
  await generateTokens({
    pp,
    tp,
    devices: new Array(pp * tp).fill("0").join(),
    folder: modelFolder(name).pathname,
    configuration,
    prompts: lengths.map((length) => text(length, configuration)),
    tokens,
    endOfText: undefined,
    choices: configuration.vocabularySize,
    sampling: { temperature: 0, topK: 0, topP: 1 },
    seed: 1,
  }, {
    onBegin: (text, at) => begun[text] = at,
    onToken(text, token, _, at) {
      made[text].push(token);
      first[text] ??= at;
    },
  });
  assert.ok(lengths.every((_, i) => begun[i] < first[i]), "the clocks of ranks agree");
  return made;
}

const meshes: Record<string, [number, number][]> = {
  gpt2_tiny: [[1, 1], [2, 1], [1, 2]],
  llama_tied_tiny: [[2, 2]],
};

for (const [name, own] of Object.entries(meshes)) {
  Deno.test(`${name}: prompts in blocks give what prompts token by token give, on every mesh`, async (t) => {
    const expected = await expectedOf(name);
    for (const [pp, tp] of own) {
      await t.step(`pp ${pp}, tp ${tp}`, async () => assert.deepEqual(await onMesh(name, pp, tp), expected));
    }
  });
}
