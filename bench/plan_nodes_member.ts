/**
 * A member of the all-reduces that `bench/plan_nodes.ts` times: `plan_nodes_member.ts RANK SIZE ADDRESS PORT ALGORITHM ROUNDS
 * LANES`. A round begins at once on all members; each lane sums its buckets one after another, each when it is ready.
 * Member 0 prints the times in seconds at which each bucket had come on the last of the members, for each round. The secret is in
 * `MUSTER_SECRET`.
 */

import { ProcessGroup } from "../mod.ts";
import { Node } from "../network/node.ts";
import { readSecret } from "../network/secret.ts";
import type { LaneSum } from "../parallel/link_model.ts";
import type { CollectiveAlgorithm } from "../parallel/process_group.ts";

const [rankText, sizeText, address, port, algorithm, roundsText, plan] = Deno.args;
const lanes: LaneSum[][] = JSON.parse(plan);
const [rank, size] = [Number(rankText), Number(sizeText)];

const node = await Node.open({
  size,
  rank,
  rendezvous: `${address}:${port}`,
  secret: readSecret(undefined),
  group: "plan-nodes",
  timeoutSeconds: 60,
  peerTimeoutSeconds: 15,
});
const met = await node.meet({ description: { plan }, facts: {}, lanes: lanes.length });

/** A group of all members over links of its own, and the numbers that it sums. */
const opened = lanes.map((sums, lane) => {
  const most = Math.max(...sums.map(({ bytes }) => bytes));
  const scratch = Math.ceil(ProcessGroup.scratchBytes / 65536) * 65536;
  const pages = Math.ceil((scratch + most) / 65536);
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  const group = new ProcessGroup({
    rank,
    size,
    links: met.lanes[lane],
    timeoutSeconds: 60,
    algorithm: algorithm as CollectiveAlgorithm,
    memory: { memory, scratchOffset: 0 },
  });
  return { group, data: new Float32Array(memory.buffer, scratch, most / 4) };
});
const [{ group: first }] = opened;
const count = lanes.flat().length;

for (let round = -1; round < Number(roundsText); round++) {
  await first.barrier();
  const start = performance.now();
  const ends = await Promise.all(opened.map(async ({ group, data }, lane) => {
    const times: number[] = [];
    for (const { ready, bytes } of lanes[lane]) {
      const wait = 1e3 * ready - (performance.now() - start);
      if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
      const bucket = data.subarray(0, bytes / 4).fill(rank + 1);
      await group.allReduce(bucket);
      times.push((performance.now() - start) / 1e3);
      if (bucket[bucket.length >> 1] !== size * (size + 1) / 2) throw new Error(`Wrong sum of ${bytes} bytes`);
    }
    return times;
  }));
  const all = new Float32Array(size * count);
  all.set(ends.flat(), rank * count);
  await first.allReduce(all);
  const last = Array.from(
    { length: count },
    (_, i) => Math.max(...Array.from({ length: size }, (_, member) => all[member * count + i])),
  );
  if (rank === 0 && round >= 0) console.log(JSON.stringify(last));
}
await first.barrier();
for (const { group } of opened) group.close();
await node.close();
