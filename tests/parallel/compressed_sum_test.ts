/** All-reduce of numbers that travel in fewer bytes, over real sockets: bits, error bounds, feedback, bytes, what is not finite. */

import assert from "node:assert/strict";
import type { Link } from "../../network/link.ts";
import { type Compression, formats } from "../../parallel/gradient_codecs.ts";
import { ProcessGroup } from "../../parallel/process_group.ts";
import { localMesh } from "./loopback_mesh.ts";
import { broughtBy, hashOf, together } from "./process_groups.ts";

const compressions = Object.keys(formats) as Compression[];

/** What member `rank` brings: numbers between -1 and 1. */
function noise(rank: number, length: number, seed = 0): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length }, (_, i) => Math.sin(i * 12.9898 + rank * 78.233 + seed * 3.7) ** 3);
}

/**
 * What a rounding loses at most of a number, when the largest is `largest`: a part of the number, which has 8 or 11 bits, or
 * half a step of the block.
 */
const lost: Record<Compression, (value: number, largest: number) => number> = {
  bf16: (value) => 2 ** -8 * Math.abs(value),
  f16: (value, largest) => 2 ** -11 * Math.abs(value) + 2 ** -38 * largest,
  int8: (_, largest) => largest / 254,
};

for (const compression of compressions) {
  Deno.test(`Sums in ${compression} are within its rounding, with the same bits on 1 to 5 members, each time`, async () => {
    for (const size of [1, 2, 3, 4, 5]) {
      for (const length of [0, 1, 255, 256, 257, 4097, ...(size === 3 ? [700_001] : [])]) {
        const hashes: string[][] = [[], []];
        for (const turn of [0, 1]) {
          await together(size, async (group, rank) => {
            const data = noise(rank, length);
            await group.compressed(length, compression).allReduce(data);
            hashes[turn].push(hashOf(data));
            if (rank > 0) return;
            const brought = Array.from({ length: size }, (_, other) => noise(other, length));
            const wrong = data.findIndex((value, i) => {
              const sum = brought.reduce((total, { [i]: term }) => total + term, 0);
              // The sum is rounded with what its terms have lost.
              const before = brought.reduce((total, { [i]: term }) => total + lost[compression](term, 1), 0);
              const bound = before + lost[compression](Math.abs(sum) + before, size + before);
              return !(Math.abs(value - sum) <= (size === 1 ? 0 : bound + 1e-6));
            });
            assert.equal(wrong, -1, `${size} members, element ${wrong} of ${length} is ${data[wrong]}`);
          });
        }
        assert.equal(hashes[0].length, size);
        assert.equal(new Set(hashes.flat()).size, 1, `${size} members, ${length} elements`);
      }
    }
  });

  Deno.test(`A sum in ${compression} that is not finite is so on all members, and the next one is as if nothing had been`, async () => {
    const [size, length] = [3, 3000];
    for (const bad of [NaN, Infinity, -Infinity]) {
      for (const place of [0, 1500, length - 1]) {
        const hashes = new Set<string>();
        await together(size, async (group, rank) => {
          const sum = group.compressed(length, compression);
          const first = noise(rank, length);
          if (rank === 1) first[place] = bad;
          await sum.allReduce(first);
          assert.ok(!Number.isFinite(first[place]));
          assert.ok(!Number.isFinite(first.reduce((total, value) => total + value ** 2, 0)));
          const second = new Float32Array(length).fill(rank + 1);
          await sum.allReduce(second);
          assert.ok(second.every((value) => Math.abs(value - 6) < 6 * 0.02), "what was not finite was kept");
          hashes.add(hashOf(second));
        });
        assert.equal(hashes.size, 1);
      }
    }
  });
}

