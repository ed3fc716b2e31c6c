/** Training over machines gives the losses of one rank. */

import assert from "node:assert/strict";
import type { GivenSettings } from "../../train/settings.ts";
import { inFolder, lossesOf, only, sameLosses, together, trainHere } from "./machines.ts";

const model: GivenSettings = { layers: 2, steps: 6, dropout: 0.1 };
const [two, three] = [{ devices: "0,0" }, { devices: "0,0,0" }];

/** What the machines of a run have each, and all. */
const layouts: [string, readonly GivenSettings[], GivenSettings][] = [
  ["4 machines of 1 rank, a batch that does not divide evenly", [{}, {}, {}, {}], { batchSize: 10 }],
  ["2 of 2, several sums under way, in pieces", [two, two], { bucketMb: 0.001, microBatchSize: 2 }],
  ["1 rank and 3", [{}, three], { bucketMb: 0.02 }],
  ["2 of 2, zero 1", [two, two], { zero: "1", bucketMb: 0.02 }],
  ["2 of 2, zero 2, micro-batches of 2", [two, two], { zero: "2", microBatchSize: 2, bucketMb: 0.02 }],
  ["2 of 2, zero 3", [two, two], { zero: "3" }],
  ["2 of tp 2", [two, two], { tp: 2 }],
  ["2 of pp 2", [two, two], { pp: 2, microBatches: 3 }],
  ["2 of 2, f16, zero 1", [two, two], { precision: "f16", zero: "1" }],
];

Deno.test("machines train as one rank does, and all of them tell the same bits", async (t) => {
  await inFolder(async (folder) => {
    const references = new Map<string, ReturnType<typeof lossesOf>>();
    for (const [name, own, shared] of layouts) {
      await t.step(name, async () => {
        const { batchSize = 12, precision = "f32" } = shared;
        const key = `${batchSize} ${precision}`;
        if (!references.has(key)) {
          const [alone] = await trainHere(folder, [{ ...model, batchSize, precision }]);
          references.set(key, lossesOf(alone));
        }
        const terms = together(folder, own.length, { ...model, ...shared });
        const [first, ...others] = await trainHere(
          folder,
          own.map((mine, nodeRank) => ({ ...terms, ...mine, nodeRank })),
        );
        const numbers = (events: typeof first) =>
          [...only(events, "step"), ...only(events, "evaluation")].map((event) => [event.step, event.loss]);
        assert.equal(lossesOf(first).size, 6);
        sameLosses(lossesOf(first), references.get(key)!);
        for (const events of others) assert.deepEqual(numbers(events), numbers(first));
        assert.equal(only(first, "world").length, 1);
      });
    }
  })();
});
