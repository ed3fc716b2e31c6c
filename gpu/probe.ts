/**
 * Short experiments on a fresh device: adapters state subgroup sizes that their pipelines do not have, and rates that
 * nobody states at all.
 * @module
 */

import { maximumWorkgroups } from "./capabilities.ts";
import type { Device, ShaderSource } from "./device.ts";
import { multiplyAdds, usualChains } from "./loads.ts";

/** Runs a kernel with one storage buffer of `words` u32 and returns the buffer. */
async function runProbe(device: Device, source: ShaderSource, words: number, groups: number): Promise<Uint32Array> {
  const pipeline = await device.pipeline(source, "b");
  const buffer = device.createBuffer(words * 4);
  const uniform = device.createBuffer(256, GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST);
  const group = device.gpu.createBindGroup({
    layout: device.bindGroupLayout("b"),
    entries: [{ binding: 0, resource: { buffer: uniform, size: 256 } }, { binding: 1, resource: { buffer } }],
  });
  const encoder = device.gpu.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, group);
  pass.dispatchWorkgroups(groups);
  pass.end();
  device.gpu.queue.submit([encoder.finish()]);
  const result = new Uint32Array(words);
  await device.readBack(buffer, 0, result);
  buffer.destroy();
  uniform.destroy();
  return result;
}

const subgroupWords = 64 * 4;

function subgroupSource(workgroupSize: number): ShaderSource {
  return {
    file: "gpu/probe.ts",
    variant: `subgroups of a workgroup of ${workgroupSize}`,
    code: `@group(0) @binding(1) var<storage, read_write> result: array<u32>;
@compute @workgroup_size(${workgroupSize}) fn main(@builtin(local_invocation_index) local: u32,
  @builtin(subgroup_size) size: u32, @builtin(subgroup_invocation_id) lane: u32) {
  let ballot = countOneBits(subgroupBallot(true));
  result[local * 4u] = size;
  result[local * 4u + 1u] = ballot.x + ballot.y + ballot.z + ballot.w;
  result[local * 4u + 2u] = lane;
  result[local * 4u + 3u] = subgroupBroadcast(local, 0u) + lane - local;
}`,
  };
}

/**
 * Lanes of a subgroup, counted by ballots in two pipelines; 0 unless every full subgroup of both has the stated size
 * and consecutive lanes. A kernel that assumes a wrong size computes wrong numbers without any error.
 */
export async function measureSubgroupSize(device: Device): Promise<number> {
  let size = 0;
  for (const workgroupSize of [64, 32]) {
    let words: Uint32Array;
    try {
      words = await runProbe(device, subgroupSource(workgroupSize), subgroupWords, 1);
    } catch {
      return 0;
    }
    for (let i = 0; i < workgroupSize; i++) {
      const [stated, counted, lane, shift] = words.subarray(i * 4, i * 4 + 4);
      if (size === 0) size = Math.min(stated, workgroupSize);
      if (Math.min(stated, workgroupSize) !== Math.min(size, workgroupSize)) return 0;
      if (counted !== Math.min(stated, workgroupSize) || lane !== i % stated || shift !== 0) return 0;
    }
  }
  return size;
}

/** A run that takes at least this long, in ms, is long enough to time. */
const enoughMilliseconds = 3;
const peakRounds = 3;

/**
 * Multiply-add rate in flop/s: the best of a few runs of a few milliseconds. It is the peak that shares and utilisation are of,
 * and the scale of first guesses.
 */
export async function measureFlops(device: Device): Promise<number> {
  let best = 0;
  for (let groups = 64; groups <= maximumWorkgroups; groups *= 4) {
    const load = await multiplyAdds(device, usualChains, groups);
    const time = () => {
      device.drain();
      const start = performance.now();
      load.run();
      device.drain();
      const milliseconds = performance.now() - start;
      best = Math.max(best, load.amount / (milliseconds / 1e3));
      return milliseconds;
    };
    const enough = time() > enoughMilliseconds;
    for (let round = 1; enough && round < peakRounds; round++) time();
    load.destroy();
    if (enough) break;
  }
  return best;
}
