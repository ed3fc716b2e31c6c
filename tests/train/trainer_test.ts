import assert from "node:assert/strict";
import { openSafetensors, writeSafetensors } from "../../data/safetensors.ts";
import { prepare } from "../../data/prepare.ts";
import { MachineError, UserError } from "../../errors.ts";
import type { TrainEvent } from "../../train/events.ts";
import { evaluate } from "../../train/evaluate.ts";
import { generate } from "../../train/generate.ts";
import { sampleToken } from "../../train/sampling.ts";
import type { GivenSettings } from "../../train/settings.ts";
import { train } from "../../train/trainer.ts";
import { withFolder } from "../folder.ts";

const text = Array.from(
  { length: 400 },
  (_, i) => `${i}. the whale swam ${["north", "south", "east"][i % 3]} for ${i % 7} days\n`,
).join("");

function inFolder(body: (folder: string, small: GivenSettings) => Promise<void>): Promise<void> {
  return withFolder({ "text.txt": text }, (folder) =>
    body(folder, {
      data: `${folder}/text.txt`,
      family: "gpt2",
      layers: 1,
      heads: 2,
      width: 32,
      sequenceLength: 16,
      batchSize: 4,
      steps: 6,
      evalInterval: 3,
      evalBatches: 2,
      lrSchedule: "constant",
      warmupSteps: 0,
    }));
}

async function collect(settings: GivenSettings, signal?: AbortSignal) {
  const events: TrainEvent[] = [];
  const result = await train(settings, { onEvent: (event) => events.push(event), ...(signal ? { signal } : {}) });
  const losses = events.flatMap((event) => event.event === "step" ? [event.loss] : []);
  return { result, events, losses };
}

Deno.test("train() learns, tells its events in order and leaves a whole run folder", () =>
  inFolder(async (folder, small) => {
    const { result, events, losses } = await collect({
      ...small,
      steps: 30,
      family: "llama",
      kvHeads: 1,
      out: `${folder}/run`,
    });
    assert.equal(losses.length, 30);
    assert.ok(losses[29] < losses[0] - 0.5, `${losses[0]} → ${losses[29]}`);
    const kinds = events.map(({ event }) => event).filter((kind) => kind !== "message");
    assert.deepEqual(kinds.slice(0, 2), ["start", "compile"]);
    assert.deepEqual(kinds.slice(-3), ["evaluation", "checkpoint", "done"]);
    assert.equal(result.step, 30);
    assert.ok(result.validationLoss < losses[0]);
    const lines = Deno.readTextFileSync(`${folder}/run/metrics.jsonl`).trim().split("\n").map((line) =>
      JSON.parse(line).event
    );
    assert.deepEqual(lines, kinds);
    const settings = JSON.parse(Deno.readTextFileSync(`${folder}/run/settings.json`));
    assert.deepEqual([settings.family, settings.kvHeads, settings.warmupSteps], ["llama", 1, 0]);
    const start = events.find((event) => event.event === "start")!;
    assert.deepEqual(start.event === "start" && JSON.parse(JSON.stringify(start.config)), settings);

    const found = await evaluate({ checkpoint: `${folder}/run`, data: small.data! });
    assert.ok(Math.abs(found.loss - result.validationLoss) < 0.3);
    assert.ok(Math.abs(found.bitsPerByte - found.loss / Math.LN2) < 1e-6);
    const written = async (seed: number, temperature: number) =>
      (await generate({ checkpoint: `${folder}/run`, prompt: "the whale", tokens: 40, seed, temperature })).text;
    assert.equal(await written(1, 0), await written(2, 0));
    assert.equal(await written(1, 1), await written(1, 1));
    assert.notEqual(await written(1, 1), await written(2, 1));
  }));

