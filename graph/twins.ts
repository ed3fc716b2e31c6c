/**
 * Kernels compiled twice, of which the faster is kept.
 *
 * On lavapipe one kernel in some 15 runs 1.3 to 3.5 times slower as long as the process lives, another one each time, with the same
 * text, driver and data: its machine code has come to lie where parts of a loop drive each other out of the CPU's cache of
 * instructions. The same code elsewhere is fast, and the driver takes it from its own cache on disk.
 * @module
 */

import type { Device } from "../gpu/device.ts";

/** Kernels that take less than this in a segment, in ms, are left alone: a twin costs some 20. */
const worthwhile = 1;
/** A twin counts as faster only below this share of the time: measured times vary. */
const faster = 0.8;
/** Where compiling again takes longer, in ms, the driver does not keep what it has compiled. */
const patience = 200;

/** Pipelines whose twins are tried, and the ms that their dispatches took. */
export type Trial = ReadonlyMap<GPUComputePipeline, { readonly twin: GPUComputePipeline; readonly before: number }>;

/** Stretches of pieces that were timed, in ms. */
type Pieces = readonly { readonly pieces: readonly { pipeline: GPUComputePipeline; milliseconds: number }[] }[];

/** A segment, and the trial that was under way when it was timed. */
interface Weighed {
  readonly stretches: Pieces;
  readonly trial?: Trial;
}

/** Time of the dispatches of each pipeline, in ms. */
function timesOf(stretches: Pieces): Map<GPUComputePipeline, number> {
  const times = new Map<GPUComputePipeline, number>();
  for (const { pieces } of stretches) {
    for (const { pipeline, milliseconds } of pieces) times.set(pipeline, (times.get(pipeline) ?? 0) + milliseconds);
  }
  return times;
}

/**
 * Has a segment whose pieces were timed run and be timed once more with twins of the kernels that take long (the trial
 * that is returned); if that was done, with the faster of the two from then on. Software drivers only.
 */
export function weighTwins(device: Device, { stretches, trial }: Weighed): Trial | undefined {
  if (!trial) return tryTwins(device, stretches);
  keepFaster(stretches, trial);
  return undefined;
}

function tryTwins(device: Device, stretches: Pieces): Trial | undefined {
  if (device.capabilities.type === "gpu") return undefined;
  const trial = new Map<GPUComputePipeline, { twin: GPUComputePipeline; before: number }>();
  for (const [pipeline, before] of timesOf(stretches)) {
    if (before < worthwhile) continue;
    const start = performance.now();
    const twin = device.twin(pipeline);
    if (performance.now() - start > patience) break;
    trial.set(pipeline, { twin, before });
  }
  if (trial.size === 0) return undefined;
  for (const { pieces } of stretches) {
    for (const piece of pieces) piece.pipeline = trial.get(piece.pipeline)?.twin ?? piece.pipeline;
  }
  return trial;
}

/** Returns to the first of two kernels wherever the second was not clearly faster. */
function keepFaster(stretches: Pieces, trial: Trial): void {
  const times = timesOf(stretches);
  const firsts = new Map([...trial].map(([pipeline, { twin, before }]) => [twin, { pipeline, before }]));
  for (const { pieces } of stretches) {
    for (const piece of pieces) {
      const first = firsts.get(piece.pipeline);
      if (!first) continue;
      const ratio = times.get(piece.pipeline)! / first.before;
      if (ratio < faster) continue;
      piece.pipeline = first.pipeline;
      piece.milliseconds /= ratio;
    }
  }
}
