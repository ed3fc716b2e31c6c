/**
 * The small GPT that trainers are compared on: 4 layers, 4 heads, width 128, context 128, batch 8, vocabulary 256, learned
 * positions, tied head, AdamW. Weights and batches come from a generator that other languages repeat, so losses can be
 * compared digit by digit.
 */

import { modelConfiguration } from "../model/configuration.ts";

/** The model and how it is trained. */
export const smallGpt = {
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
  optimizer: { learningRate: 1e-3, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clip: 0 },
};

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
const order: [name: string, elements: number, deviation: number, fill: number][] = (() => {
  const { layers, width: D, vocabularySize: V, maximumSequenceLength: T } = smallGpt.configuration;
  const residual = 0.02 / Math.sqrt(2 * layers);
  const list: typeof order = [["wte", V * D, 0.02, 0], ["wpe", T * D, 0.02, 0]];
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
})();

/** Initial values of a parameter. */
export function initialWeights(name: string): Float32Array {
  const index = order.findIndex(([own]) => own === name);
  const [, elements, deviation, fill] = order[index];
  if (deviation === 0) return new Float32Array(elements).fill(fill);
  const draw = generator(1000 + index);
  const scale = deviation * 2 * Math.sqrt(3);
  return Float32Array.from({ length: elements }, () => (draw() - 0.5) * scale);
}

/** Batches of a learnable stream: four times in five the next token is a function of the last. */
export function batches(): () => { tokens: Uint32Array; targets: Int32Array } {
  const { batch: B, sequenceLength: T, configuration: { vocabularySize: V } } = smallGpt;
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
