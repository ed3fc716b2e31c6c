import assert from "node:assert/strict";
import fc from "fast-check";
import { createLoader, permute, validationLoader } from "../../data/loader.ts";
import type { TokenSource } from "../../data/token_file.ts";
import { UserError } from "../../errors.ts";

function source(length: number): TokenSource {
  return {
    length,
    close() {},
    read(start, target) {
      assert.ok(start >= 0 && start + target.length <= length);
      for (let i = 0; i < target.length; i++) target[i] = start + i;
    },
  };
}

function sampleOf(loader: { sample: ReturnType<typeof createLoader>["sample"] }, index: number, length: number) {
  const tokens = new Uint32Array(length), targets = new Int32Array(length);
  loader.sample(index, tokens, targets, 0);
  return { tokens, targets };
}

Deno.test("permute() is a permutation for every size and key", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 700 }), fc.integer(), (size, key) => {
      const seen = new Set(Array.from({ length: size }, (_, i) => permute(i, size, key)));
      assert.equal(seen.size, size);
      for (const x of seen) assert.ok(x >= 0 && x < size);
    }),
    { numRuns: 60 },
  );
  assert.ok(permute(12345, 2 ** 31 - 1, 7) < 2 ** 31 - 1);
});

Deno.test("createLoader() takes each window of an epoch once, targets one behind the tokens", () => {
  const length = 16;
  const loader = createLoader(source(1000), { sequenceLength: length, seed: 5 });
  const starts = new Set<number>();
  for (let i = 0; i < loader.samplesPerEpoch; i++) {
    const { tokens, targets } = sampleOf(loader, i, length);
    targets.forEach((target, j) => assert.equal(target, tokens[j] + 1));
    starts.add(tokens[0]);
  }
  assert.equal(starts.size, loader.samplesPerEpoch);
  const sorted = [...starts].sort((a, b) => a - b);
  sorted.slice(1).forEach((start, i) => assert.equal(start - sorted[i], length));
});

Deno.test("createLoader() orders samples by seed and index alone", () => {
  const order = (seed: number, from: number) => {
    const loader = createLoader(source(5000), { sequenceLength: 8, seed });
    return Array.from({ length: 50 }, (_, i) => sampleOf(loader, from + i, 8).tokens[0]);
  };
  assert.deepEqual(order(1, 600), order(1, 600));
  assert.deepEqual(order(1, 580).slice(20), order(1, 600).slice(0, 30));
  assert.notDeepEqual(order(1, 0), order(2, 0));
  const epoch = createLoader(source(5000), { sequenceLength: 8, seed: 1 }).samplesPerEpoch;
  assert.notDeepEqual(order(1, 0), order(1, epoch));
});

Deno.test("loaders refuse data that is shorter than one sequence", () => {
  assert.throws(
    () => createLoader(source(8), { sequenceLength: 8, seed: 1 }),
    (error: Error) => error instanceof UserError && /8 tokens/.test(error.message),
  );
  assert.equal(createLoader(source(9), { sequenceLength: 8, seed: 1 }).samplesPerEpoch, 1);
  assert.deepEqual([...sampleOf(createLoader(source(9), { sequenceLength: 8, seed: 1 }), 3, 8).tokens.slice(0, 1)], [
    0,
  ]);
});

Deno.test("validationLoader() spreads its windows over the text without overlap", () => {
  const loader = validationLoader(source(1001), { sequenceLength: 10, count: 7 });
  const starts = Array.from({ length: 7 }, (_, i) => sampleOf(loader, i, 10).tokens[0]);
  assert.equal(new Set(starts).size, 7);
  assert.ok(starts[6] > 800);
  assert.equal(validationLoader(source(1001), { sequenceLength: 10, count: 1000 }).samplesPerEpoch, 100);
});
