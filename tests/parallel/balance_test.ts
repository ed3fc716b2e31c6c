import assert from "node:assert/strict";
import fc from "fast-check";
import { UserError } from "../../errors.ts";
import { apportion, rebalance, splitBatch } from "../../parallel/balance.ts";

Deno.test("apportion() gives whole parts that add up, near their due, in the order of the weights", () => {
  assert.deepEqual(apportion(12, [3, 1]), [9, 3]);
  assert.deepEqual(apportion(10, [1, 1, 1, 1]), [3, 3, 2, 2]);
  assert.deepEqual(apportion(4, [100, 1, 1]), [2, 1, 1]);
  assert.deepEqual(apportion(9, [0.01, 0.010000000000000002]), [4, 5]);
  const weights = fc.array(fc.double({ min: 0.01, max: 100, noNaN: true }), { minLength: 1, maxLength: 8 });
  fc.assert(fc.property(weights, fc.integer({ min: 8, max: 500 }), (weights, total) => {
    const parts = apportion(total, weights);
    assert.equal(parts.reduce((a, b) => a + b, 0), total);
    assert.ok(parts.every((part) => Number.isInteger(part) && part >= 1));
    const sum = weights.reduce((a, b) => a + b, 0);
    // Nobody gets more than is due, rounded up, or the least.
    parts.forEach((part, i) => assert.ok(part <= Math.max(1, Math.ceil(total * weights[i] / sum))));
    weights.forEach((weight, i) =>
      weights.forEach((other, j) => assert.ok(weight <= other || parts[i] >= parts[j], `${weights} ${parts}`))
    );
  }));
});

Deno.test("splitBatch() reads --balance and says what does not fit", () => {
  assert.deepEqual(splitBatch("even", 10, 4), [3, 3, 2, 2]);
  assert.deepEqual(splitBatch("auto", 8, 2), [4, 4]);
  assert.deepEqual(splitBatch("3:1", 8, 2), [6, 2]);
  const wrong: [string, number, number, RegExp][] = [
    ["even", 3, 4, /--batch-size 3 is less than one sequence for each of --dp 4 copies/],
    ["fast", 8, 2, /--balance fast must be auto, even or positive parts like 3:1/],
    ["1:0", 8, 2, /positive parts/],
    ["1:2:3", 8, 2, /has 3 parts, but there are 2 data-parallel copies/],
  ];
  for (const [balance, batch, copies, message] of wrong) {
    assert.throws(() => splitBatch(balance, batch, copies), (error: Error) => {
      assert.ok(error instanceof UserError);
      assert.match(error.message, message);
      return true;
    });
  }
});

Deno.test("rebalance() moves sequences to the faster copy, and only where that pays", () => {
  assert.deepEqual(rebalance([6, 6], [300, 100]), [3, 9]);
  assert.deepEqual(rebalance([3, 9], [150, 150]), [3, 9]);
  assert.deepEqual(rebalance([6, 6], [105, 100]), [6, 6]);
  // One that a neighbour slows down for good.
  assert.deepEqual(rebalance([4, 4, 4], [100, 100, 1000]), [6, 5, 1]);
});
