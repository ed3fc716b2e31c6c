/** The multiply-add peak of a device: chains of `fma` on vec4, in enough threads to fill it. */

import type { Device } from "../gpu/device.ts";

const turns = 512;
const accumulators = 8;
const invocations = 64 * 512;

/** A subject whose `flops` a run has; nothing but arithmetic is in its loop. */
export async function multiplyAddPeak(device: Device) {
  const names = Array.from({ length: accumulators }, (_, i) => `a${i}`);
  const line = names.map((name) => `${name} = fma(${name}, b, c);`).join(" ");
  const pipeline = await device.pipeline({
    file: "bench/peak.ts",
    variant: "multiply-add peak",
    code: `@group(0) @binding(1) var<storage, read_write> result: array<f32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  let b = vec4f(0.5 + result[0]); let c = vec4f(f32(id.x % 64u));
  ${names.map((name, i) => `var ${name} = c + ${i}.0;`).join(" ")}
  for (var i = 0u; i < ${turns / 4}u; i++) { ${line} ${line} ${line} ${line} }
  let sum = ${names.join(" + ")};
  result[id.x] = sum.x + sum.y + sum.z + sum.w;
}`,
  }, 1);
  const buffer = device.createBuffer(invocations * 4);
  const uniform = device.createBuffer(256, GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST);
  const group = device.gpu.createBindGroup({
    layout: device.bindGroupLayout(1),
    entries: [{ binding: 0, resource: { buffer: uniform } }, { binding: 1, resource: { buffer } }],
  });
  const run = () => {
    const encoder = device.gpu.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(invocations / 64);
    pass.end();
    device.gpu.queue.submit([encoder.finish()]);
  };
  run();
  const destroy = () => {
    buffer.destroy();
    uniform.destroy();
  };
  return { name: "multiply-add peak", flops: invocations * turns * accumulators * 4 * 2, run, destroy };
}
