/** What comes of faults in process groups: cut links, silent, killed and stopped members, calls that differ. */

import assert from "node:assert/strict";
import { MachineError, UserError } from "../../errors.ts";
import type { Link } from "../../network/link.ts";
import { ProcessGroup } from "../../parallel/process_group.ts";
import { localMesh, startMesh } from "./loopback_mesh.ts";
import { broughtBy, failures, type Play, together } from "./process_groups.ts";

/** A link that is cut after so many bytes have been read. */
function cutAfter(link: Link, bytes: number): Link {
  let left = bytes;
  return {
    peer: link.peer,
    write: (source) => link.write(source),
    close: () => link.close(),
    read(target) {
      if ((left -= target.length) < 0) link.close();
      return link.read(target);
    },
  };
}

Deno.test("A link that is cut in mid-transfer ends the group on all members, and it says so ever after", async () => {
  for (const algorithm of ["ring", "halving", "doubling"] as const) {
    const size = 4;
    const meshes = await localMesh(size);
    // Member 2 reads from member 1 around the ring, from member 3 in the first exchange.
    const neighbour = algorithm === "ring" ? 1 : 3;
    meshes[2].set(neighbour, cutAfter(meshes[2].get(neighbour)!, 1_500_000));
    const groups = meshes.map((links, rank) => new ProcessGroup({ rank, size, links, timeoutSeconds: 20, algorithm }));
    const start = performance.now();
    const errors = await failures(groups.map((group, rank) => group.allReduce(broughtBy(rank, 1_000_000))));
    assert.ok(performance.now() - start < 10_000, "The members waited for their limit");
    for (const error of errors) {
      assert.ok(error instanceof MachineError && error.restartable, error.stack);
      assert.match(error.message, /Cannot (send to|receive from) node \d \(127\.0\.0\.1:\d+\) in all-reduce, /);
    }
    assert.match(
      errors[2].message,
      new RegExp(`node ${neighbour} .* in all-reduce, (reduce-scatter|doubling|exchange)`),
    );
    const later = await failures(groups.map((group) => group.barrier()));
    later.forEach((error, rank) => assert.equal(error.message, errors[rank].message));
  }
});

Deno.test("A member that is silent is named within the limit, with the collective and its phase", async () => {
  const size = 3;
  for (const [algorithm, length] of [["ring", 3_000_000], ["doubling", 10]] as const) {
    const meshes = await localMesh(size);
    const groups = meshes.map((links, rank) => new ProcessGroup({ rank, size, links, timeoutSeconds: 0.5, algorithm }));
    const start = performance.now();
    const errors = await failures([0, 1].map((rank) => groups[rank].allReduce(broughtBy(rank, length))));
    assert.ok(performance.now() - start < 3000);
    assert.ok(errors.every((error) => error instanceof MachineError && error.restartable));
    const expected = algorithm === "ring"
      ? /^Cannot receive from node 2 \(.*\) in all-reduce, negotiation: nothing moved for 0.5 s/
      : /^Cannot receive from node 2 \(.*\) in all-reduce, folding in: nothing moved for 0.5 s/;
    assert.match(errors[0].message, expected);
    groups[2].close();
  }
});

Deno.test("A thread that is kept busy for longer than the limit does not take its peers for silent", async () => {
  await together(2, async (group, rank) => {
    const data = broughtBy(rank, 1_000_000);
    const call = group.allReduce(data);
    if (rank === 1) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      for (const end = performance.now() + 600; performance.now() < end;);
    }
    await call;
    await group.barrier();
  }, { timeoutSeconds: 0.3 });
});

Deno.test("Processes notice that one of them is killed or stopped in the midst of an all-reduce", async () => {
  const module = new URL("process_group_member.ts", import.meta.url).href;
  for (const signal of ["SIGKILL", "SIGSTOP"] as const) {
    const members = await startMesh(3, module, ["3", "500000", "endless", "2"]);
    await Promise.all(members.map(({ begun }) => begun));
    members[1].child.kill(signal);
    const start = performance.now();
    const outputs = await Promise.all([members[0].output, members[2].output]);
    assert.ok(performance.now() - start < 2000 + 5000);
    for (const output of outputs) {
      const lines = output.trim().split("\n");
      assert.equal(lines[0], "round");
      const { restartable, message } = JSON.parse(lines[lines.length - 1]);
      assert.ok(restartable);
      assert.match(message, /node \d .* in all-reduce, .*The process group has ended/);
    }
    if (signal === "SIGSTOP") members[1].child.kill("SIGKILL");
    await Promise.all(members.map(({ child, output }) => Promise.all([child.status, output])));
  }
});

Deno.test("Members that call different things are told so", async () => {
  const different: [string, Play][] = [
    ["lengths by doubling", (group, rank) => group.allReduce(new Float32Array(rank === 1 ? 5 : 4))],
    ["lengths around the ring", (group, rank) => group.allReduce(new Float32Array(rank === 1 ? 1_000_003 : 1_000_000))],
    ["roots", (group, rank) => group.broadcast(new Float32Array(3), rank === 0 ? 1 : 0)],
    ["bounds", (group, rank) => group.allGather(new Float32Array(9), [0, rank, 9])],
    ["collectives", (group, rank) => rank === 0 ? group.barrier() : group.allReduce(new Float32Array(0))],
  ];
  for (const [what, play] of different) {
    const size = 2;
    const meshes = await localMesh(size);
    const groups = meshes.map((links, rank) => new ProcessGroup({ rank, size, links, timeoutSeconds: 2 }));
    const start = performance.now();
    const errors = await failures(groups.map(play));
    // Two that both want to give wait for each other's numbers, which the limit ends.
    if (what === "roots") continue;
    assert.ok(performance.now() - start < 1500, what);
    const told = errors.filter((error) => error instanceof UserError);
    assert.ok(told.length > 0, `${what}: ${errors}`);
    assert.match(told[0].message, /must call the same collectives in the same order: here it is call 1, /);
  }
});
