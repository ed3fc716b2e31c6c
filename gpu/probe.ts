/**
 * Short experiments on a fresh device: adapters state subgroup sizes that their pipelines do not have, and rates that
 * nobody states at all.
 * @module
 */

import type { Device, ShaderSource } from "./device.ts";

/** Runs a kernel with one storage buffer of `words` u32 and returns the buffer. */
async function runProbe(device: Device, source: ShaderSource, words: number, groups: number): Promise<Uint32Array> {
  const pipeline = await device.pipeline(source, 1);
  const buffer = device.createBuffer(words * 4);
  const uniform = device.createBuffer(256, GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST);
  const group = device.gpu.createBindGroup({
    layout: device.bindGroupLayout(1),
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

/** Multiply-add rate in flop/s, from one kernel of a few milliseconds: the scale for first guesses, not a benchmark. */
export async function measureFlops(device: Device): Promise<number> {
  const turns = 64;
  const lines = Array.from({ length: 8 }, (_, i) => `a${i} = fma(a${i}, b, c);`).join(" ");
  const source: ShaderSource = {
    file: "gpu/probe.ts",
    variant: "multiply-add rate",
    code: `@group(0) @binding(1) var<storage, read_write> result: array<f32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  let b = vec4f(0.5 + result[0]); let c = vec4f(f32(id.x));
  ${Array.from({ length: 8 }, (_, i) => `var a${i} = c + ${i}.0;`).join(" ")}
  for (var i = 0u; i < ${turns}u; i++) { ${lines} ${lines} ${lines} ${lines} }
  let sum = a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7;
  result[id.x] = sum.x + sum.y + sum.z + sum.w;
}`,
  };
  await runProbe(device, source, 64, 1);
  let rate = 0;
  for (let groups = 64; groups <= 65535; groups *= 4) {
    const start = performance.now();
    await runProbe(device, source, groups * 64, groups);
    const milliseconds = performance.now() - start;
    rate = groups * 64 * turns * 4 * 8 * 4 * 2 / (milliseconds / 1e3);
    if (milliseconds > 5) break;
  }
  return rate;
}
