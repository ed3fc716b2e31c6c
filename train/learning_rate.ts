/**
 * Learning-rate schedules.
 * @module
 */

/** The schedules. */
export const schedules = ["constant", "linear", "cosine", "wsd"] as const;

/** What a schedule depends on. */
export interface LearningRateOptions {
  readonly learningRate: number;
  readonly minLearningRate: number;
  /** Steps of linear warm-up. */
  readonly warmupSteps: number;
  readonly lrSchedule: (typeof schedules)[number];
  /** Steps in all. */
  readonly steps: number;
}

/** Share of the steps in which `wsd` decays. */
const decayShare = 0.2;

/**
 * The learning rate of step `step`, which counts from 1.
 *
 * Warm-up: `peak * step / warmup`. Then, with progress p from 0 behind the warm-up to 1 at the last step: `constant`, peak;
 * `linear`, peak - (peak - min) p; `cosine` (Loshchilov and Hutter, SGDR, 2017), min + (peak - min) (1 + cos πp) / 2;
 * `wsd` (warm-up, stable, decay: Hu et al., MiniCPM, 2024), peak until the last fifth, then linear to min.
 */
export function learningRateAt(step: number, options: LearningRateOptions): number {
  const { learningRate: peak, minLearningRate: least, warmupSteps, lrSchedule, steps } = options;
  if (step <= warmupSteps) return peak * step / warmupSteps;
  const progress = Math.min(1, (step - warmupSteps) / Math.max(1, steps - warmupSteps));
  switch (lrSchedule) {
    case "constant":
      return peak;
    case "linear":
      return peak - (peak - least) * progress;
    case "cosine":
      return least + (peak - least) * (1 + Math.cos(Math.PI * progress)) / 2;
    case "wsd":
      return peak - (peak - least) * Math.max(0, (progress - (1 - decayShare)) / decayShare);
  }
}
