/**
 * Model FLOPs: what training a token takes by the model's formulas alone, whatever the kernels do besides or leave out.
 * @module
 */

import { type ModelConfiguration, parameterCount } from "./configuration.ts";

/**
 * Floating-point operations of forward and backward for a token: 6 N + 12 L H Q T (Chowdhery et al., "PaLM", 2022, appendix B).
 * N are the parameters that are multiplied with: tables that are only looked up (positions, and the token table where it is not
 * the output projection too) do not count. Attention counts in full, as if it were not causal, and what is computed
 * again (`--recompute`) does not, as in nearly all figures that are published.
 */
export function modelFlopsPerToken(configuration: ModelConfiguration, sequenceLength: number): number {
  const { family, layers, heads, headSize, width, vocabularySize, maximumSequenceLength, tied } = configuration;
  const positions = family === "gpt2" ? maximumSequenceLength : 0;
  const lookedUp = (positions + (tied ? 0 : vocabularySize)) * width;
  return 6 * (parameterCount(configuration) - lookedUp) + 12 * layers * heads * headSize * sequenceLength;
}

/** Share of `peak` flop/s that a step makes use of: its model FLOPs over what the devices could do in the time. */
export function modelFlopsUtilization(
  configuration: ModelConfiguration,
  step: { readonly sequenceLength: number; readonly tokens: number; readonly milliseconds: number },
  peak: number,
): number {
  const { sequenceLength, tokens, milliseconds } = step;
  return modelFlopsPerToken(configuration, sequenceLength) * tokens / (milliseconds / 1e3) / peak;
}
