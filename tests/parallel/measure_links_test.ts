import assert from "node:assert/strict";
import { pause } from "../../network/deadline.ts";
import type { Link } from "../../network/link.ts";
import { measureLinks } from "../../parallel/measure_links.ts";
import { slowLinks } from "../../parallel/slow_links.ts";
import { localMesh } from "./loopback_mesh.ts";

/** A link on which a write takes so many seconds more, and so many for each byte. */
function slowed(link: Link, seconds: number, secondsPerByte: number): Link {
  return {
    peer: link.peer,
    write: async (source) => {
      // What is late arrives late: the wait is before the bytes.
      if (source.length > 0) await pause(1000 * (seconds + source.length * secondsPerByte));
      await link.write(source);
    },
    read: (target) => link.read(target),
    close: () => link.close(),
  };
}

Deno.test("measureLinks() measures a slow link's bandwidth and latency truly, and all members have the same figures", async () => {
  const meshes = await localMesh(3);
  for (const [from, to] of [[1, 2], [2, 1]]) {
    // 20 MB/s one way and 40 MB/s the other.
    meshes[from].set(to, slowed(meshes[from].get(to)!, 0.005, from === 1 ? 1 / 20e6 : 1 / 40e6));
  }
  const told: string[] = [];
  const all = await Promise.all(meshes.map((links, rank) =>
    measureLinks({
      rank,
      size: 3,
      links,
      timeoutSeconds: 20,
      sizes: [4096, 2 ** 20],
      progress: rank === 0 ? (what) => told.push(what) : undefined,
    })
  ));
  assert.deepEqual(all[1].links, all[0].links);
  assert.deepEqual(all[2], all[0]);
  const { links, allReduces } = all[0];
  assert.deepEqual(links.map(({ between }) => between), [[0, 1], [0, 2], [1, 2]]);
  const slow = links[2];
  assert.ok(slow.microseconds >= 5000 && slow.microseconds < 10_000, `${slow.microseconds} µs`);
  const [forth, back] = slow.gigabytesPerSecond;
  assert.ok(forth > 0.014 && forth < 0.023, `${forth} GB/s forth`);
  assert.ok(back > 0.028 && back < 0.046, `${back} GB/s back`);
  for (const link of links.slice(0, 2)) {
    assert.ok(link.microseconds < 5000, `${link.microseconds} µs`);
    assert.ok(Math.min(...link.gigabytesPerSecond) > 0.1, `${link.gigabytesPerSecond} GB/s`);
  }
  assert.deepEqual(allReduces.map(({ bytes }) => bytes), [4096, 2 ** 20]);
  for (const { bytes, microseconds, gigabytesPerSecond } of allReduces) {
    const expected = 4 / 3 * bytes / microseconds / 1e3;
    assert.ok(Math.abs(gigabytesPerSecond / expected - 1) < 0.01);
  }
  // Around the ring 4/3 of the data go over the slow link; the small one goes by others.
  const [small, large] = allReduces.map(({ microseconds }) => microseconds);
  assert.ok(large > 60_000 && small < 5000, `${small} and ${large} µs`);
  // Where the machine is busy, other links may be slow as well.
  const warnings = slowLinks(links, ["a", "b", "c"]);
  assert.ok(warnings.some((warning) => /^b – c is slow: 0\.0\d+ GB\/s, /.test(warning)), warnings.join("; "));
  assert.equal(told.length, 5);
});

Deno.test("measureLinks() ends on all members when one is cut off or falls silent, and names it", async () => {
  for (const fault of ["cut", "silent"]) {
    const meshes = await localMesh(3);
    // Member 2 does not take part; links to it stay open until it is cut.
    const measuring = Promise.allSettled(
      [0, 1].map((rank) => measureLinks({ rank, size: 3, links: meshes[rank], timeoutSeconds: 1, sizes: [4096] })),
    );
    if (fault === "cut") { for (const link of meshes[2].values()) link.close(); }
    const start = performance.now();
    const outcomes = await measuring;
    assert.ok(performance.now() - start < 5000);
    const reasons = outcomes.map((one) => one.status === "rejected" ? String(one.reason) : "measured");
    assert.match(reasons[0], /^MachineError: Cannot (send to|receive from) node 2 /);
    assert.match(reasons[1], /^MachineError: Cannot (send to|receive from) node \d /);
    for (const link of meshes[2].values()) link.close();
  }
});

Deno.test("measureLinks() refuses a single member and sizes that f32 cannot have", async () => {
  const links = new Map<number, Link>();
  await assert.rejects(measureLinks({ rank: 0, size: 1, links, timeoutSeconds: 1 }), /at least 2 members/);
  for (const bytes of [6, 0, -4, 2 ** 31 + 4, NaN]) {
    await assert.rejects(
      measureLinks({ rank: 0, size: 2, links, timeoutSeconds: 1, sizes: [bytes] }),
      /Cannot all-reduce/,
    );
  }
});
