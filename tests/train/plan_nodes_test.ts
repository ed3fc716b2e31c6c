/** Plans for many machines: limits of the model, hidden and exposed communication, what is refused. */

import assert from "node:assert/strict";
import { UserError } from "../../errors.ts";
import { algorithmsFor, idealLink, type LinkModel, parseLink, payloadShare } from "../../parallel/link_model.ts";
import { nameMesh } from "../../parallel/mesh.ts";
import { exchangeOver, type Phase } from "../../train/exchange.ts";
import type { NodesPlan } from "../../train/plan_nodes.ts";
import { planTraining } from "../../train/plan_training.ts";
import type { GivenSettings } from "../../train/settings.ts";

const small: GivenSettings = { family: "gpt2", layers: 8, heads: 4, width: 256, sequenceLength: 128, bucketMb: 2 };
const gbit = parseLink("1Gbit,50us");

async function planFor(ranks: number, nodes: number, given: GivenSettings, link: LinkModel = gbit) {
  const options = { gpus: { ranks, flopsPerSecond: 1e12 }, machines: { nodes, link, compression: "none" } } as const;
  const plan = await planTraining({ ...small, batchSize: 4 * ranks * nodes, ...given }, options);
  return { ...plan, nodes: plan.nodes as NodesPlan };
}

const close = (actual: number, expected: number, share: number) =>
  assert.ok(Math.abs(actual / expected - 1) < share, `${actual} is not ${expected}`);

/** Bytes of all gradients that a machine sums with others. */
const gradientBytes = (phases: readonly Phase[]) =>
  phases.flatMap(({ times, lanes }) => lanes.flatMap(({ sums }) => sums.map(({ bytes }) => times * bytes)))
    .reduce((a, b) => a + b, 0);

Deno.test("over links that cost nothing machines take the time of one, so that their number is the speed-up", async () => {
  for (
    const given of [{ dp: 4 }, { dp: 2, pp: 2 }, { dp: 2, tp: 2 }, { dp: 4, zero: "2" }, { dp: 4, zero: "1" }] as const
  ) {
    const alone = await planTraining({ ...small, batchSize: 16, ...given }, {
      gpus: { ranks: 4, flopsPerSecond: 1e12 },
    });
    const { nodes } = await planFor(4, 8, given, idealLink);
    for (const { planned, seconds, exposedSeconds, communicationSeconds, efficiency } of nodes.weak) {
      assert.deepEqual([exposedSeconds, communicationSeconds], [0, 0]);
      assert.equal(seconds, planned.seconds);
      // Ranks that share out gradients may not go on beside a sum over machines.
      if ("zero" in given && given.zero === "2") continue;
      close(seconds, alone.pick!.seconds, 1e-9);
      close(efficiency, 1, 1e-9);
    }
  }
  // A rank alone on its machine copies gradients to the host and back for the others' sake, and nothing else.
  const { nodes, hardware } = await planFor(1, 4, {}, idealLink);
  const [one, two, ...more] = nodes.weak;
  const bytes = gradientBytes(two.planned.phases);
  const copies = bytes / hardware[0].readRate + bytes / hardware[0].writeRate;
  assert.ok(two.seconds > one.seconds && two.seconds < one.seconds + 1.01 * copies + 0.01);
  for (const { seconds } of more) close(seconds, two.seconds, 1e-9);
});

Deno.test("what a link carries in a step is the algorithm's share of all gradients", async () => {
  for (
    const given of [{}, { dp: 2, tp: 2 }, { dp: 1, pp: 2, tp: 2 }, { dp: 4, zero: "2", microBatchSize: 1 }] as const
  ) {
    const { nodes, configuration } = await planFor(4, 8, given);
    const ring = nodes.combinations.filter(({ algorithm }) => algorithm === "ring");
    for (const { planned, bytesPerLink } of ring) {
      const bytes = gradientBytes(planned.phases);
      // Losses are summed too.
      assert.equal(Math.round(bytesPerLink - 2 * 7 / 8 * bytes), 3 * 8);
      // All parameters; norms on each rank of a tensor-parallel group, tied tables on two stages.
      const rounds = given.zero === "2" ? 4 : 1;
      const least = rounds * 4 * (12 * configuration.width ** 2 * configuration.layers);
      assert.ok(bytes > least && bytes < 1.3 * least, `${nameMesh(planned.mesh)}: ${bytes}, at least ${least}`);
    }
  }
});

