/**
 * The GPTs that trainers are compared on. Weights and batches come from a generator that other languages repeat, so losses
 * can be compared digit by digit.
 */

import { type ModelConfiguration, modelConfiguration } from "../model/configuration.ts";

/** A model and how it is trained. */
export interface Workload {
  readonly configuration: ModelConfiguration;
  readonly batch: number;
  readonly sequenceLength: number;
  /** Steps that a measurement takes. */
  readonly steps: number;
}

/** GPT-2 models with learned positions, a tied head, no dropout. */
export const workloads: Readonly<Record<"small" | "medium", Workload>> = {
  /** 842,496 parameters: a step is about 5.8 GFLOP. */
  small: {
    configuration: modelConfiguration({
      family: "gpt2",
      vocabularySize: 256,
      layers: 4,
      heads: 4,
      width: 128,
      maximumSequenceLength: 128,
    }),
    batch: 8,
    sequenceLength: 128,
    steps: 21,
  },
  /** 30 million parameters and GPT-2's vocabulary: a step is about 191 GFLOP. */
  medium: {
    configuration: modelConfiguration({
      family: "gpt2",
      vocabularySize: 50257,
      layers: 6,
      heads: 6,
      width: 384,
      maximumSequenceLength: 256,
    }),
    batch: 4,
    sequenceLength: 256,
    steps: 8,
  },
};

/** AdamW as all trainers compared set it. */
export const optimizer = { learningRate: 1e-3, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clip: 0 };

/** mulberry32: draw i depends on seed + (i + 1) K alone. */
function generator(seed: number): () => number {
  let a = seed | 0;
  return () => {
    a = (a + 0x6D2B79F5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Parameters in the order that numbers their seeds: name here, elements, deviation or fill. */
function order({ configuration }: Workload): [name: string, elements: number, deviation: number, fill: number][] {
  const { layers, width: D, vocabularySize: V, maximumSequenceLength: T } = configuration;
  const residual = 0.02 / Math.sqrt(2 * layers);
  const list: ReturnType<typeof order> = [["wte", V * D, 0.02, 0], ["wpe", T * D, 0.02, 0]];
  for (let l = 0; l < layers; l++) {
    list.push(
      [`h${l}.ln_1.weight`, D, 0, 1],
      [`h${l}.ln_1.bias`, D, 0, 0],
      [`h${l}.attn.c_attn.weight`, 3 * D * D, 0.02, 0],
      [`h${l}.attn.c_attn.bias`, 3 * D, 0, 0],
      [`h${l}.attn.c_proj.weight`, D * D, residual, 0],
      [`h${l}.attn.c_proj.bias`, D, 0, 0],
      [`h${l}.ln_2.weight`, D, 0, 1],
      [`h${l}.ln_2.bias`, D, 0, 0],
      [`h${l}.mlp.c_fc.weight`, 4 * D * D, 0.02, 0],
      [`h${l}.mlp.c_fc.bias`, 4 * D, 0, 0],
      [`h${l}.mlp.c_proj.weight`, 4 * D * D, residual, 0],
      [`h${l}.mlp.c_proj.bias`, D, 0, 0],
    );
  }
  list.push(["ln_f.weight", D, 0, 1], ["ln_f.bias", D, 0, 0]);
  return list;
}

/** Initial values of a parameter. */
export function initialWeights(workload: Workload, name: string): Float32Array {
  const parameters = order(workload);
  const index = parameters.findIndex(([own]) => own === name);
  const [, elements, deviation, fill] = parameters[index];
  if (deviation === 0) return new Float32Array(elements).fill(fill);
  const draw = generator(1000 + index);
  const scale = deviation * 2 * Math.sqrt(3);
  return Float32Array.from({ length: elements }, () => (draw() - 0.5) * scale);
}

/** Batches of a learnable stream: four times in five the next token is a function of the last. */
export function batches(workload: Workload): () => { tokens: Uint32Array; targets: Int32Array } {
  const { batch: B, sequenceLength: T, configuration: { vocabularySize: V } } = workload;
  const draw = generator(7);
  let token = 0;
  return () => {
    const tokens = new Uint32Array(B * T);
    const targets = new Int32Array(B * T);
    for (let b = 0; b < B; b++) {
      for (let i = 0; i <= T; i++) {
        if (i < T) tokens[b * T + i] = token;
        if (i > 0) targets[b * T + i - 1] = token;
        const p = draw(), q = draw();
        token = p < 0.8 ? (token * 31 + 7) % 256 : Math.floor(V * q * q * q);
      }
    }
    return { tokens, targets };
  };
}
