/** The loss made some rows at a time: the same numbers as at once, and no logits but theirs in memory. */

import assert from "node:assert/strict";
import { imageSize } from "../../gpu/bindings.ts";
import { genericCapabilities } from "../../gpu/capabilities.ts";
import type { Device } from "../../gpu/device.ts";
import type { CollectiveAttributes } from "../../graph/collective.ts";
import type { CollectiveExecutor } from "../../graph/executor.ts";
import type { Op } from "../../graph/graph.ts";
import { makePlan } from "../../graph/plan.ts";
import type { TensorMemory } from "../../graph/tensor_memory.ts";
import { elementCount, rowSize } from "../../graph/tensor.ts";
import { type ModelConfiguration, modelConfiguration } from "../../model/configuration.ts";
import { localSizes } from "../../model/part.ts";
import { buildModelGraph } from "../../train/model_graph.ts";
import { ModelProgram } from "../../train/model_program.ts";
import { type ModelGraphOptions, soleRank } from "../../train/rank_layout.ts";
import { scaledMax, withDevice } from "../kernels/harness.ts";

const rows = 10 * 64;
const size = { layers: 1, heads: 2, width: 64, vocabularySize: 500, maximumSequenceLength: 64, hiddenWidth: 128 };
const tied = modelConfiguration({ family: "gpt2", ...size });
const untied = modelConfiguration({ family: "llama", ...size, tied: false });
const tokens = Uint32Array.from({ length: rows }, (_, i) => (i * 37 + (i >> 3)) % 500);
const targets = Int32Array.from({ length: rows }, (_, i) => i % 9 === 0 ? -100 : (i * 11) % 500);
const count = targets.filter((target) => target >= 0).length;

type Options = Partial<ModelGraphOptions>;

function create(device: Device, configuration: ModelConfiguration, options: Options, executor?: CollectiveExecutor) {
  const segments = ["train", "evaluate"] as const;
  const given = { configuration, batch: 10, sequenceLength: 64, segments, ...options };
  return ModelProgram.create(device, given, executor);
}

/** Sums of losses, evaluated and of a step of two micro-batches, and the gradients. */
async function train(model: ModelProgram) {
  model.initialize(3);
  model.beginStep(count);
  await model.evaluate(tokens, targets);
  const evaluated = await model.lossSum();
  model.beginStep(2 * count);
  await model.train(tokens, targets, undefined, false);
  await model.train(tokens.toReversed(), targets.toReversed());
  const trained = await model.lossSum();
  const gradients = await model.save("gradient");
  model.destroy();
  return { evaluated, trained, gradients };
}

type Trained = Awaited<ReturnType<typeof train>>;

function assertEqual(found: Trained, expected: Trained): void {
  for (const kind of ["evaluated", "trained"] as const) {
    assert.ok(Math.abs(found[kind] / expected[kind] - 1) < 1e-6, `${kind}: ${found[kind]} for ${expected[kind]}`);
  }
  expected.gradients.forEach(({ name, data }, i) => {
    const error = scaledMax(found.gradients[i].data, data);
    // The key bias has gradient 0 but for rounding.
    if (!name.endsWith("c_attn.bias")) assert.ok(error < 1e-5, `${name}: ${error}`);
  });
}

for (const [name, configuration] of [["a tied head", tied], ["a head of its own", untied]] as const) {
  Deno.test(`the loss of 64 rows at a time is that of all at once, with ${name}`, () =>
    withDevice(async (device) => {
      const whole = await train(await create(device, configuration, {}));
      const model = await create(device, configuration, { logitsBytes: 1 });
      const { buffers, plan } = model.program;
      const images = plan.images
        .map(({ width, height }) => imageSize(width, height, false))
        .reduce((sum, [vectors, rows]) => sum + 16 * vectors * rows, 0);
      assert.equal(plan.totalBytes, buffers.reduce((sum, { size }) => sum + size, images));
      const first = await train(model);
      assertEqual(first, whole);
      const again = await train(await create(device, configuration, { logitsBytes: 1 }));
      assert.deepEqual(again, first);
      // 192 rows of hidden states that are cut at row 512: a view reaches over the cut.
      device.capabilities = { ...device.capabilities, bindingLimit: 131072 };
      assertEqual(await train(await create(device, configuration, { logitsBytes: 192 * 512 * 4 })), whole);
    }));
}

