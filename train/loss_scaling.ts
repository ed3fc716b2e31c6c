/**
 * Loss scaling (Micikevicius et al., "Mixed Precision Training", 2018): gradients that f16 would round to zero are kept by
 * multiplying the loss. Where a gradient overflows, the step is skipped.
 * @module
 */

import type { NamedTensor } from "../data/safetensors.ts";
import { UserError } from "../errors.ts";
import type { Precision } from "../graph/tensor.ts";

/** The first scale, and the good steps behind which it is doubled: those of PyTorch's GradScaler. */
const [firstScale, growthSteps] = [65536, 2000];
const largestScale = 2 ** 24;
/** A run that skips so many steps in a row is given up. */
const mostInARow = 20;

/** The scale of `--loss-scale`; undefined if it is dynamic. `UserError` if it is none. */
export function fixedScale(lossScale: string): number | undefined {
  if (lossScale === "dynamic") return undefined;
  const scale = Number(lossScale);
  if (scale >= 1 && scale <= largestScale) return scale;
  throw new UserError(`--loss-scale ${lossScale} is neither dynamic nor a number from 1 to ${largestScale}`);
}

/** The scale of the loss from step to step; ranks that see the same norms have the same. */
export class LossScaler {
  readonly #fixed: number | undefined;
  #scale: number;
  #goodSteps = 0;
  #skipped = 0;
  #inARow = 0;

  /** @param saved what `state` was */
  constructor(lossScale: string, saved?: ArrayLike<number>) {
    this.#fixed = fixedScale(lossScale);
    this.#scale = this.#fixed ?? saved?.[0] ?? firstScale;
    if (saved) [this.#goodSteps, this.#skipped] = [saved[1], saved[2]];
  }

  /** What the loss of the next step is multiplied by. */
  get scale(): number {
    return this.#scale;
  }

  /** Steps that were skipped so far. */
  get skipped(): number {
    return this.#skipped;
  }

  /** Scale, good steps since it changed, steps skipped: what a run goes on from. */
  get state(): number[] {
    return [this.#scale, this.#goodSteps, this.#skipped];
  }

  /** Notes a step whose gradients were finite. */
  good(): void {
    this.#inARow = 0;
    if (++this.#goodSteps < growthSteps) return;
    this.#goodSteps = 0;
    this.#rescale(2);
  }

  /** Notes a step whose gradients were not, which is skipped; false if skipping does not help. */
  overflowed(): boolean {
    this.#goodSteps = 0;
    this.#skipped++;
    this.#rescale(1 / 2);
    return ++this.#inARow < mostInARow;
  }

  #rescale(factor: number): void {
    if (this.#fixed === undefined) this.#scale = Math.min(largestScale, this.#scale * factor);
  }
}

/** Name of the tensor f32 [3] in which a checkpoint has the state of the scaler, beside the optimizer's. */
export const scalingName = "loss_scaling";

/** That tensor as it is at first, for runs that have one. */
export function scalingTensors(
  { precision, lossScale }: { readonly precision: Precision; readonly lossScale: string },
): NamedTensor[] {
  if (precision !== "f16") return [];
  const data = new Float32Array(new SharedArrayBuffer(12));
  data.set(new LossScaler(lossScale).state);
  return [{ name: scalingName, shape: [3], data }];
}
