/**
 * A member of the all-reduces that `bench/plan_nodes.ts` times:
 * `plan_nodes_member.ts RANK SIZE RENDEZVOUS ALGORITHM BYTES:ROUNDS,…`. The secret is in `MUSTER_SECRET`.
 */

import { ProcessGroup } from "../mod.ts";
import { meet } from "../network/rendezvous.ts";
import { readSecret } from "../network/secret.ts";
import type { CollectiveAlgorithm } from "../parallel/process_group.ts";

const [rankText, sizeText, rendezvous, algorithm, plan] = Deno.args;
const sizes = plan.split(",").map((part) => part.split(":").map(Number));
const scratch = Math.ceil(ProcessGroup.scratchBytes / 65536) * 65536;
const pages = Math.ceil((scratch + Math.max(...sizes.map(([bytes]) => bytes))) / 65536);
const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
const meeting = await meet({
  size: Number(sizeText),
  rank: Number(rankText),
  rendezvous,
  secret: readSecret(undefined),
  group: "plan-nodes",
  description: { plan },
  timeoutSeconds: 60,
});
const { rank, size } = meeting;
const group = new ProcessGroup({
  ...meeting,
  timeoutSeconds: 60,
  algorithm: algorithm as CollectiveAlgorithm,
  memory: { memory, scratchOffset: 0 },
});

for (const [bytes, rounds] of sizes) {
  const data = new Float32Array(memory.buffer, scratch, bytes / 4);
  const seconds: number[] = [];
  for (let round = -1; round < rounds; round++) {
    data.fill(rank + 1);
    await group.barrier();
    const start = performance.now();
    await group.allReduce(data);
    const slowest = new Float32Array(size);
    slowest[rank] = (performance.now() - start) / 1e3;
    if (data[data.length >> 1] !== size * (size + 1) / 2) throw new Error(`Wrong sum of ${bytes} bytes`);
    await group.allReduce(slowest);
    if (round >= 0) seconds.push(Math.max(...slowest));
  }
  if (rank === 0) console.log(JSON.stringify({ bytes, seconds }));
}
await group.barrier();
group.close();
