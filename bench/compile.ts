/**
 * How long the kernels of models take to compile, without what drivers keep on the disk.
 * `deno task bench:compile [--json]`
 */

import process from "node:process";
import type { Capabilities } from "../gpu/capabilities.ts";
import type { Device } from "../gpu/device.ts";
import { openDevice } from "../gpu/open.ts";
import { distinctKernels } from "../graph/compile.ts";
import { bindingsOf } from "../graph/images.ts";
import { makePlan } from "../graph/plan.ts";
import { modelConfiguration } from "../model/configuration.ts";
import { buildModelGraph } from "../train/model_graph.ts";
import { workloads } from "./workloads.ts";

/** Time of one kernel: of the processor, since others may share it. */
export interface CompileTime {
  readonly model: string;
  readonly kernel: string;
  readonly milliseconds: number;
  /** Of the reference, which is compiled five times along the way: the median. */
  readonly ratio: number;
}

/** Models that between them use the kernels of training and of generating. */
export const compiledModels = {
  ...workloads,
  llama: {
    configuration: modelConfiguration({
      family: "llama",
      vocabularySize: 32000,
      layers: 2,
      heads: 8,
      width: 512,
      maximumSequenceLength: 512,
    }),
    batch: 1,
    sequenceLength: 512,
  },
};

/** Has the driver compile anew what it has compiled for other runs: before the first device is opened. */
export function withoutDriverCache(): void {
  Deno.env.set("MESA_SHADER_CACHE_DISABLE", "true");
}

/** What this process has computed so far, in ms; drivers compile in one thread. */
function processorTime(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e3;
}

let references = 0;
/** Compiles 32 loads of vec4, a text that has not been compiled before, and returns the time in ms. */
async function reference(device: Device): Promise<number> {
  const loads = Array.from(
    { length: 32 },
    (_, i) => `sum += data[(${i}u * p.x + ${references * 32 + i}u * p.y) % 64u];`,
  );
  references++;
  const code = `@group(0) @binding(0) var<uniform> p: vec4u;
@group(0) @binding(1) var<storage, read_write> data: array<vec4f>;
@compute @workgroup_size(8) fn main() { var sum = vec4f(); ${loads.join(" ")} data[0] = sum; }`;
  const start = processorTime();
  await device.pipeline({ file: "bench/compile.ts", variant: "reference", code }, "b");
  return processorTime() - start;
}

/** Compiles every kernel of the models, those that are alike once. */
export async function compileTimes(device: Device, overrides: Partial<Capabilities> = {}): Promise<CompileTime[]> {
  const times: Omit<CompileTime, "ratio">[] = [];
  const measured: number[] = [];
  const seen = new Set<string>();
  for (const [model, { configuration, batch, sequenceLength }] of Object.entries(compiledModels)) {
    const segments = ["train", "evaluate", "decode"] as const;
    for (const segment of segments) {
      const rows = segment === "decode"
        ? { batch: 1, sequenceLength: 1, blockRows: [1, 16, 64] }
        : { batch, sequenceLength };
      const { graph } = buildModelGraph({ configuration, ...rows, segments: [segment] });
      const plan = makePlan(graph, { ...device.capabilities, ...overrides });
      for (const dispatch of distinctKernels(plan)) {
        const { kernel } = dispatch;
        if (seen.has(kernel.code)) continue;
        seen.add(kernel.code);
        const start = processorTime();
        await device.pipeline(kernel, bindingsOf(dispatch));
        const milliseconds = processorTime() - start;
        if (measured.length < 5) measured.push(await reference(device));
        times.push({ model, kernel: `${kernel.file} ${kernel.variant}`.trim(), milliseconds });
      }
    }
  }
  const unit = measured.toSorted((a, b) => a - b)[2];
  return times.map((time) => ({ ...time, ratio: time.milliseconds / unit }));
}

if (import.meta.main) {
  withoutDriverCache();
  const device = await openDevice();
  const families = {
    "of this device": {},
    "of GPUs": { type: "gpu" as const },
    "without subgroups": { subgroupSize: 0 },
  };
  const results: Record<string, CompileTime[]> = {};
  for (const [family, overrides] of Object.entries(families)) results[family] = await compileTimes(device, overrides);
  if (Deno.args.includes("--json")) {
    console.log(JSON.stringify({ device: device.capabilities.name, deno: Deno.version.deno, results }));
  } else {
    console.log(`${device.capabilities.name}, Deno ${Deno.version.deno}`);
    for (const [family, times] of Object.entries(results)) {
      const total = times.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
      console.log(`\nkernels ${family}: ${times.length} in ${(total / 1e3).toFixed(1)} s; the slowest, in ms`);
      for (
        const { kernel, milliseconds, ratio } of times.toSorted((a, b) => b.milliseconds - a.milliseconds).slice(0, 8)
      ) {
        console.log(`${milliseconds.toFixed(0).padStart(6)}  ${ratio.toFixed(1).padStart(5)}  ${kernel}`);
      }
      for (const model of Object.keys(compiledModels)) {
        const own = times.filter((time) => time.model === model);
        console.log(
          `${model} (what it has first): ${own.length} in ${
            (own.reduce((s, t) => s + t.milliseconds, 0) / 1e3).toFixed(1)
          } s`,
        );
      }
    }
  }
  await device.destroy();
}
