/** Trains the models of the fixtures on a device and compares losses, activations, gradients and updates with PyTorch's. */

import { openSafetensors } from "../../data/safetensors.ts";
import type { Device } from "../../gpu/device.ts";
import { fromHuggingFace } from "../../model/configuration.ts";
import { paddedVocabulary } from "../../model/parameters.ts";
import { computeLogits, takeToken } from "../../train/decode.ts";
import { ModelProgram } from "../../train/model_program.ts";
import type { ModelGraphOptions } from "../../train/rank_layout.ts";
import { readReference, type Reference } from "../fixtures.ts";
import { scaledMax } from "../kernels/harness.ts";
import type { Comparison } from "./ops.ts";

// deno-lint-ignore no-explicit-any -- the manifest is the fixture's own form
type Manifest = any;

const relative = (a: number, b: number) => Math.abs(a - b) / Math.abs(b);

/** Rows of logits without the vocabulary's padding. */
function unpad(logits: Float32Array, padded: number, size: number): Float32Array {
  const rows = logits.length / padded;
  const result = new Float32Array(rows * size);
  for (let r = 0; r < rows; r++) result.set(logits.subarray(r * padded, r * padded + size), r * size);
  return result;
}

/** Compares everything that a model's folder holds. */
export async function compareModel(
  device: Device,
  folder: URL,
  options: Pick<ModelGraphOptions, "logitsBytes"> = {},
): Promise<Comparison[]> {
  const manifest: Manifest = JSON.parse(Deno.readTextFileSync(new URL("manifest.json", folder)));
  const { expected, training, f32_error: f32 } = manifest;
  const batch = readReference(new URL("batch.safetensors", folder));
  const grads = readReference(new URL("grads.safetensors", folder));
  const finals = readReference(new URL("final.safetensors", folder));
  const starts = readReference(new URL("model.safetensors", folder));
  const [steps, B, T] = batch.get("input_ids")!.shape;
  const N = B * T;
  const configuration = fromHuggingFace(
    JSON.parse(Deno.readTextFileSync(new URL("config.json", folder))),
    "config.json",
  );
  const found: Comparison[] = [];
  const check = (what: string, error: number, limit: number) =>
    found.push({ what: `${manifest.fixture} ${what}`, error, limit });

  const model = await ModelProgram.create(device, {
    configuration,
    batch: B,
    sequenceLength: T,
    segments: ["train", "evaluate", "decode"],
    observe: true,
    ...options,
  });
  const load = (path: string) => {
    const reader = openSafetensors(new URL(path, folder).pathname);
    model.load(reader);
    reader.close();
  };
  load("model.safetensors");
  const tokensOf = (step: number) => new Uint32Array(batch.get("input_ids")!.data.subarray(step * N, (step + 1) * N));
  const targetsOf = (step: number) => new Int32Array(batch.get("targets")!.data.subarray(step * N, (step + 1) * N));
  const limit = (error: number | undefined, least: number) => Math.max(4 * (error ?? 0), least);

  // Forward, as evaluated.
  const evaluate = async (targets: Int32Array) => {
    const count = targets.filter((t) => t >= 0).length;
    model.beginStep(count);
    await model.evaluate(tokensOf(0), targets);
    return await model.lossSum() / count;
  };
  check("loss", relative(await evaluate(targetsOf(0)), expected.loss), limit(f32.loss_rel, 2e-6));
  for (const [name, tensor] of model.model.observed) {
    const reference = batch.get(name) as Reference;
    const read = await model.program.read(tensor);
    const actual = name === "logits"
      ? unpad(read, paddedVocabulary(configuration), configuration.vocabularySize)
      : read;
    check(name, scaledMax(actual, reference.data), limit(f32.activation[name]?.scaled_max, 5e-6));
  }

  // One step's gradients, masked and not.
  const step = async (tokens: Uint32Array, targets: Int32Array) => {
    const count = targets.filter((t) => t >= 0).length;
    model.beginStep(count);
    await model.train(tokens, targets);
    return await model.lossSum() / count;
  };
  // Learning rate 0 without decay leaves the weights and moments' use aside: it measures the norm and zeroes gradients.
  const settings = {
    learningRate: training.lr,
    beta1: training.beta1,
    beta2: training.beta2,
    epsilon: training.eps,
    weightDecay: training.weight_decay,
    clip: training.clip,
  };
  const idle = { ...settings, learningRate: 0, beta1: 0, beta2: 0, step: 1 };
  const masked = batch.get("masked_targets")!.data as Int32Array;
  check(
    "masked_loss",
    relative(await step(tokensOf(0), masked), expected.masked_loss),
    limit(f32.masked_loss_rel, 2e-6),
  );
  await model.update(idle);
  check(
    "masked_grad_norm",
    relative(await model.gradientNorm(), expected.masked_grad_norm),
    limit(f32.masked_grad_norm_rel, 2e-6),
  );
  await step(tokensOf(0), targetsOf(0));
  for (const { name, data } of await model.save("gradient")) {
    check(`gradient of ${name}`, scaledMax(data, grads.get(name)!.data), limit(f32.grad[name]?.scaled_max, 5e-6));
  }
  await model.update(idle);

  // Training from the start; the idle updates left moments behind.
  for (const { optimizer, length } of model.model.banks) {
    for (const tensor of [optimizer!.firstMoment, optimizer!.secondMoment]) {
      model.program.write(tensor, new Float32Array(length));
    }
  }
  const greedy = async (name: string) => {
    const { prompt, tokens } = manifest.greedy[name];
    const logits = new Float32Array(paddedVocabulary(configuration));
    const sequence: number[] = [...prompt];
    for (let position = 0; sequence.length < prompt.length + tokens.length; position++) {
      await takeToken(model, { token: sequence[position], position });
      if (position + 1 < sequence.length) continue;
      await computeLogits(model, logits);
      const real = logits.subarray(0, configuration.vocabularySize);
      sequence.push(real.indexOf(real.reduce((a, b) => Math.max(a, b))));
    }
    const wrong = tokens.filter((token: number, i: number) => token !== sequence[prompt.length + i]).length;
    check(`greedy tokens, ${name}`, wrong, 0);
  };
  await greedy("start_weights");
  for (let i = 0; i < steps; i++) {
    check(`loss of step ${i}`, relative(await step(tokensOf(i), targetsOf(i)), expected.train_losses[i]), 1e-5);
    await model.update({ ...settings, step: i + 1 });
    const norm = await model.gradientNorm();
    check(`gradient norm of step ${i}`, relative(norm, expected.train_grad_norms[i]), 5e-5);
  }
  check("final_loss", relative(await evaluate(targetsOf(0)), expected.final_loss), 1e-5);
  let distance = 0;
  let length = 0;
  for (const { name, data } of await model.save("weights")) {
    const [from, to] = manifest.free_slices?.[name] ?? [0, 0];
    const [start, final] = [starts.get(name)!.data, finals.get(name)!.data];
    for (let i = 0; i < data.length; i++) {
      if (i >= from && i < to) continue;
      distance += (data[i] - final[i]) ** 2;
      length += (final[i] - start[i]) ** 2;
    }
  }
  check("all updates, relative L2", Math.sqrt(distance / length), 1e-3);
  await greedy("final_weights");
  model.destroy();
  return found;
}
