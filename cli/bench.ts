/** `muster bench`. */

import { bench, type KernelResult, select } from "../bench/run.ts";
import type { MeasuredCeilings } from "../bench/ceilings.ts";
import type { StepResult } from "../bench/training_step.ts";
import { UserError } from "../errors.ts";
import { openDevice } from "../gpu/open.ts";
import { listSelections, selectionsFor } from "../gpu/select.ts";
import { parseDevices } from "../train/launch.ts";
import { formatCount, formatShare } from "../train/progress.ts";
import { print, printError, printJson, terminalColumns } from "./output.ts";
import type { Options } from "./values.ts";

/** Columns of a kernel's name. */
const nameColumns = 36;

/** Three digits, or whole numbers. */
function digits(value: number): string {
  return value >= 99.95 ? formatCount(value) : value.toFixed(value >= 9.995 ? 1 : 2);
}

/** A rate in flop/s with its unit. */
function flopRate(rate: number): string {
  return rate >= 1e12 ? `${digits(rate / 1e12)} TFLOP/s` : `${digits(rate / 1e9)} GFLOP/s`;
}

/** The lines of the ceilings. */
export function ceilingLines(ceilings: MeasuredCeilings): string[] {
  const bytes = (rate: number) => `${digits(rate / 1e9)} GB/s`;
  const time = (seconds: number) => `${digits(seconds * 1e6)} µs`;
  const { f16FlopsPerSecond } = ceilings;
  const rows = [
    ["multiply-adds, f32", flopRate(ceilings.f32FlopsPerSecond)],
    ["multiply-adds, f16", f16FlopsPerSecond === null ? "not on this device" : flopRate(f16FlopsPerSecond)],
    ["memory, copy by vec4 (read + written)", bytes(ceilings.copyBytesPerSecond)],
    ["memory, read only", bytes(ceilings.readBytesPerSecond)],
    ["a dispatch, in one pass", time(ceilings.dispatchSeconds)],
    ["a submit", time(ceilings.submitSeconds)],
    ["upload", bytes(ceilings.uploadBytesPerSecond)],
    ["read-back", bytes(ceilings.readBackBytesPerSecond)],
  ];
  return ["ceilings", ...rows.map(([name, value]) => `  ${name.padEnd(nameColumns)}${value.padStart(16)}`)];
}

const kernelHeader = `${"kernel".padEnd(nameColumns + 2)}${"ms".padStart(8)}${"GFLOP/s".padStart(9)}${
  "GB/s".padStart(8)
}${"share".padStart(7)}  of`;

/** The line of a kernel: its share is of the multiply-add peak, or of a copy's bandwidth. */
export function kernelLine({ name, milliseconds, gflops, gigabytes, share, bound }: KernelResult): string {
  const numbers = `${digits(milliseconds).padStart(8)}${digits(gflops).padStart(9)}${digits(gigabytes).padStart(8)}`;
  return `  ${name.padEnd(nameColumns)}${numbers}${share.toFixed(2).padStart(7)}  ${
    bound === "arithmetic" ? "peak" : "copy"
  }`;
}

/** The lines of a training step. */
export function stepLines(step: StepResult): string[] {
  const { workload, milliseconds, tokensPerSecond, modelFlops, modelFlopsUtilization, outsideGpu, losses } = step;
  const rate = modelFlops / (milliseconds / 1e3);
  return [
    `a step of the ${workload} GPT: ${digits(milliseconds)} ms, ${formatCount(tokensPerSecond)} tokens/s`,
    `  model FLOPs ${(modelFlops / 1e9).toFixed(1)} G, ${flopRate(rate)}: ${
      formatShare(modelFlopsUtilization)
    } of the peak (MFU)`,
    `  outside GPU work ${outsideGpu === null ? "unknown: the device has no timestamps" : formatShare(outsideGpu)}`,
    `  loss ${losses[0].toFixed(4)} → ${losses[losses.length - 1].toFixed(4)} in ${losses.length} steps`,
  ];
}

function chosenDevice(options: Options) {
  const all = listSelections();
  const indices = parseDevices(String(options.devices ?? "all"), all);
  if (options.devices !== undefined && indices.length !== 1) {
    throw new UserError(`bench measures one GPU at a time, but --devices ${options.devices} names ${indices.length}`);
  }
  return selectionsFor(indices.slice(0, 1), all)[0];
}

/** The command. */
export async function benchCommand(words: readonly string[], options: Options): Promise<number> {
  const json = options.json === true;
  const selected = select(words);
  const device = await openDevice({ selection: chosenDevice(options) });
  const live = Deno.stderr.isTerminal();
  const clear = () => live && printError("\r\x1b[K");
  let begun = "";
  const say = (section: string, lines: readonly string[]) => {
    clear();
    if (json) return;
    if (begun !== "" && begun !== section) print("\n");
    if (begun !== section && section === "kernels") print(`${kernelHeader}\n`);
    begun = section;
    print(lines.map((line) => `${line}\n`).join(""));
  };
  try {
    const { name, subgroupSize } = device.capabilities;
    const subgroups = subgroupSize > 0 ? `subgroups of ${subgroupSize}` : "no subgroups";
    say("device", [`${name}, ${subgroups}, Deno ${Deno.version.deno}`]);
    const result = await bench(device, selected, {
      onProgress: (what) => live && printError(`\r\x1b[K${what.slice(0, terminalColumns() - 1)}`),
      onCeilings: (ceilings) => say("ceilings", ceilingLines(ceilings)),
      onKernel: (kernel) => say("kernels", [kernelLine(kernel)]),
      onStep: (step) => say(step.workload, stepLines(step)),
    });
    if (json) printJson({ deno: Deno.version.deno, ...result });
    return 0;
  } finally {
    clear();
    await device.destroy();
  }
}
