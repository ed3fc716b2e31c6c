/**
 * Every op of kernels/ with operands of sizes that matter: those of GPT-2 124M at 1,024 tokens, and of a Llama. Traffic is beyond the
 * caches where memory bounds an op.
 * @module
 */

import type { OpDefinition } from "../graph/graph.ts";
import type { DataType } from "../graph/tensor.ts";
import { accumulate } from "../kernels/accumulate.ts";
import { adamw, fillHyper } from "../kernels/adamw.ts";
import { attention } from "../kernels/attention.ts";
import { attentionDecode } from "../kernels/attention_decode.ts";
import { addPartials, columnSum } from "../kernels/column_sum.ts";
import { crossEntropy, crossEntropyOfShares, crossEntropyShare } from "../kernels/cross_entropy.ts";
import { dropout } from "../kernels/dropout.ts";
import { embedding, sortTokens } from "../kernels/embedding.ts";
import { fillZero } from "../kernels/fill_zero.ts";
import { gelu, geluGradient } from "../kernels/gelu.ts";
import { layernorm } from "../kernels/layernorm.ts";
import { matmul } from "../kernels/matmul.ts";
import { residualAdd } from "../kernels/residual_add.ts";
import { rmsnorm } from "../kernels/rmsnorm.ts";
import { rope, ropeTables } from "../kernels/rope.ts";
import { rowProduct } from "../kernels/row_product.ts";
import { silu } from "../kernels/silu.ts";
import { softmax } from "../kernels/softmax.ts";
import { sumOfSquares } from "../kernels/sum_of_squares.ts";
import { swiglu } from "../kernels/swiglu.ts";

/** An operand. */
export interface Operand {
  readonly shape: readonly number[];
  readonly dtype?: DataType;
  /** Its gradient accumulates, as a weight's does; of other f32 operands it is an activation. */
  readonly parameter?: boolean;
  /** What it holds, and that it has no gradient; small numbers if left out. */
  readonly values?: Float32Array | Uint32Array | Int32Array;
}

/** An op with operands. */
export interface KernelCase {
  /** The op's name and its sizes. */
  readonly name: string;
  readonly definition: OpDefinition;
  readonly operands: readonly Operand[];
  /** Further operands of the gradient are declared by `declare`. */
  readonly attributes: (declare: <T>(operand: Operand) => T) => unknown;
  /** How many of the operands, from `inPlace.first` on, are written too. */
  readonly inPlace?: { readonly first: number; readonly count: number };
  /** False where the gradient is that of other cases. */
  readonly gradient?: boolean;
}

// Attributes differ by op; the op checks them.
const any = (definition: unknown) => definition as OpDefinition;

function make<A>(
  definition: OpDefinition<A>,
  sizes: string,
  operands: readonly (Operand | readonly number[])[],
  attributes: A | KernelCase["attributes"],
  options: Pick<KernelCase, "inPlace" | "gradient"> = {},
): KernelCase {
  return {
    name: `${definition.name} ${sizes}`,
    definition: any(definition),
    operands: operands.map((operand) => "shape" in operand ? operand : { shape: operand }),
    attributes: typeof attributes === "function" ? attributes as KernelCase["attributes"] : () => attributes,
    ...options,
  };
}

const weight = (...shape: number[]): Operand => ({ shape, parameter: true });

/** Rows of a batch; GPT-2's width, hidden width and vocabulary. */
const [rows, width, hidden, vocabulary] = [1024, 768, 3072, 50257];
const paddedVocabulary = Math.ceil(vocabulary / 64) * 64;

function products(): KernelCase[] {
  return [[1024, 768, 768], [1024, 768, 3072], [1024, 128, 384], [1024, 512, 128]].flatMap(([M, K, N]) =>
    (["NN", "NT", "TN"] as const).map((layout) => {
      const shapes = [layout === "TN" ? [K, M] : [M, K], layout === "NT" ? [N, K] : [K, N]];
      return make(matmul, `${layout} ${M}x${K}x${N}`, shapes, { layout }, { gradient: false });
    })
  ).concat(
    ...(["NN", "NT"] as const).map((layout) =>
      make(matmul, `${layout} 1024x768x768, b bf16`, [[rows, width], { shape: [width, width], dtype: "bf16" }], {
        layout,
      }, { gradient: false })
    ),
    // The gradient of a narrow weight in a large batch: few workgroups, long sums.
    make(matmul, "TN 128x8192x128", [[8 * rows, 128], [8 * rows, 128]], { layout: "TN" }, { gradient: false }),
    // A linear layer with all that its gradient takes: two products, the bias's sum.
    make(matmul, "linear 1024x768x768", [[rows, width], weight(width, width), weight(width)], {
      layout: "NN",
      bias: true,
    }),
    // Decoding, where reading the weights is what counts.
    ...(["f32", "bf16"] as const).flatMap((dtype) => {
      const stored = dtype === "f32" ? "" : ` ${dtype}`;
      return [
        make(rowProduct, `NN 1x768x3072${stored}`, [[1, width], { shape: [width, hidden], dtype }], { layout: "NN" }),
        make(rowProduct, `NT 1x768x50304${stored}`, [[1, width], { shape: [paddedVocabulary, width], dtype }], {
          layout: "NT",
        }),
      ];
    }),
  );
}

