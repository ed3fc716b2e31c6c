/** Generation is the same on every mesh, and for several prompts at once as for one after another. */

import assert from "node:assert/strict";
import { openSafetensors, writeSafetensors } from "../../data/safetensors.ts";
import { byteTokenizer } from "../../data/tokenizer.ts";
import { UserError } from "../../errors.ts";
import { fromHuggingFace } from "../../model/configuration.ts";
import { generateAll } from "../../train/generate.ts";
import { generateTokens } from "../../train/generate_tokens.ts";
import type { GenerationMesh, TokenRequest } from "../../train/generation_job.ts";
import { modelFolder } from "../fixtures.ts";

const read = (name: string, file: string) => JSON.parse(Deno.readTextFileSync(new URL(file, modelFolder(name))));

function onOneDevice(pp: number, tp: number): GenerationMesh {
  return { pp, tp, devices: new Array(pp * tp).fill("0").join() };
}

/** The likeliest tokens behind prompts. */
async function greedy(name: string, mesh: GenerationMesh, prompts: number[][], tokens: number): Promise<number[][]> {
  const configuration = fromHuggingFace(read(name, "config.json"), name);
  const made: number[][] = prompts.map(() => []);
  const finished: number[] = [];
  const request: TokenRequest = {
    ...mesh,
    folder: modelFolder(name).pathname,
    configuration,
    prompts,
    tokens,
    endOfText: undefined,
    choices: configuration.vocabularySize,
    sampling: { temperature: 0, topK: 0, topP: 1 },
    seed: 1,
  };
  await generateTokens(request, {
    onToken(text, token, last) {
      made[text].push(token);
      if (last) finished.push(text);
    },
  });
  assert.deepEqual(finished.sort(), prompts.map((_, i) => i));
  return made;
}

// Fewer key/value heads than ranks, tied tables on two stages, an odd vocabulary that ranks share.
const meshes: [string, number, number][] = [
  ["gpt2_tiny", 1, 1],
  ["gpt2_tiny", 3, 1],
  ["gpt2_tiny", 2, 2],
  ["llama_tiny", 2, 1],
  ["llama_tiny", 1, 4],
  ["llama_tied_tiny", 1, 2],
  ["llama_tied_tiny", 2, 1],
  ["llama_tied_tiny", 2, 2],
];

Deno.test("every mesh writes PyTorch's likeliest tokens, for more prompts than fit at once as for one", async (t) => {
  const references = new Map<string, number[][]>();
  for (const [name, pp, tp] of meshes) {
    await t.step(`${name}: pp ${pp}, tp ${tp}`, async () => {
      const { prompt, tokens } = read(name, "manifest.json").greedy.start_weights;
      const prompts: number[][] = [prompt.slice(0, 4), prompt, prompt.slice(2), prompt.slice(0, 1), prompt];
      if (!references.has(name)) {
        const alone: number[][] = [];
        for (const own of prompts.slice(0, 4)) {
          alone.push((await greedy(name, onOneDevice(1, 1), [own], tokens.length))[0]);
        }
        references.set(name, [...alone, alone[1]]);
      }
      const found = await greedy(name, onOneDevice(pp, tp), prompts, tokens.length);
      assert.deepEqual(found[1], tokens);
      assert.deepEqual(found, references.get(name));
    });
  }
});

