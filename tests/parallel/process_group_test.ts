/** Collectives among processes over real sockets: numbers, bits, order, misuse. */

import assert from "node:assert/strict";
import { UserError } from "../../errors.ts";
import { ProcessGroup, type ProcessGroupOptions } from "../../parallel/process_group.ts";
import { localMesh, startMesh } from "./loopback_mesh.ts";
import { broughtBy, hashOf, together } from "./process_groups.ts";

/** Bounds of a part that f32 sums of `terms` keep of the sum in double, by the sum of magnitudes. */
const roundOff = (terms: number) => terms * 2 ** -24;

/** Sums of what members bring, in double, and the sums of magnitudes. */
function exactSum(size: number, length: number): { sum: Float64Array; magnitude: Float64Array } {
  const sum = new Float64Array(length);
  const magnitude = new Float64Array(length);
  for (let rank = 0; rank < size; rank++) {
    broughtBy(rank, length).forEach((value, i) => {
      sum[i] += value;
      magnitude[i] += Math.abs(value);
    });
  }
  return { sum, magnitude };
}

function assertSum(data: Float32Array, size: number, from = 0, length = data.length): void {
  const { sum, magnitude } = exactSum(size, length);
  const wrong = data.findIndex((value, i) =>
    !(Math.abs(value - sum[from + i]) <= roundOff(size) * magnitude[from + i])
  );
  assert.equal(wrong, -1, `Element ${wrong} is ${data[wrong]} instead of ${sum[from + wrong]}`);
}

/** Numbers in memory that the group sums in place, or in an array of their own. */
function placed(values: Float32Array<ArrayBuffer>, inPlace: boolean) {
  if (!inPlace) return { data: values, memory: {} };
  const pages = Math.ceil((ProcessGroup.scratchBytes + values.byteLength) / 65536) + 1;
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  const data = new Float32Array(memory.buffer, ProcessGroup.scratchBytes + 64 + 4, values.length);
  data.set(values);
  return { data, memory: { memory: { memory, scratchOffset: 64 } } };
}

for (const algorithm of ["ring", "halving", "doubling"] as const) {
  Deno.test(`allReduce() by ${algorithm} sums within rounding, with the same bits on 1 to 5 members, each time`, async () => {
    for (const size of [1, 2, 3, 4, 5]) {
      // Fewer elements than members, not multiples of 16, several slices of the ring and of doubling.
      for (const length of [0, 1, 3, 17, 4097, ...(size === 2 || size === 5 ? [700_001] : [])]) {
        const hashes: string[] = [];
        for (const inPlace of [false, true]) {
          const meshes = await localMesh(size);
          await Promise.all(meshes.map(async (links, rank) => {
            const { data, memory } = placed(broughtBy(rank, length), inPlace);
            const group = new ProcessGroup({ rank, size, links, timeoutSeconds: 20, algorithm, ...memory });
            await group.allReduce(data);
            if (rank === 0) assertSum(data, size);
            hashes.push(hashOf(data));
            await group.barrier();
            group.close();
          }));
        }
        assert.equal(hashes.length, 2 * size);
        assert.equal(new Set(hashes).size, 1, `${size} members, ${length} elements`);
      }
    }
  });
}

Deno.test("allReduce() by size takes doubling up to the given bytes, halving up to others, and the ring beyond", async () => {
  const length = 1000;
  const bits = async (size: number, options: Partial<ProcessGroupOptions>) => {
    let hash = "";
    await together(size, async (group, rank) => {
      const data = broughtBy(rank, length);
      await group.allReduce(data);
      hash = hashOf(data);
    }, options);
    return hash;
  };
  for (const size of [3, 4]) {
    const ring = await bits(size, { algorithm: "ring" });
    const halving = await bits(size, { algorithm: "halving" });
    const doubling = await bits(size, { algorithm: "doubling" });
    // Each sums in an order of its own; among 4 members halving and doubling pair them the other way round.
    assert.notEqual(ring, doubling);
    if (size === 4) assert.equal(new Set([ring, halving, doubling]).size, 3);
    assert.equal(await bits(size, { doublingBytes: 4 * length }), doubling);
    assert.equal(await bits(size, { doublingBytes: 4 * length - 1, halvingBytes: 4 * length }), halving);
    assert.equal(await bits(size, { doublingBytes: 4 * length - 1, halvingBytes: 4 * length - 1 }), ring);
    // Not among 3 if not told so.
    assert.equal(await bits(size, { doublingBytes: 0 }), size === 3 ? ring : halving);
  }
});

