/**
 * Short experiments on a fresh device: adapters state subgroup sizes that their pipelines do not have.
 * @module
 */

import type { Device, ShaderSource } from "./device.ts";

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