Deno.test("Small whole numbers are summed exactly in f16 and bf16", async () => {
  for (const compression of ["f16", "bf16"] as const) {
    for (const size of [2, 5]) {
      await together(size, async (group, rank) => {
        const data = Float32Array.from({ length: 5001 }, (_, i) => (i * 7 + rank * 3) % 31 - 15);
        await group.compressed(data.length, compression).allReduce(data);
        const expected = data.map((_, i) => {
          let sum = 0;
          for (let other = 0; other < size; other++) sum += (i * 7 + other * 3) % 31 - 15;
          return sum;
        });
        assert.deepEqual(data.map((value) => value + 0), expected);
      });
    }
  }
});

/** The largest difference of the mean over `steps` sums from the true sum, in steps of int8: with one sum, or a new one each time. */
async function meanError(size: number, steps: number, keep: boolean): Promise<number> {
  const length = 2000;
  const exact = new Float64Array(length);
  for (let rank = 0; rank < size; rank++) noise(rank, length).forEach((value, i) => exact[i] += value);
  let error = 0;
  await together(size, async (group, rank) => {
    const mean = new Float64Array(length);
    let sum = group.compressed(length, "int8");
    for (let step = 0; step < steps; step++) {
      const data = noise(rank, length);
      await sum.allReduce(data);
      data.forEach((value, i) => mean[i] += value / steps);
      if (!keep) sum = group.compressed(length, "int8");
    }
    if (rank === 0) error = Math.max(...mean.map((value, i) => Math.abs(value - exact[i])));
  });
  return error * 127;
}

Deno.test("With what was lost before, the mean of sums in int8 comes to the true one as 1 / steps; without, it does not", async () => {
  const size = 3;
  // What is kept at the end is at most half a step of each sender's numbers (below 1) and of the sum (below 3).
  const most = (size - 1) * 0.5 + size * 0.5 + 0.1;
  for (const steps of [1, 10, 100]) assert.ok(await meanError(size, steps, true) <= most / steps, `${steps} steps`);
  assert.ok(await meanError(size, 100, false) > 0.5);
});

Deno.test("What a sum in int8 has lost is added in the scale of the next: scales of powers of two change no bit of the sums", async () => {
  const [size, length] = [3, 2000];
  const scales = [1, 1024, 2048, 2048, 0.5, 0.25, 4];
  /** Sums of call after call, divided by their scales; those are told to the sum, or not. */
  const sumsWith = async (scales: readonly number[], told: boolean) => {
    const hashes: string[] = [];
    await together(size, async (group, rank) => {
      const sum = group.compressed(length, "int8");
      const calls = scales.map((scale, step) => noise(rank, length, step).map((value) => value * scale));
      // All are under way at once: each takes what the one before it has lost.
      await Promise.all(calls.map((data, i) => told ? sum.allReduce(data, scales[i]) : sum.allReduce(data)));
      if (rank === 0) hashes.push(...calls.map((data, i) => hashOf(data.map((value) => value / scales[i]))));
    });
    return hashes;
  };
  const unscaled = await sumsWith(scales.map(() => 1), true);
  assert.deepEqual(await sumsWith(scales, true), unscaled);
  assert.notDeepEqual((await sumsWith(scales, false)).slice(1), unscaled.slice(1));
});

Deno.test("Members send 2 (n - 1) / n of the encoded bytes: 0.504 of f32's in f16, 0.5 in bf16, 0.254 in int8", async () => {
  const length = 400_000;
  for (const compression of compressions) {
    for (const size of [2, 4]) {
      const meshes = await localMesh(size);
      const sent = meshes.map(() => 0);
      const counted = (link: Link, rank: number): Link => ({
        peer: link.peer,
        read: (target) => link.read(target),
        close: () => link.close(),
        write(source) {
          sent[rank] += source.length;
          return link.write(source);
        },
      });
      const groups = meshes.map((links, rank) => {
        const counting = new Map([...links].map(([other, link]) => [other, counted(link, rank)]));
        return new ProcessGroup({ rank, size, links: counting, timeoutSeconds: 20 });
      });
      await Promise.all(
        groups.map((group) => group.compressed(length, compression).allReduce(new Float32Array(length))),
      );
      groups.forEach((group) => group.close());
      const least = 2 * (size - 1) / size * 4 * length;
      const share = { f16: 0.51, bf16: 0.502, int8: 0.257 }[compression];
      for (const bytes of sent) assert.ok(bytes <= share * least, `${compression}, ${size} members: ${bytes / least}`);
    }
  }
});