Deno.test("allReduce() gives the same bits between real processes as within one", async () => {
  const [size, length] = [4, 300_007];
  const module = new URL("process_group_member.ts", import.meta.url).href;
  const members = await startMesh(size, module, [String(size), String(length), "sum", "20"]);
  const hashes = (await Promise.all(members.map(({ output }) => output))).map((text) => text.trim());
  assert.deepEqual((await Promise.all(members.map(({ child }) => child.status))).map(({ code }) => code), [0, 0, 0, 0]);
  await together(size, async (group, rank) => {
    const data = broughtBy(rank, length);
    await group.allReduce(data);
    hashes.push(hashOf(data));
  }, { algorithm: "ring" });
  assert.equal(hashes.length, 2 * size);
  assert.equal(new Set(hashes).size, 1);
  assert.match(hashes[0], /^[0-9a-f]{64}$/);
});

Deno.test("reduceScatter() leaves each member its part, allGather() gives all parts to all; parts may be ragged or empty", async () => {
  const cases: [number, number, number[] | undefined][] = [
    [1, 5, undefined],
    [2, 1001, undefined],
    [3, 7, undefined],
    [3, 1000, [0, 1, 1, 1000]],
    [4, 300_003, [0, 0, 299_999, 299_999, 300_003]],
    [4, 10, [0, 10, 10, 10, 10]],
  ];
  for (const [size, length, bounds] of cases) {
    await together(size, async (group, rank) => {
      const data = broughtBy(rank, length);
      const own = await group.reduceScatter(data, bounds);
      const from = own.byteOffset / 4;
      if (bounds !== undefined) assert.deepEqual([from, from + own.length], [bounds[rank], bounds[rank + 1]]);
      assertSum(own, size, from, length);
      data.fill(NaN, 0, from);
      data.fill(NaN, from + own.length);
      await group.allGather(data, bounds);
      assertSum(data, size);
      const reduced = broughtBy(rank, length);
      // The two halves are those of an all-reduce.
      if (bounds === undefined) {
        await group.allReduce(reduced);
        assert.equal(hashOf(reduced), hashOf(data));
      }
    }, { algorithm: "ring" });
  }
});

Deno.test("broadcast() gives any root's numbers to all, down a tree and along a chain", async () => {
  for (const size of [1, 2, 3, 5]) {
    await together(size, async (group, rank) => {
      for (let root = 0; root < size; root++) {
        for (const length of root === 1 ? [0, 1, 333, 400_001] : [333]) {
          const data = broughtBy(rank, length);
          await group.broadcast(data, root);
          assert.equal(hashOf(data), hashOf(broughtBy(root, length)));
        }
      }
    });
  }
});

Deno.test("barrier() lets none go on before the last has come", async () => {
  for (const size of [2, 3, 5]) {
    for (const late of [0, size - 1]) {
      let come = false;
      await together(size, async (group, rank) => {
        if (rank === late) {
          await new Promise((resolve) => setTimeout(resolve, 50));
          come = true;
        }
        await group.barrier();
        assert.ok(come);
      });
    }
  }
});

Deno.test("Calls that are not awaited are carried out one after another, in their order", async () => {
  await together(3, async (group, rank) => {
    const data = [5000, 1, 400_000, 0, 77].map((length) => broughtBy(rank, length));
    const given = broughtBy(rank, 100);
    const calls = [...data.map((values) => group.allReduce(values)), group.broadcast(given, 2), group.barrier()];
    await calls[6];
    data.forEach((values) => assertSum(values, 3));
    assert.equal(hashOf(given), hashOf(broughtBy(2, 100)));
    await Promise.all(calls);
  });
});

Deno.test("A process group refuses what cannot be, and goes on", async () => {
  const make = (options: Partial<ProcessGroupOptions>) => () =>
    new ProcessGroup({ rank: 0, size: 1, links: new Map(), timeoutSeconds: 1, ...options });
  assert.throws(make({ rank: 1 }), /has no member 1/);
  assert.throws(make({ size: 0 }), /of 0 members/);
  assert.throws(make({ size: 2 }), /no link to member 1/);
  assert.throws(make({ timeoutSeconds: 0 }), /limit of waits/);
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  assert.throws(make({ memory: { memory, scratchOffset: 0 } }), /has no \d+ bytes at 0/);
  const own = new WebAssembly.Memory({ initial: 100 });
  assert.throws(make({ memory: { memory: own, scratchOffset: 0 } }), /is not shared/);
  await together(2, async (group, rank) => {
    const data = broughtBy(rank, 8);
    await assert.rejects(group.broadcast(data, 2), /Cannot broadcast from member 2 of a process group of 2/);
    for (const bounds of [[0, 8], [0, 4, 7], [0, 9, 8], [1, 4, 8], [0, 2.5, 8]]) {
      await assert.rejects(group.reduceScatter(data, bounds), UserError);
      await assert.rejects(group.allGather(data, bounds), /must be 3 whole numbers that rise from 0 to 8/);
    }
    await group.allReduce(data);
    assertSum(data, 2);
    await group.barrier();
    group.close();
    await assert.rejects(group.barrier(), /has been closed/);
  });
});
