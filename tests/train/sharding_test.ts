/** What sharding, recomputation and offloading save, from plans alone. */

import assert from "node:assert/strict";
import { genericCapabilities } from "../../gpu/capabilities.ts";
import { makePlan, type Plan } from "../../graph/plan.ts";
import { modelConfiguration, parameterCount } from "../../model/configuration.ts";
import { buildModelGraph } from "../../train/model_graph.ts";
import { type RankLayout, soleRank } from "../../train/rank_layout.ts";

const configuration = modelConfiguration({
  family: "gpt2",
  layers: 8,
  heads: 4,
  width: 128,
  vocabularySize: 512,
  maximumSequenceLength: 128,
});
const weightBytes = 4 * parameterCount(configuration);
const blockBytes = 4 * 12 * 128 * 128;

function planFor(layout: Partial<RankLayout>): Plan {
  const { graph } = buildModelGraph({
    configuration,
    batch: 8,
    sequenceLength: 128,
    segments: ["train"],
    layout: { ...soleRank(configuration), bucketElements: blockBytes / 4, world: 4, ...layout },
  });
  return makePlan(graph, genericCapabilities);
}

const near = (found: number, expected: number, margin = 0.03) =>
  assert.ok(Math.abs(found / expected - 1) < margin, `${found} bytes instead of ${expected}`);

Deno.test("each level of sharding leaves a data-parallel rank its part of what it shares out", () => {
  const data = { size: 4, index: 1 };
  const levels = ([0, 1, 2, 3] as const).map((zero) => planFor({ data, zero }).bytes);
  const [none, one, two, three] = levels;
  near(none.parameter, weightBytes);
  near(none.gradient, weightBytes);
  near(none.optimizer, 2 * weightBytes);
  near(one.parameter, weightBytes);
  near(one.gradient, weightBytes);
  near(one.optimizer, 2 * weightBytes / 4);
  near(two.parameter, weightBytes);
  near(two.gradient, weightBytes / 4);
  near(two.optimizer, 2 * weightBytes / 4);
  assert.equal(three.parameter, 0);
  near(three.gradient, weightBytes / 4);
  // Of the weights too only a shard stays, the one that AdamW works on.
  near(three.optimizer, 3 * weightBytes / 4);
  // What lives shortly is a few blocks, not the model: it is among the activations.
  assert.ok(two.activation - one.activation < 3.1 * blockBytes, `${two.activation - one.activation}`);
  assert.ok(three.activation - two.activation < 3.1 * blockBytes, `${three.activation - two.activation}`);
});

Deno.test("recomputation keeps less of the activations: norms and activation functions less, whole blocks least", () => {
  const [none, selective, block] = (["none", "selective", "block"] as const).map((recompute) =>
    planFor({ recompute }).bytes.activation
  );
  const rows = 4 * 8 * 128 * 128;
  // Of each block: two norms' results and GELU's, one and four times as wide as the residual stream.
  near(none - selective, 8 * (2 + 4) * rows, 0.2);
  // The residual stream between blocks, one block in full, the logits, and what backward works with.
  assert.ok(block < 0.45 * none, `${block} of ${none} bytes`);
  assert.ok(block > 8 * rows);
});

Deno.test("with the optimizer on the host its state takes no more of the device than the bank that is updated", () => {
  const [device, host] = [planFor({}), planFor({ offload: true })];
  near(device.bytes.optimizer, 2 * weightBytes);
  assert.equal(host.bytes.optimizer, 0);
  assert.ok(host.totalBytes < device.totalBytes - 1.9 * weightBytes);
});

Deno.test("memory grows with the sequence, not with its square: four layers train on 8,192 tokens within 2 GiB", () => {
  const bytes = [4096, 8192].map((sequenceLength) => {
    const sizes = { layers: 4, heads: 4, width: 256, vocabularySize: 256, maximumSequenceLength: sequenceLength };
    const long = modelConfiguration({ family: "llama", ...sizes });
    const layout = soleRank(long);
    const { graph } = buildModelGraph({ configuration: long, batch: 1, sequenceLength, segments: ["train"], layout });
    return makePlan(graph, genericCapabilities).totalBytes;
  });
  assert.ok(bytes[1] < 2 ** 31 && bytes[1] < 2.05 * bytes[0], `${bytes}`);
});
