/** Any sequence of collectives on one group gives what each gives alone, whichever algorithm, memory and bounds. */

import assert from "node:assert/strict";
import fc from "fast-check";
import { ProcessGroup } from "../../parallel/process_group.ts";
import { localMesh } from "./loopback_mesh.ts";

/** A call, as all members make it. */
interface Call {
  readonly kind: "allReduce" | "reduceScatter" | "allGather" | "broadcast" | "barrier";
  readonly length: number;
  /** Decides bounds and root. */
  readonly cuts: readonly number[];
}

// Whole numbers, so that sums are exact in any order.
const value = (rank: number, call: number, i: number) => (rank + 1) * 1000 + (call * 31 + i * 7) % 997;

/** Makes the call and compares all that it promises. */
async function check(group: ProcessGroup, call: number, { kind, length, cuts }: Call): Promise<void> {
  const { rank, size } = group;
  const brought = (rank: number) => Float32Array.from({ length }, (_, i) => value(rank, call, i));
  const sum = Float32Array.from({ length }, (_, i) => {
    let total = 0;
    for (let other = 0; other < size; other++) total += value(other, call, i);
    return total;
  });
  const inner = cuts.slice(0, size - 1).map((cut) => Math.floor(cut * (length + 1))).sort((a, b) => a - b);
  const bounds = [0, ...inner, length];
  const data = brought(rank);
  if (kind === "barrier") await group.barrier();
  else if (kind === "allReduce") {
    await group.allReduce(data);
    assert.deepEqual(data, sum);
  } else if (kind === "reduceScatter") {
    assert.deepEqual(await group.reduceScatter(data, bounds), sum.subarray(bounds[rank], bounds[rank + 1]));
  } else if (kind === "broadcast") {
    const root = Math.floor(cuts[0] * size);
    await group.broadcast(data, root);
    assert.deepEqual(data, brought(root));
  } else {
    await group.allGather(data, bounds);
    const expected = new Float32Array(length);
    for (let other = 0; other < size; other++) {
      expected.set(brought(other).subarray(bounds[other], bounds[other + 1]), bounds[other]);
    }
    assert.deepEqual(data, expected);
  }
}

Deno.test("Any sequence of collectives, issued without waiting, gives what each gives alone", async () => {
  const call = fc.record<Call>({
    kind: fc.constantFrom("allReduce", "reduceScatter", "allGather", "broadcast", "barrier"),
    length: fc.oneof(fc.nat(40), fc.nat(3000)),
    cuts: fc.array(fc.double({ min: 0, max: 0.999, noNaN: true }), { minLength: 4, maxLength: 4 }),
  });
  const property = fc.asyncProperty(
    fc.integer({ min: 1, max: 5 }),
    fc.array(call, { minLength: 1, maxLength: 12 }),
    fc.nat(4000),
    async (size, calls, doublingBytes) => {
      const groups = (await localMesh(size)).map((links, rank) =>
        new ProcessGroup({ rank, size, links, timeoutSeconds: 20, doublingBytes })
      );
      try {
        await Promise.all(groups.flatMap((group) => calls.map((each, i) => check(group, i, each))));
        await Promise.all(groups.map((group) => group.barrier()));
      } finally {
        groups.forEach((group) => group.close());
      }
    },
  );
  await fc.assert(property, { numRuns: 40 });
});
