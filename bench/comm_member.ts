/**
 * A member of the all-reduce that `bench/comm.ts` times: `comm_member.ts SIZE BYTES:ROUNDS,… ALGORITHM WAY RANK`; the way is
 * `own` or `copied` memory, or a format in which numbers travel.
 */

import { type Compression, ProcessGroup } from "../mod.ts";
import { readAlgorithm } from "../parallel/algorithms.ts";
import { formats } from "../parallel/gradient_codecs.ts";
import { joinMesh } from "../tests/parallel/loopback_mesh.ts";

const [sizeText, plan, algorithm, way, rankText] = Deno.args;
const size = Number(sizeText);
const rank = Number(rankText);
const sizes = plan.split(",").map((part) => part.split(":").map(Number));
const most = Math.max(...sizes.map(([bytes]) => bytes));
const scratch = Math.ceil(ProcessGroup.scratchBytes / 65536) * 65536;
const pages = Math.ceil((scratch + most) / 65536);
const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
const group = new ProcessGroup({
  rank,
  size,
  links: await joinMesh(rank),
  timeoutSeconds: 60,
  algorithm: readAlgorithm(algorithm),
  ...(way === "copied" ? {} : { memory: { memory, scratchOffset: 0 } }),
});

for (const [bytes, rounds] of sizes) {
  const data = way === "copied" ? new Float32Array(bytes / 4) : new Float32Array(memory.buffer, scratch, bytes / 4);
  const compressed = way in formats;
  const sum = compressed ? group.compressed(data.length, way as Compression) : group;
  const times: number[] = [];
  for (let round = -2; round < rounds; round++) {
    data.fill(rank + 1);
    await group.barrier();
    const start = performance.now();
    await sum.allReduce(data);
    const slowest = new Float32Array(size);
    slowest[rank] = performance.now() - start;
    const error = Math.abs(data[data.length >> 1] / (size * (size + 1) / 2) - 1);
    if (error > (compressed ? 0.01 : 0)) throw new Error(`Wrong sum of ${bytes} bytes`);
    await group.allReduce(slowest);
    if (round >= 0) times.push(Math.max(...slowest) / 1e3);
  }
  if (rank === 0) console.log(JSON.stringify({ bytes, times }));
}
await group.barrier();
group.close();