Deno.test("Compressed sums of several buffers go in order with other collectives, and refuse another length", async () => {
  await together(4, async (group, rank) => {
    const sums = [1000, 3, 200_000].map((length) => group.compressed(length, "f16"));
    const data = sums.map(({ length }) => new Float32Array(length).fill(rank));
    const plain = broughtBy(rank, 5000);
    const calls = [sums[0].allReduce(data[0]), group.allReduce(plain), sums[1].allReduce(data[1])];
    calls.push(sums[2].allReduce(data[2]), group.barrier(), sums[0].allReduce(data[0]));
    await assert.rejects(sums[1].allReduce(new Float32Array(4)), /Cannot sum 4 elements: this sum was made for 3/);
    await Promise.all(calls);
    data.forEach((values, i) => assert.ok(values.every((value) => value === (i === 0 ? 24 : 6))));
    await group.barrier();
  });
});

/** How an all-reduce of so many elements is made for a group. */
type MakeSum = (group: ProcessGroup, length: number) => { allReduce(data: Float32Array): Promise<void> };

/**
 * Logistic regression on four members, each with samples of its own, by gradient descent: the loss over all samples. Features
 * differ in size up to 1000 times and each has its own rate, as Adam would give it, so that a block's step of int8 exceeds the
 * gradients of small ones.
 */
async function lossOf(makeSum: MakeSum): Promise<number> {
  const [size, features, samples, steps] = [4, 64, 64, 400];
  let state = 7;
  const random = () => (state = (state * 16807) % 2147483647) / 2147483647 - 0.5;
  const scales = Array.from({ length: features }, (_, i) => 10 ** (-3 * i / features));
  const truth = scales.map((scale) => 8 * random() / scale);
  const dot = (x: readonly number[], w: ArrayLike<number>) => x.reduce((sum, value, i) => sum + value * w[i], 0);
  const rows = Array.from({ length: size * samples }, () => {
    const x = scales.map((scale) => random() * scale);
    return { x, y: dot(x, truth) + 2 * random() > 0 ? 1 : 0 };
  });
  const losses: number[] = [];
  await together(size, async (group, rank) => {
    const sum = makeSum(group, features);
    const weights = new Float64Array(features);
    const gradient = new Float32Array(features);
    for (let step = 0; step < steps; step++) {
      gradient.fill(0);
      for (const { x, y } of rows.slice(rank * samples, (rank + 1) * samples)) {
        const difference = (1 / (1 + Math.exp(-dot(x, weights))) - y) / rows.length;
        x.forEach((value, i) => gradient[i] += difference * value);
      }
      await sum.allReduce(gradient);
      gradient.forEach((value, i) => weights[i] -= 2 * value / scales[i] ** 2);
    }
    const loss = rows.reduce((total, { x, y }) => total + Math.log1p(Math.exp((1 - 2 * y) * dot(x, weights))), 0);
    losses.push(loss / rows.length);
  });
  assert.deepEqual(losses, Array(size).fill(losses[0]));
  return losses[0];
}

Deno.test("Optimisation with sums in int8 comes within 0.1% of the loss of f32; without what was lost before, not within 10%", async () => {
  const exact = await lossOf((group) => group);
  const feedback = await lossOf((group, length) => group.compressed(length, "int8"));
  const without = await lossOf((group, length) => ({
    allReduce: (data) => group.compressed(length, "int8").allReduce(data),
  }));
  assert.ok(Math.abs(feedback / exact - 1) < 0.001, `${feedback} instead of ${exact}`);
  assert.ok(without / exact > 1.1, `${without} is as near to ${exact}`);
});