Deno.test("hidden and exposed make up the communication; step, exposure and bytes grow with machines", async () => {
  const { nodes: { weak, strong, combinations } } = await planFor(2, 100, { batchSize: 800 });
  assert.deepEqual(weak.map(({ machines }) => machines), [1, 2, 4, 8, 16, 32, 64, 100]);
  assert.deepEqual(weak.map(({ batchSize }) => batchSize), [8, 16, 32, 64, 128, 256, 512, 800]);
  assert.ok(strong.every(({ batchSize }) => batchSize === 800));
  for (const one of [...weak, ...strong, ...combinations]) {
    const { hiddenSeconds, exposedSeconds, communicationSeconds, planned, seconds } = one;
    assert.ok(hiddenSeconds >= 0 && exposedSeconds >= 0);
    close(hiddenSeconds + exposedSeconds + 1, communicationSeconds + 1, 1e-12);
    close(planned.seconds + exposedSeconds, seconds, 1e-12);
  }
  for (const [i, one] of weak.entries()) {
    if (i < 2) continue;
    const before = weak[i - 1];
    assert.ok(one.seconds >= before.seconds && one.efficiency <= before.efficiency);
    assert.ok(one.bytesPerLink > before.bytesPerLink);
  }
  // The last line of both tables is the run that was asked for.
  close(strong.at(-1)!.seconds, weak.at(-1)!.seconds, 1e-9);
  assert.deepEqual([combinations[0].seconds, combinations[0].batchSize], [weak.at(-1)!.seconds, 800]);
  // Each machine computes less; what it gains is never more than its share.
  for (const [i, one] of strong.entries()) {
    if (i === 0) continue;
    assert.ok(one.planned.seconds < strong[i - 1].planned.seconds);
    assert.ok(one.efficiency < strong[i - 1].efficiency);
  }
});

Deno.test("a slow link exposes its own time, a fast one hides behind backward all but the last bucket", async () => {
  const exposed = async (link: string, given: GivenSettings = {}) => {
    const { nodes } = await planFor(2, 8, { dp: 2, ...given }, parseLink(`${link},1000GB/s`));
    return nodes.combinations.find(({ algorithm }) => algorithm === "ring")!;
  };
  const slow = await exposed("10Mbit,50us");
  close(slow.exposedSeconds, slow.bytesPerLink / (1.25e6 * payloadShare), 0.02);
  const rates = ["10Mbit", "100Mbit", "1Gbit", "10Gbit", "100Gbit"];
  const shares: number[] = [];
  for (const rate of rates) {
    const { hiddenSeconds, communicationSeconds } = await exposed(`${rate},0us`);
    shares.push(hiddenSeconds / communicationSeconds);
  }
  assert.deepEqual(shares, [...shares].sort((a, b) => a - b), `hidden: ${shares}`);
  assert.ok(shares[0] < 0.1 && shares[4] > 0.8, `hidden: ${shares}`);
  // One bucket is ready at the end only.
  const [many, one] = [await exposed("1Gbit,0us"), await exposed("1Gbit,0us", { bucketMb: 1000 })];
  assert.ok(one.exposedSeconds > many.exposedSeconds);
  // What is summed in each micro-batch goes over the link as often.
  const often = await exposed("1Gbit,50us", { zero: "2", microBatchSize: 1 });
  assert.ok(often.bytesPerLink > 3.9 * many.bytesPerLink);
});

Deno.test("lanes of a group of ranks share the link: as many bytes take as long", () => {
  const lane = (bytes: number, deferred = true, seconds = 0) => ({
    seconds,
    sums: [{ ready: 0, bytes, uploadSeconds: 0, last: true, deferred }],
  });
  const play = (...lanes: Phase["lanes"]) =>
    exchangeOver([{ times: 1, lanes }], { machines: 4, link: gbit, compression: "none", algorithm: "ring" });
  const one = play(lane(64e6));
  const two = play(lane(32e6), lane(32e6));
  close(two.seconds, one.seconds, 0.01);
  close(two.sentBytes, one.sentBytes, 1e-9);
  // Behind a segment that is as long it is hidden, unless ranks wait for it.
  assert.ok(play(lane(64e6, true, 10)).exposedSeconds < 1e-3);
  const waited = play(lane(64e6, false, 10));
  assert.equal(waited.exposedSeconds, waited.seconds);
  for (const algorithm of algorithmsFor("none")) {
    const auto = exchangeOver([{ times: 1, lanes: [lane(1e5)] }], {
      machines: 64,
      link: gbit,
      compression: "none",
      algorithm: "auto",
    });
    const own = exchangeOver([{ times: 1, lanes: [lane(1e5)] }], {
      machines: 64,
      link: gbit,
      compression: "none",
      algorithm,
    });
    assert.ok(auto.seconds <= own.seconds);
  }
});

Deno.test("a batch that machines cannot share is refused in one sentence", async () => {
  const refused = (nodes: number, given: GivenSettings, message: RegExp) =>
    assert.rejects(
      planFor(2, nodes, given),
      (error) => error instanceof UserError && message.test(error.message) && !error.message.includes("\n"),
    );
  await refused(1000, { batchSize: 4 }, /--batch-size 4 is less than one sequence for each of --nodes 1000 machines/);
  await refused(4, { batchSize: 16, dp: 3 }, /--dp 3 .* does not make up 2 ranks/);
  // Enough for machines, too little for their copies: other meshes remain.
  const { pick, survey } = await planFor(2, 8, { batchSize: 8 });
  assert.notEqual(nameMesh(pick!.mesh), "dp 2");
  assert.match(survey.refused[0].reason, /--batch-size 1 is less than one sequence/);
  // One machine is a plan like any other.
  const one = await planFor(2, 1, { batchSize: 8 });
  assert.deepEqual(one.nodes.weak.map(({ machines, efficiency }) => [machines, efficiency]), [[1, 1]]);
});