Deno.test("a resumed run equals an uninterrupted one bit for bit, dropout and micro-batches included", () =>
  inFolder(async (folder, small) => {
    const settings = { ...small, dropout: 0.1, microBatchSize: 2 };
    const whole = await collect({ ...settings, steps: 9, out: `${folder}/whole` });
    const first = await collect({ ...settings, steps: 4, out: `${folder}/parts` });
    const rest = await collect({ resume: `${folder}/parts`, steps: 9 });
    assert.deepEqual([...first.losses, ...rest.losses], whole.losses);
    for (const file of ["model.safetensors", "optimizer.safetensors"]) {
      const [a, b] = [whole, rest].map(({ result }) => Deno.readFileSync(`${result.checkpoint}/${file}`));
      assert.deepEqual(a, b);
    }
    const steps = Deno.readTextFileSync(`${folder}/parts/metrics.jsonl`).trim().split("\n").map((line) =>
      JSON.parse(line)
    )
      .flatMap((event) => event.event === "step" ? [event.step] : []);
    assert.deepEqual(steps, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
  }));

Deno.test("micro-batches change the losses by rounding only", () =>
  inFolder(async (folder, small) => {
    const whole = await collect({ ...small, out: `${folder}/a` });
    // The last one of 3 is smaller.
    for (const microBatchSize of [1, 3]) {
      const parts = await collect({ ...small, microBatchSize, out: `${folder}/${microBatchSize}` });
      whole.losses.forEach((loss, i) => assert.ok(Math.abs(loss - parts.losses[i]) / loss < 1e-4));
    }
  }));

Deno.test("train() stops in good order when asked, and can be resumed", () =>
  inFolder(async (folder, small) => {
    const controller = new AbortController();
    const events: TrainEvent[] = [];
    const result = await train({ ...small, steps: 100000, out: `${folder}/run` }, {
      signal: controller.signal,
      onEvent: (event) => {
        events.push(event);
        if (event.event === "step" && event.step === 3) controller.abort();
      },
    });
    assert.equal(result.stopped, true);
    assert.ok(result.step >= 3 && result.step < 100000);
    assert.match(result.checkpoint, /step-\d+$/);
    const { losses } = await collect({ resume: `${folder}/run`, steps: result.step + 1 });
    assert.equal(losses.length, 1);
  }));

/** A model whose weights are those of a checkpoint, changed. */
async function changedModel(checkpoint: string, folder: string, change: (name: string, data: Float32Array) => void) {
  const reader = openSafetensors(`${checkpoint}/model.safetensors`);
  const tensors = [...reader.tensors.values()].map(({ name, shape }) => {
    const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
    reader.readInto(name, data);
    change(name, data);
    return { name, shape, data };
  });
  reader.close();
  Deno.mkdirSync(folder);
  await writeSafetensors(`${folder}/model.safetensors`, tensors);
  for (const name of ["config.json", "tokenizer.json"]) Deno.copyFileSync(`${checkpoint}/${name}`, `${folder}/${name}`);
  return folder;
}

Deno.test("a NaN stops the run with the step, the tensor where it appeared and the weights as they were", () =>
  inFolder(async (folder, small) => {
    const { result } = await collect({ ...small, steps: 1, out: `${folder}/start` });
    const init = await changedModel(result.checkpoint, `${folder}/wild`, (name, data) => {
      // The product of these two overflows; nothing before it does.
      if (/mlp\.c_(fc|proj)\.weight$/.test(name)) data.fill(1e30);
    });
    await assert.rejects(train({ ...small, init, out: `${folder}/run` }), (error: Error) => {
      assert.ok(error instanceof MachineError);
      assert.match(
        error.message,
        /stopped at step 1: .* first appeared in h0\.\S+.*, made by \w+, at element \d+.*no checkpoint was saved yet/s,
      );
      return true;
    });
  }));

Deno.test("of copies of the model the one tells where a NaN appeared that did not get it from another", () =>
  inFolder(async (folder, given) => {
    const data = `${folder}/rare.txt`;
    const line = (i: number) => `the whale ${i % 10 === 3 ? "z" : "s"}wam north. `;
    Deno.writeTextFileSync(data, Array.from({ length: 200 }, (_, i) => line(i)).join(""));
    const small: GivenSettings = { ...given, data, family: "llama", batchSize: 2, learningRate: 1e-30 };
    const { result } = await collect({ ...small, steps: 1, out: `${folder}/start` });
    // The first coordinate says that a token is a z; where it is, the product of gate and up overflows.
    const width = small.width!;
    const init = await changedModel(result.checkpoint, `${folder}/wild`, (name, data) => {
      const setColumn = (value: number) => data.forEach((_, i) => i % width === 0 && (data[i] = value));
      if (name.endsWith("embed_tokens.weight")) {
        setColumn(0);
        data[width * "z".charCodeAt(0)] = 1;
      }
      if (name.endsWith("o_proj.weight")) data.fill(0, 0, width);
      // No gradient comes here otherwise.
      if (name.endsWith("down_proj.weight")) data.fill(0);
      if (/(gate|up)_proj\.weight$/.test(name)) setColumn(1e20);
    });
    for (const zero of ["0", "2"] as const) {
      const run: GivenSettings = { ...small, init, zero, dp: 2, devices: "0,0", steps: 200, out: `${folder}/${zero}` };
      await assert.rejects(train(run), /; on rank \d it first appeared in .*, made by swiglu,/);
    }
  }));

Deno.test("train() refuses what does not fit together, in one sentence", () =>
  inFolder(async (folder, small) => {
    const { result } = await collect({ ...small, steps: 1, out: `${folder}/run` });
    Deno.writeTextFileSync(`${folder}/file`, "");
    Deno.writeTextFileSync(`${folder}/other.txt`, text.toUpperCase());
    Deno.writeTextFileSync(`${folder}/short.txt`, "too short");
    await prepare({ inputs: [small.data!], output: `${folder}/prepared` });
    const cases: [GivenSettings, RegExp][] = [
      [{ ...small, heads: 3 }, /3 heads do not divide a width of 32/],
      [{ ...small, family: "llama", heads: 4, kvHeads: 3 }, /key\/value heads do not divide/],
      [{ ...small, kvHeads: 1 }, /--family llama/],
      [{ ...small, devices: "0,0", dp: 1, pp: 2, microBatches: 3 }, /--micro-batches 3 does not divide --batch-size 4/],
      [{ ...small, data: `${folder}/short.txt` }, /too few for a sequence/],
      [{ ...small, data: `${folder}/nothing` }, /There is no data/],
      [{ ...small, data: `${folder}/prepared`, tokenizer: "gpt2" }, /was prepared with the tokenizer byte, not gpt2/],
      [{ ...small, model: "gpt2-124m", sequenceLength: 1025 }, /longer than the model's 1024 positions/],
      [{ ...small, model: "gpt5" }, /There is no model gpt5: choose one of gpt2-124m/],
      [{ ...small, out: `${folder}/file/run` }, /Cannot write the output folder.*--out/],
      [{ ...small, devices: "7" }, /--devices 7/],
      [{ resume: `${folder}/run`, steps: 1 }, /at step 1 already/],
      [{ resume: `${folder}/run`, steps: 5, width: 64 }, /has width 32, not 64/],
      [{ resume: `${folder}/run`, steps: 5, family: "llama" }, /has family gpt2, not llama/],
      [{ data: small.data!, init: `${folder}/run`, model: "gpt2-124m" }, /has layers 1, not 12/],
      [{ resume: `${folder}/run`, steps: 5, data: `${folder}/other.txt` }, /not those that .* was trained on/],
      [{ resume: `${folder}/run`, steps: 5, sequenceLength: 17 }, /longer than the model's 16 positions/],
      [{ resume: `${folder}/nowhere` }, /There is no folder/],
      [{ ...small, init: result.checkpoint, tokenizer: "gpt2" }, /50257 token ids.*knows 256/],
    ];
    for (const [settings, message] of cases) {
      await assert.rejects(train({ out: `${folder}/x`, ...settings }), (error: Error) => {
        assert.ok(
          error instanceof UserError && message.test(error.message),
          `${error.name}: ${error.message} for ${message}`,
        );
        return true;
      });
    }
    assert.throws(() => Deno.statSync(`${folder}/x`), Deno.errors.NotFound);
  }));

Deno.test("train() from other weights takes their tokenizer, unless one is named", () =>
  inFolder(async (folder, small) => {
    await prepare({ inputs: [small.data!], output: `${folder}/tokens`, trainVocabulary: 300 });
    const first = await collect({ ...small, data: `${folder}/tokens`, steps: 1, out: `${folder}/a` });
    const { result, events } = await collect({ data: small.data!, init: `${folder}/a`, steps: 1, out: `${folder}/b` });
    const start = events.find((event) => event.event === "start")!;
    assert.equal(start.event === "start" && start.vocabularySize, 300);
    const file = (folder: string) => Deno.readTextFileSync(`${folder}/tokenizer.json`);
    assert.equal(file(result.checkpoint), file(first.result.checkpoint));
  }));

Deno.test("generate() goes on beyond the model's positions", () =>
  inFolder(async (folder, small) => {
    const { result } = await collect({ ...small, steps: 2, out: `${folder}/run` });
    const made = await generate({ checkpoint: result.run, prompt: "a".repeat(20), tokens: 50, temperature: 0.9 });
    assert.equal(made.tokens, 50);
  }));

Deno.test("sampleToken() honours temperature, top-k and top-p", () => {
  const logits = Float32Array.of(1, 3, 2, -5);
  const all = { temperature: 1, topK: 0, topP: 1 };
  assert.equal(sampleToken(logits, { ...all, temperature: 0 }, 0.99), 1);
  const drawn = (options: typeof all) =>
    new Set(Array.from({ length: 1000 }, (_, i) => sampleToken(logits, options, i / 1000)));
  assert.deepEqual([...drawn(all)].sort(), [0, 1, 2, 3].slice(0, drawn(all).size));
  assert.deepEqual([...drawn({ ...all, topK: 2 })].sort(), [1, 2]);
  assert.deepEqual([...drawn({ ...all, topP: 0.5 })], [1]);
  const share =
    Array.from({ length: 10000 }, (_, i) => sampleToken(logits, all, i / 10000)).filter((id) => id === 1).length /
    10000;
  const expected = Math.exp(3) / (Math.exp(1) + Math.exp(3) + Math.exp(2) + Math.exp(-5));
  assert.ok(Math.abs(share - expected) < 1e-3);
});