function attentions(): KernelCase[] {
  const of = (batch: number, heads: number, keyValueHeads: number, headSize: number, sequenceLength: number) =>
    make(
      attention,
      `${batch}x${heads}x${sequenceLength}x${headSize}`,
      [[batch * sequenceLength, (heads + 2 * keyValueHeads) * headSize]],
      { heads, keyValueHeads, headSize, sequenceLength },
    );
  const decode = { heads: 12, keyValueHeads: 12, headSize: 64, positions: 1024 };
  return [
    of(8, 4, 4, 32, 128),
    of(1, 12, 12, 64, 1024),
    make(attentionDecode, "64x12x1024x64", [[64, 3 * 768], {
      shape: [1],
      dtype: "u32",
      values: Uint32Array.of(decode.positions - 64),
    }], decode),
    make(attentionDecode, "12x1024x64", [[1, 3 * 768], {
      shape: [1],
      dtype: "u32",
      values: Uint32Array.of(decode.positions - 1),
    }], decode),
  ];
}

function losses(): KernelCase[] {
  const targets: Operand = {
    shape: [256],
    dtype: "i32",
    values: Int32Array.from({ length: 256 }, (_, i) => (i * 7919) % vocabulary),
  };
  const upstream: Operand = { shape: [1], values: Float32Array.of(1 / 256) };
  const logits = [256, paddedVocabulary];
  const split = { vocabularySize: vocabulary, firstToken: 0 };
  return [
    make(crossEntropy, "256x50257", [logits, targets, upstream], { vocabularySize: vocabulary }),
    make(crossEntropyShare, "256x50257", [logits, targets], split),
    make(crossEntropyOfShares, "2x256", [logits, targets, upstream, {
      shape: [512, 4],
      values: new Float32Array(2048).fill(1),
    }], split),
  ];
}

function embeddings(): KernelCase[] {
  const tokens = Uint32Array.from({ length: 8 * rows }, (_, i) => (i * 7919) % vocabulary);
  const ids = (values: Uint32Array): Operand => ({ shape: [values.length], dtype: "u32", values });
  return [
    make(
      embedding,
      "8192x768",
      [ids(tokens), weight(vocabulary, width), weight(rows, width)],
      (declare) => {
        const [order, runs] = [new Uint32Array(tokens.length), new Uint32Array(tokens.length)];
        sortTokens(tokens, order, runs, new Uint32Array(vocabulary + 1));
        return { sequenceLength: rows, scatter: { order: declare(ids(order)), runs: declare(ids(runs)) } };
      },
    ),
  ];
}

function ofRows(): KernelCase[] {
  const many = 8 * rows;
  const shape = `${many}x${width}`;
  const x = [many, width];
  return [
    make(layernorm, shape, [x, weight(width), weight(width)], { epsilon: 1e-5 }),
    make(rmsnorm, shape, [x, weight(width)], { epsilon: 1e-5 }),
    make(softmax, shape, [x], {}),
    make(columnSum, shape, [x], {}),
    make(addPartials, `256x${2 * width}`, [[256, 2 * width]], { sums: 2 }),
  ];
}

function elementwises(): KernelCase[] {
  const many = 4 * rows;
  const shape = `${many}x${hidden}`;
  const x = [many, hidden];
  const bank = [2 ** 23];
  const heads = { heads: 32, keyValueHeads: 4, headSize: 64, sequenceLength: rows };
  const { cos, sin } = ropeTables(64, rows, 10000);
  const hyper = new Float32Array(16);
  // Slow averages, so that moments do not fade into numbers too small for fast arithmetic.
  const step = { learningRate: 1e-3, beta1: 0.999, beta2: 0.9999, epsilon: 1e-8, weightDecay: 0.1, clip: 1, step: 1 };
  fillHyper(hyper, step);
  return [
    make(gelu, shape, [x], {}),
    make(geluGradient, shape, [x, x], {}),
    make(silu, shape, [x], {}),
    make(swiglu, shape, [[many, 2 * hidden]], {}),
    make(residualAdd, shape, [x, x], {}, { gradient: false }),
    make(accumulate, shape, [x, x], {}, { inPlace: { first: 1, count: 1 } }),
    make(fillZero, shape, [], { shape: x }),
    make(dropout, shape, [x, { shape: [4], dtype: "u32", values: Uint32Array.of(5, 2, 0, 0) }], {
      probability: 0.1,
      site: 0,
    }),
    make(
      rope,
      "4096x40x64",
      [[many, 40 * 64], { shape: [rows, 32], values: cos }, { shape: [rows, 32], values: sin }],
      heads,
      { inPlace: { first: 0, count: 1 } },
    ),
    make(
      adamw,
      "8M",
      [bank, bank, bank, bank, { shape: [16], values: hyper }, { shape: [1], values: Float32Array.of(1) }],
      { decayed: bank[0], weightsStart: 0, gradientsStart: 0 },
      { inPlace: { first: 0, count: 4 } },
    ),
    make(sumOfSquares, "16M", [[2 ** 24]], {}),
  ];
}

/** All cases. A test compares them with the ops that kernels/ exports. */
export function kernelCases(): readonly KernelCase[] {
  return [...products(), ...attentions(), ...losses(), ...embeddings(), ...ofRows(), ...elementwises()];
}
