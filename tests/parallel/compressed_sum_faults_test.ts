/** What comes of faults in compressed sums: cut links, silent members, calls that differ. */

import assert from "node:assert/strict";
import { MachineError, UserError } from "../../errors.ts";
import { ProcessGroup } from "../../parallel/process_group.ts";
import { localMesh } from "./loopback_mesh.ts";
import { broughtBy, failures, type Play } from "./process_groups.ts";

async function groupsOf(size: number, timeoutSeconds: number) {
  const meshes = await localMesh(size);
  const groups = meshes.map((links, rank) => new ProcessGroup({ rank, size, links, timeoutSeconds }));
  return { meshes, groups };
}

const sumOf = (group: ProcessGroup, length: number, brought = group.rank) =>
  group.compressed(length, "int8").allReduce(broughtBy(brought, length));

Deno.test("A link that is cut in the midst of a compressed sum ends the group on all members, and it says so ever after", async () => {
  const { meshes, groups } = await groupsOf(4, 20);
  const link = meshes[2].get(1)!;
  let left = 200_000;
  // The group holds the map itself, so it reads from the link that is put there now.
  meshes[2].set(1, {
    peer: link.peer,
    write: (source) => link.write(source),
    close: () => link.close(),
    read(target) {
      if ((left -= target.length) < 0) link.close();
      return link.read(target);
    },
  });
  const start = performance.now();
  const errors = await failures(groups.map((group) => sumOf(group, 2_000_000)));
  assert.ok(performance.now() - start < 10_000, "The members waited for their limit");
  for (const error of errors) {
    assert.ok(error instanceof MachineError && error.restartable, error.stack);
    assert.match(
      error.message,
      /Cannot (send to|receive from) node \d \(127\.0\.0\.1:\d+\) in compressed all-reduce, /,
    );
  }
  assert.match(errors[2].message, /node 1 .* in compressed all-reduce, message \d+ of 19/);
  const later = await failures(groups.map((group) => sumOf(group, 5)));
  later.forEach((error, rank) => assert.equal(error.message, errors[rank].message));
});

Deno.test("A member that is silent in a compressed sum is named within the limit", async () => {
  const { groups } = await groupsOf(3, 0.5);
  const start = performance.now();
  const errors = await failures([0, 1].map((rank) => sumOf(groups[rank], 1000)));
  assert.ok(performance.now() - start < 3000);
  for (const error of errors) {
    assert.ok(error instanceof MachineError && error.restartable);
    assert.match(
      error.message,
      /^Cannot receive from node 2 \(.*\) in compressed all-reduce, .*: nothing moved for 0.5 s/,
    );
  }
  groups[2].close();
});

Deno.test("Members whose compressed sums differ are told so", async () => {
  const different: [string, Play][] = [
    ["formats", (group, rank) => group.compressed(700, rank === 0 ? "f16" : "bf16").allReduce(new Float32Array(700))],
    ["lengths", (group, rank) => sumOf(group, rank === 0 ? 300 : 100_000)],
    ["lengths of one block", (group, rank) => sumOf(group, 5 + rank)],
    ["compression and none", (group, rank) => rank === 0 ? sumOf(group, 700) : group.allReduce(new Float32Array(700))],
    ["collectives", (group, rank) => rank === 0 ? sumOf(group, 0) : group.barrier()],
  ];
  for (const [what, play] of different) {
    const { groups } = await groupsOf(2, 2);
    const start = performance.now();
    const errors = await failures(groups.map(play));
    assert.ok(performance.now() - start < 1500, what);
    const told = errors.filter((error) => error instanceof UserError);
    assert.ok(told.length > 0, `${what}: ${errors}`);
    assert.match(told[0].message, /must call the same collectives in the same order: here it is call 1, /);
  }
});
