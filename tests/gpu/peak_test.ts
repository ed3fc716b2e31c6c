import assert from "node:assert/strict";
import { measureCeilings } from "../../bench/ceilings.ts";
import { multiplyAdds, usualChains } from "../../gpu/loads.ts";
import { openDevice } from "../../gpu/open.ts";
import { highestOf, measureFlops, openPeak } from "../../gpu/peak.ts";

Deno.test("highestOf() goes on while a run brings more, and forgives runs that are disturbed; time is limited", () => {
  /** Runs that bring these in turn, the last one again and again, and take `milliseconds` each. */
  const measure = (rates: readonly number[], milliseconds = 5) => {
    let [runs, now] = [0, 0];
    const highest = highestOf(() => {
      now += milliseconds;
      return rates[Math.min(runs++, rates.length - 1)];
    }, () => now);
    return { highest, runs };
  };
  // A driver's threads on one core for a while; a GPU whose clock rises.
  assert.deepEqual(measure([200, 200, 200, 204, 200, 401, 200]), { highest: 401, runs: 14 });
  assert.deepEqual(measure([100, 150, 220, 300, 400]), { highest: 400, runs: 13 });
  // Differences too small to be news count all the same.
  assert.deepEqual(measure([400, 401, 402, 400]), { highest: 402, runs: 9 });
  assert.deepEqual(measure([1, 2], 100), { highest: 2, runs: 2 });
  assert.deepEqual(measure(Array.from({ length: 100 }, (_, i) => 1.1 ** i)).runs, 30);
});

Deno.test("the peak of an opened device is the ceiling that `muster bench` measures, and takes less than 200 ms", async () => {
  const device = await openDevice();
  try {
    await measureFlops(device);
    // Others may use the machine: the faster of two counts for both.
    let [least, peak, ceiling, best] = [Infinity, 0, 0, 0];
    for (let round = 0; round < 2; round++) {
      const start = performance.now();
      peak = Math.max(peak, await measureFlops(device));
      least = Math.min(least, performance.now() - start);
      const { f32FlopsPerSecond } = await measureCeilings(device, { rounds: 3, sampleMilliseconds: 10 });
      ceiling = Math.max(ceiling, f32FlopsPerSecond);
      for (const count of [2, 3, 4, 8]) {
        const load = await multiplyAdds(device, { ...usualChains, count }, 512);
        const began = performance.now();
        load.run();
        device.drain();
        best = Math.max(best, load.amount / ((performance.now() - began) / 1e3));
        load.destroy();
      }
    }
    assert.ok(least < 200, `${least} ms`);
    const told = `${peak / 1e9}, by bench ${ceiling / 1e9}, with other chains ${best / 1e9} GFLOP/s`;
    assert.ok(peak > 0.8 * ceiling && peak < 1.25 * ceiling, told);
    assert.ok(peak > 0.75 * best, told);
  } finally {
    await device.destroy();
  }
});

Deno.test("a peak that is measured again rises when the device was faster than was known, and never falls", async () => {
  const device = await openDevice();
  try {
    const known = device.capabilities;
    device.capabilities = { ...known, flopsPerSecond: known.flopsPerSecond / 10 };
    const low = await openPeak(device);
    const rate = low.measure();
    assert.ok(rate > known.flopsPerSecond / 10);
    assert.equal(low.flopsPerSecond, rate);
    low.destroy();
    device.capabilities = { ...known, flopsPerSecond: known.flopsPerSecond * 10 };
    const high = await openPeak(device);
    high.measure();
    assert.equal(high.flopsPerSecond, known.flopsPerSecond * 10);
    high.destroy();
  } finally {
    await device.destroy();
  }
});