/** Members of one thread: each brings its tensor and goes on when all have. */
function inOneThread(members: number): CollectiveExecutor[] {
  let brought: Float32Array[] = [];
  let meeting = Promise.withResolvers<Float32Array[]>();
  const meet = async (own: Float32Array, index: number): Promise<Float32Array[]> => {
    brought[index] = own;
    const { promise, resolve } = meeting;
    if (brought.filter(Boolean).length === members) {
      resolve(brought);
      brought = [];
      meeting = Promise.withResolvers();
    }
    return await promise;
  };
  return Array.from({ length: members }, (_, index) => ({
    async execute({ inputs: [x], outputs: [y], attributes }: Op<CollectiveAttributes>, memory: TensorMemory) {
      const { kind, group, start = 0, length = elementCount(x) - start } = attributes;
      if (group !== "tensor") return;
      const all = await meet(await memory.readInto(x, new Float32Array(length), start), index);
      if (kind === "allGather") {
        all.forEach((part, i) => memory.write(y, part, i * length));
        return;
      }
      const sum = all[0].map((_, i) => all.reduce((total, part) => total + part[i], 0));
      const own = elementCount(y);
      if (kind === "allReduce") memory.write(y, sum, start);
      else memory.write(y, sum.subarray(index * own, (index + 1) * own));
    },
    hostMemory: () => {
      throw new Error("There is none");
    },
  }));
}

for (const sequenceParallel of [false, true]) {
  const how = sequenceParallel ? ", sequence-parallel" : "";
  Deno.test(`ranks that share the vocabulary have the loss of one, 64 rows at a time${how}`, () =>
    withDevice(async (device) => {
      const whole = await train(await create(device, untied, {}));
      const shares = await Promise.all(
        inOneThread(2).map(async (executor, index) => {
          const sole = soleRank(untied);
          const part = { ...sole.parts[0], tensor: { size: 2, index }, sequenceParallel };
          const layout = { ...sole, parts: [part], world: 2 };
          return await train(await create(device, untied, { layout, logitsBytes: 1 }, executor));
        }),
      );
      const head = whole.gradients.find(({ name }) => name === "lm_head.weight")!;
      shares.forEach(({ evaluated, trained, gradients }, index) => {
        assertEqual({ evaluated, trained, gradients: [] }, { ...whole, gradients: [] });
        const { firstToken, vocabulary } = localSizes(untied, { size: 2, index });
        const own = (data: Float32Array) => data.subarray(firstToken * 64, (firstToken + vocabulary) * 64);
        const found = gradients.find(({ name }) => name === head.name)!;
        const error = scaledMax(own(found.data as Float32Array), own(head.data as Float32Array));
        assert.ok(error < 1e-5, `rank ${index}: ${error}`);
      });
    }));
}

Deno.test("a context of 8,192 tokens needs no memory for all logits, nor for all pairs of positions", () => {
  const sequenceLength = 8192;
  const configuration = modelConfiguration({
    family: "gpt2",
    vocabularySize: 50257,
    layers: 4,
    heads: 4,
    width: 256,
    maximumSequenceLength: sequenceLength,
  });
  const { graph } = buildModelGraph({ configuration, batch: 1, sequenceLength, segments: ["train", "evaluate"] });
  for (const tensor of graph.tensors) {
    if (tensor.role !== "activation") continue;
    const limit = rowSize(tensor) > 50000 ? 2 ** 24 : 4 * sequenceLength * configuration.width;
    assert.ok(elementCount(tensor) <= limit, `${tensor.name} is [${tensor.shape}]`);
  }
  const { bytes } = makePlan(graph, genericCapabilities);
  const logits = 4 * sequenceLength * localSizes(configuration, { size: 1, index: 0 }).vocabularyRows;
  assert.ok(bytes.activation < 0.5 * logits, `${bytes.activation} bytes`);
});