/** A checkpoint with a tokenizer, made of a fixture. */
async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = Deno.makeTempDirSync();
  for (const file of ["config.json", "model.safetensors"]) {
    Deno.copyFileSync(new URL(file, modelFolder("gpt2_tiny")), `${folder}/${file}`);
  }
  for (const [name, text] of Object.entries(byteTokenizer().files())) Deno.writeTextFileSync(`${folder}/${name}`, text);
  try {
    await body(folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

const prompts = ["the whale", "", "swam north", "for 7 days and 7 nights"];

Deno.test("generateAll() draws by seed and prompt, not by rank, also where the model's positions run out", () =>
  inFolder(async (checkpoint) => {
    const { maximumSequenceLength } = fromHuggingFace(read("gpt2_tiny", "config.json"), "");
    const written = async (mesh: GenerationMesh, seed: number, own = prompts) => {
      const pieces = own.map(() => "");
      const options = { checkpoint, prompts: own, tokens: maximumSequenceLength + 20, seed, ...mesh };
      const { texts, seconds } = await generateAll({ ...options, onText: (piece, i) => pieces[i] += piece });
      for (const [i, text] of texts.entries()) {
        assert.equal(text.text, pieces[i]);
        assert.equal(text.tokens, maximumSequenceLength + 20);
        assert.ok(text.finished);
        assert.ok(text.firstTokenMilliseconds! > 0 && text.firstTokenMilliseconds! <= text.seconds * 1e3);
        assert.ok(text.seconds <= seconds);
      }
      return pieces;
    };
    const one = await written(onOneDevice(1, 1), 5);
    assert.deepEqual(await written(onOneDevice(2, 1), 5), one);
    assert.equal((await written(onOneDevice(3, 1), 5, prompts.slice(0, 1)))[0], one[0]);
    assert.notDeepEqual(await written(onOneDevice(1, 1), 6), one);
    const same = await written(onOneDevice(1, 1), 5, ["the whale", "the whale"]);
    assert.notEqual(same[0], same[1]);
  }));

Deno.test("generateAll() ends all ranks when asked, with what was written", () =>
  inFolder(async (checkpoint) => {
    const controller = new AbortController();
    let pieces = 0;
    let asked = 0;
    const { texts } = await generateAll({
      checkpoint,
      prompts,
      tokens: 1e6,
      ...onOneDevice(2, 1),
      signal: controller.signal,
      onText() {
        if (++pieces < 20) return;
        asked ||= performance.now();
        controller.abort();
      },
    });
    assert.ok(performance.now() - asked < 2000);
    assert.ok(texts[0].tokens > 0 && texts[0].text.length > 0);
    assert.deepEqual(texts.map(({ finished }) => finished), [false, false, false, false]);
    assert.deepEqual([texts[3].tokens, texts[3].firstTokenMilliseconds], [0, undefined]);
  }));

Deno.test("generateAll() ends with the message of the rank that failed, without waiting for the others", () =>
  inFolder(async (checkpoint) => {
    // Only the second of two stages misses it.
    const reader = openSafetensors(`${checkpoint}/model.safetensors`);
    const tensors = [...reader.tensors].filter(([name]) => name !== "transformer.ln_f.weight").map(
      ([name, { shape }]) => {
        const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
        reader.readInto(name, data);
        return { name, shape, data };
      },
    );
    reader.close();
    await writeSafetensors(`${checkpoint}/model.safetensors`, tensors);
    const start = performance.now();
    await assert.rejects(
      generateAll({ checkpoint, prompts, tokens: 5, ...onOneDevice(2, 2) }),
      /^UserError: The checkpoint has no tensor transformer\.ln_f\.weight/,
    );
    assert.ok(performance.now() - start < 15_000);
  }));

Deno.test("generateAll() refuses meshes that do not fit the model or the GPUs", () =>
  inFolder(async (checkpoint) => {
    const cases: [GenerationMesh, RegExp][] = [
      [onOneDevice(4, 1), /^4 pipeline stages need as many blocks, but the model has 3$/],
      [onOneDevice(1, 3), /^--tp 3 does not divide the model's 4 heads/],
      [{ pp: 2, devices: "0,0,0" }, /^--pp 2 --tp 1 makes 2 ranks, but --devices 0,0,0 names 3 GPUs$/],
      [{ devices: "0,0" }, /^--pp 1 --tp 1 makes 1 rank, but --devices 0,0 names 2 GPUs$/],
      [{ pp: 3, tp: 4 }, /^--pp 3 --tp 4 needs 12 GPUs, but there .*name one several times, --devices 0,0,0,0,/],
    ];
    for (const [mesh, message] of cases) {
      await assert.rejects(generateAll({ checkpoint, prompts, tokens: 5, ...mesh }), (error: Error) => {
        assert.ok(error instanceof UserError, String(error));
        assert.match(error.message, message);
        return true;
      });
    }
    const nothing = await generateAll({ checkpoint, prompts: [], tokens: 5 });
    assert.deepEqual(nothing, { texts: [], seconds: 0 });
  }));
