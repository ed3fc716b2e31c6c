/**
 * Work of one kind only, whose rate is a ceiling of the device: multiply-adds, copies, reads, dispatches that do nothing.
 * @module
 */

import { maximumWorkgroups } from "./capabilities.ts";
import type { Device, ShaderSource } from "./device.ts";

/** Work that is handed to the device again and again. */
export interface Load {
  /** What one run does: floating-point operations, bytes read and written, or dispatches. */
  readonly amount: number;
  /** Hands it to the device once, without waiting. */
  readonly run: () => void;
  /** Frees its buffers. */
  readonly destroy: () => void;
}

/** Threads of a workgroup. */
const threads = 64;

/** A kernel over buffers of these sizes in bytes, dispatched `dispatches` times a run over a grid of `grid` workgroups. */
async function makeLoad(
  device: Device,
  source: ShaderSource,
  sizes: readonly number[],
  grid: readonly [number, number],
  { amount, dispatches = 1 }: { amount: number; dispatches?: number },
): Promise<Load> {
  const pipeline = await device.pipeline(source, "b".repeat(sizes.length));
  const uniform = device.createBuffer(256, GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST);
  const buffers = sizes.map((size) => device.createBuffer(size));
  const group = device.gpu.createBindGroup({
    layout: device.bindGroupLayout("b".repeat(sizes.length)),
    entries: [uniform, ...buffers].map((buffer, binding) => ({ binding, resource: { buffer } })),
  });
  const load: Load = {
    amount,
    run() {
      const encoder = device.gpu.createCommandEncoder();
      const pass = encoder.beginComputePass();
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      for (let i = 0; i < dispatches; i++) pass.dispatchWorkgroups(...grid);
      pass.end();
      device.gpu.queue.submit([encoder.finish()]);
    },
    destroy: () => [uniform, ...buffers].forEach((buffer) => buffer.destroy()),
  };
  // Drivers compile at the first dispatch.
  load.run();
  device.drain();
  return load;
}

/** Independent sums that a thread adds to in turn. */
export interface Chains {
  readonly precision: "f32" | "f16";
  /** Elements of a vector. */
  readonly width: 1 | 2 | 4;
  readonly count: number;
  /** Multiply-adds on each between two turns of the loop. */
  readonly unrolled: number;
}

/**
 * Twelve sums a thread in three vectors: enough of them to cover the delay of a multiply-add, few enough to stay in
 * registers. On lavapipe eight vec4 spill and show 20% less, and a turn of the loop costs as much as a dozen operations.
 */
export const usualChains: Chains = { precision: "f32", width: 4, count: 3, unrolled: 16 };

/** Words that the threads write to, in turn. */
const resultWords = 2 ** 16;
const turns = 64;

/** Multiply-adds, of which each counts two operations, in `groups` workgroups of 64. */
export function multiplyAdds(device: Device, chains: Chains, groups: number): Promise<Load> {
  const { precision, width, count, unrolled } = chains;
  const type = width === 1 ? precision : `vec${width}<${precision}>`;
  const names = Array.from({ length: count }, (_, i) => `a${i}`);
  const line = names.map((name) => `${name} = fma(${name}, b, c);`).join(" ");
  const total = width === 1 ? "sum" : Array.from({ length: width }, (_, i) => `sum[${i}]`).join(" + ");
  const source: ShaderSource = {
    file: "gpu/loads.ts",
    variant: `${count} chains of ${type}`,
    code: `${
      precision === "f16" ? "enable f16;\n" : ""
    }@group(0) @binding(1) var<storage, read_write> result: array<f32>;
@compute @workgroup_size(${threads}) fn main(@builtin(global_invocation_id) id: vec3u) {
  let b = ${type}(${precision}(0.5 + result[0])); let c = ${type}(${precision}(id.x % 64u));
  ${names.map((name, i) => `var ${name} = c + ${type}(${i}.0);`).join(" ")}
  for (var i = 0u; i < ${turns}u; i++) { ${Array(unrolled).fill(line).join("\n  ")} }
  let sum = ${names.join(" + ")};
  result[id.x % ${resultWords}u] = f32(${total});
}`,
  };
  const amount = groups * threads * turns * unrolled * count * width * 2;
  return makeLoad(device, source, [resultWords * 4], [groups, 1], { amount });
}

/** A run of multiply-adds takes about this long, in seconds: short, but long beside a submit. */
const timedSeconds = 5e-3;

/** As many multiply-adds as a device with a peak of `flopsPerSecond` does in some 5 ms. */
export function timedMultiplyAdds(device: Device, chains: Chains, flopsPerSecond: number): Promise<Load> {
  const each = threads * turns * chains.unrolled * chains.count * chains.width * 2;
  const groups = Math.round(timedSeconds * flopsPerSecond / each);
  return multiplyAdds(device, chains, Math.min(maximumWorkgroups, Math.max(64, groups)));
}

/** A copy of `bytes` by vec4, of which each byte is read and written; or only reads. Some MiB at least. */
export function memoryTraffic(device: Device, kind: "copy" | "read", bytes: number): Promise<Load> {
  // On software drivers a workgroup costs as much as some of its loads, and one of a single subgroup least.
  const { type, subgroupSize } = device.capabilities;
  const [own, turns] = type === "gpu" ? [threads, 1] : [Math.max(8, subgroupSize), 64];
  const groups = Math.ceil(bytes / 16 / own / turns);
  const wide = Math.min(groups, 32768);
  const source: ShaderSource = {
    file: "gpu/loads.ts",
    variant: kind,
    // What is read is compared with what no buffer holds, so that the compiler must read it.
    code: `@group(0) @binding(1) var<storage, read_write> x: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4f>;
@compute @workgroup_size(${own}) fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) local: u32) {
  let first = (group.x + group.y * ${wide}u) * ${own * turns}u + local;
  for (var i = first; i < first + ${own * turns}u; i += ${own}u) {
    ${kind === "copy" ? "y[i] = x[i];" : "if (dot(x[i], vec4f(1.0)) == 1.2345) { y[0] = x[i]; }"}
  }
}`,
  };
  const sizes = [bytes, kind === "copy" ? bytes : 256];
  const amount = kind === "copy" ? 2 * bytes : bytes;
  return makeLoad(device, source, sizes, [wide, Math.ceil(groups / wide)], { amount });
}

/** `count` dispatches of one workgroup that adds one to a number, in one pass: each waits for the one before. */
export function tinyDispatches(device: Device, count: number): Promise<Load> {
  const source: ShaderSource = {
    file: "gpu/loads.ts",
    variant: "next to nothing",
    code: `@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@compute @workgroup_size(${threads}) fn main(@builtin(local_invocation_index) local: u32) { x[local] += 1.0; }`,
  };
  return makeLoad(device, source, [threads * 4], [1, 1], { amount: count, dispatches: count });
}
