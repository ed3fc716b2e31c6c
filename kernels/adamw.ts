/**
 * AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019), as torch.optim.AdamW computes it, over
 * flat banks of parameters; with the clipping of the global gradient norm folded in:
 *
 * g *= scale min(1, clip / (norm scale + 1e-6)); p *= 1 - lr decay; m = β1 m + (1 - β1) g; v = β2 v + (1 - β2) g²;
 * p -= lr / (1 - β1ᵗ) m / (√v / √(1 - β2ᵗ) + ε); then g = 0, ready for the next step's sums.
 *
 * If the norm is not finite, only gradients are zeroed: the step is skipped. `scale` undoes what the loss was
 * multiplied by. 32 bytes an element, and 2 more for a copy of the weights in half precision.
 * @module
 */

import type { OpDefinition } from "../graph/graph.ts";
import { bytesOf, type DataType, elementCount } from "../graph/tensor.ts";
import text from "./adamw.wgsl" with { type: "text" };
import { elementwiseRuns, type Run } from "./elementwise.ts";
import { withTag } from "./unroll.ts";

/** Places in the tensor of hyper-parameters, f32 [16]. */
export const hyperSlots = {
  learningRate: 0,
  beta1: 1,
  beta2: 2,
  epsilon: 3,
  weightDecay: 4,
  correction1: 5,
  correction2: 6,
  clip: 7,
  oneMinusBeta1: 8,
  oneMinusBeta2: 9,
  gradientScale: 10,
} as const;

/** What the optimizer is told for one step. */
export interface AdamWStep {
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  readonly weightDecay: number;
  /** Largest global gradient norm; 0 for no clipping. */
  readonly clip: number;
  /** Counts from 1: the step being taken. */
  readonly step: number;
  /** What gradients are multiplied by first: 1 / (what the loss was multiplied by); 1 if left out. */
  readonly gradientScale?: number;
}

/** Writes a step's hyper-parameters, corrections computed in double precision. */
export function fillHyper(target: Float32Array, options: AdamWStep): void {
  const { learningRate, beta1, beta2, epsilon, weightDecay, clip, step, gradientScale = 1 } = options;
  target[hyperSlots.learningRate] = learningRate;
  target[hyperSlots.beta1] = beta1;
  target[hyperSlots.beta2] = beta2;
  target[hyperSlots.epsilon] = epsilon;
  target[hyperSlots.weightDecay] = weightDecay;
  target[hyperSlots.correction1] = 1 / (1 - beta1 ** step);
  target[hyperSlots.correction2] = 1 / Math.sqrt(1 - beta2 ** step);
  target[hyperSlots.clip] = clip;
  target[hyperSlots.oneMinusBeta1] = 1 - beta1;
  target[hyperSlots.oneMinusBeta2] = 1 - beta2;
  target[hyperSlots.gradientScale] = gradientScale;
}

/** Constants. */
export interface AdamWAttributes {
  /** Elements from the first on that decay; a multiple of four. */
  readonly decayed: number;
  /** Where in the weights, and in the gradients, the elements begin that the moments are of: multiples of 128. */
  readonly weightsStart: number;
  readonly gradientsStart: number;
  /** A copy of the weights in another type is written: its type, its elements, and where in it they begin. */
  readonly copy?: { readonly dtype: DataType; readonly elements: number; readonly start: number };
}

/**
 * Inputs `[weights, gradients, m, v, hyper, sumOfSquares]`, outputs `[weights, gradients, m, v, copy?]`, the first four in
 * place: flat tensors; of weights and gradients as many elements are touched as there are moments. sumOfSquares f32 [1] is
 * that of all gradients.
 */
export const adamw: OpDefinition<AdamWAttributes> = {
  name: "adamw",
  infer: (inputs, { copy }) => [
    ...inputs.slice(0, 4).map(({ shape }) => ({ shape })),
    ...(copy ? [{ shape: [copy.elements], dtype: copy.dtype }] : []),
  ],
  lower({ inputs: [weights, gradients, m, v, hyper, squares], outputs, attributes }, target) {
    const { decayed, weightsStart, gradientsStart, copy } = attributes;
    const runs: Run[] = [
      { tensor: weights, start: weightsStart, access: "update" },
      { tensor: gradients, start: gradientsStart, access: "take" },
      { tensor: m, start: 0, access: "update" },
      { tensor: v, start: 0, access: "update" },
      ...(copy ? [{ tensor: outputs[4], start: copy.start, access: "write" } as const] : []),
    ];
    return elementwiseRuns(target, "kernels/adamw.wgsl", withTag(text, copy ? "copy" : ""), runs, elementCount(m), {
      flops: 20,
      bytes: 32 + (copy ? bytesOf(copy.dtype) : 0),
      uniforms: ({ start, count }) => [Math.ceil(Math.min(Math.max(0, decayed - start), count) / 4)],
      before: [hyper, squares],
    });
  },
};
