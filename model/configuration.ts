/**
 * What a model is: its family and sizes, presets, and the form Hugging Face writes them in (`config.json`).
 * @module
 */

import { UserError } from "../errors.ts";

/** Sizes of a model; everything that shapes and formulas depend on. */
export interface ModelConfiguration {
  /** Architecture. */
  readonly family: "gpt2" | "llama";
  /** Token ids are below this. */
  readonly vocabularySize: number;
  /** Transformer blocks. */
  readonly layers: number;
  /** Attention heads. */
  readonly heads: number;
  /** Heads of keys and values; fewer than `heads` in grouped-query attention. */
  readonly keyValueHeads: number;
  /** Width of the residual stream. */
  readonly width: number;
  /** Width of a head. */
  readonly headSize: number;
  /** Inner width of the feed-forward part. */
  readonly hiddenWidth: number;
  /** Positions that the model knows. */
  readonly maximumSequenceLength: number;
  /** Epsilon of the norms. */
  readonly normEpsilon: number;
  /** Base of the rotary angles (Llama). */
  readonly ropeTheta: number;
  /** True if the output projection is the token table. */
  readonly tied: boolean;
  /** Standard deviation of initial weights. */
  readonly initializerRange: number;
}

/** The families. */
export const familyNames = ["gpt2", "llama"] as const;

/** What may be left out when a configuration is made. */
export type ModelOptions = { -readonly [K in keyof ModelConfiguration]?: ModelConfiguration[K] | undefined };

const gpt2 = (layers: number, heads: number, width: number): ModelOptions => ({
  family: "gpt2",
  vocabularySize: 50257,
  layers,
  heads,
  width,
  maximumSequenceLength: 1024,
});

const llama = (options: ModelOptions): ModelOptions => ({ family: "llama", ...options });

/** Models by name. The vocabulary follows the data's tokenizer. */
export const presets: Readonly<Record<string, ModelOptions>> = {
  "gpt2-124m": gpt2(12, 12, 768),
  "gpt2-355m": gpt2(24, 16, 1024),
  "gpt2-774m": gpt2(36, 20, 1280),
  "gpt2-1558m": gpt2(48, 25, 1600),
  "llama-1m": llama({ layers: 4, heads: 4, keyValueHeads: 2, width: 128, hiddenWidth: 384 }),
  "llama-160m": llama({ layers: 12, heads: 12, width: 768, hiddenWidth: 2048, maximumSequenceLength: 2048 }),
  "tinyllama-1.1b": llama({
    layers: 22,
    heads: 32,
    keyValueHeads: 4,
    width: 2048,
    hiddenWidth: 5632,
    vocabularySize: 32000,
    maximumSequenceLength: 2048,
    tied: false,
  }),
};

/** Fills in what is left out and checks that the sizes fit each other. `UserError` otherwise. */
export function modelConfiguration(options: ModelOptions): ModelConfiguration {
  const family = options.family ?? "gpt2";
  const width = options.width ?? 128;
  const heads = options.heads ?? 4;
  if (options.headSize === undefined && width % heads !== 0) {
    throw new UserError(`${heads} heads do not divide a width of ${width}: choose --width as a multiple of --heads`);
  }
  const made: ModelConfiguration = {
    family,
    vocabularySize: options.vocabularySize ?? 256,
    layers: options.layers ?? 4,
    heads,
    keyValueHeads: options.keyValueHeads ?? heads,
    width,
    headSize: options.headSize ?? width / heads,
    // Two thirds of GPT-2's, since SwiGLU has three matrices; rounded up to whole tiles.
    hiddenWidth: options.hiddenWidth ?? (family === "gpt2" ? 4 * width : Math.ceil(8 * width / 3 / 32) * 32),
    maximumSequenceLength: options.maximumSequenceLength ?? 128,
    normEpsilon: options.normEpsilon ?? 1e-5,
    ropeTheta: options.ropeTheta ?? 10000,
    tied: options.tied ?? true,
    initializerRange: options.initializerRange ?? 0.02,
  };
  const sizes = [
    "vocabularySize",
    "layers",
    "heads",
    "keyValueHeads",
    "width",
    "headSize",
    "hiddenWidth",
    "maximumSequenceLength",
  ] as const;
  for (const name of sizes) {
    if (!Number.isInteger(made[name]) || made[name] < 1 || made[name] > 2 ** 31) {
      throw new UserError(`The model's ${name} is ${made[name]}, but must be a whole number from 1 on`);
    }
  }
  if (made.heads % made.keyValueHeads !== 0) {
    throw new UserError(
      `${made.keyValueHeads} key/value heads do not divide ${made.heads} heads: choose --kv-heads as a divisor of --heads`,
    );
  }
  if (family === "gpt2" && (made.keyValueHeads !== made.heads || made.headSize * made.heads !== made.width)) {
    throw new UserError("GPT-2 has as many key/value heads as heads; use --family llama for grouped-query attention");
  }
  if (family === "llama" && made.headSize % 2 !== 0) {
    throw new UserError(`Rotary positions need an even head size, but --width / --heads is ${made.headSize}`);
  }
  if (made.headSize > 256) throw new UserError(`A head size of ${made.headSize} is above 256: use more --heads`);
  return made;
}

/** Number of parameters, padding not counted. */
export function parameterCount(c: ModelConfiguration): number {
  const head = c.tied ? 0 : c.vocabularySize * c.width;
  if (c.family === "gpt2") {
    const block = 4 * c.width * c.width + 2 * c.width * c.hiddenWidth + 9 * c.width + c.hiddenWidth;
    return (c.vocabularySize + c.maximumSequenceLength + 2) * c.width + c.layers * block + head;
  }
  const block = (2 * c.heads + 2 * c.keyValueHeads) * c.headSize * c.width + 3 * c.width * c.hiddenWidth + 2 * c.width;
  return c.vocabularySize * c.width + c.layers * block + c.width + head;
}

/** Reads one field of an untrusted object. */
class Fields {
  constructor(readonly object: Record<string, unknown>, readonly where: string) {}

  number(name: string, fallback?: number): number {
    const value = this.object[name] ?? fallback;
    if (typeof value !== "number" || !Number.isFinite(value)) {
      throw new UserError(`${this.where}: ${name} is ${JSON.stringify(value)}, but must be a number`);
    }
    return value;
  }

  /** Refuses a setting that would change the model's numbers. */
  only(name: string, allowed: readonly unknown[]): void {
    const value = this.object[name];
    if (value !== undefined && !allowed.includes(value)) {
      throw new UserError(
        `${this.where}: ${name} is ${JSON.stringify(value)}; Muster computes only ${JSON.stringify(allowed[0])}`,
      );
    }
  }
}

/** Reads a Hugging Face `config.json`, already parsed. What cannot be computed exactly is refused by name. */
export function fromHuggingFace(config: unknown, where: string): ModelConfiguration {
  if (typeof config !== "object" || config === null || Array.isArray(config)) {
    throw new UserError(`${where} is no JSON object`);
  }
  const fields = new Fields(config as Record<string, unknown>, where);
  const type = fields.object.model_type;
  if (type === "gpt2") {
    fields.only("activation_function", ["gelu_new", "gelu_pytorch_tanh"]);
    fields.only("scale_attn_weights", [true]);
    fields.only("scale_attn_by_inverse_layer_idx", [false]);
    fields.only("add_cross_attention", [false]);
    const width = fields.number("n_embd", 768);
    return modelConfiguration({
      family: "gpt2",
      vocabularySize: fields.number("vocab_size", 50257),
      layers: fields.number("n_layer", 12),
      heads: fields.number("n_head", 12),
      width,
      hiddenWidth: fields.object.n_inner == null ? 4 * width : fields.number("n_inner"),
      maximumSequenceLength: fields.number("n_positions", 1024),
      normEpsilon: fields.number("layer_norm_epsilon", 1e-5),
      tied: fields.object.tie_word_embeddings !== false,
      initializerRange: fields.number("initializer_range", 0.02),
    });
  }
  if (type === "llama") {
    fields.only("hidden_act", ["silu", "swish"]);
    fields.only("attention_bias", [false]);
    fields.only("mlp_bias", [false]);
    const heads = fields.number("num_attention_heads", 32);
    const width = fields.number("hidden_size", 4096);
    return modelConfiguration({
      family: "llama",
      vocabularySize: fields.number("vocab_size", 32000),
      layers: fields.number("num_hidden_layers", 32),
      heads,
      keyValueHeads: fields.object.num_key_value_heads == null ? heads : fields.number("num_key_value_heads"),
      width,
      headSize: fields.object.head_dim == null ? undefined : fields.number("head_dim"),
      hiddenWidth: fields.number("intermediate_size", 11008),
      maximumSequenceLength: fields.number("max_position_embeddings", 2048),
      normEpsilon: fields.number("rms_norm_eps", 1e-6),
      ropeTheta: ropeTheta(fields),
      tied: fields.object.tie_word_embeddings === true,
      initializerRange: fields.number("initializer_range", 0.02),
    });
  }
  throw new UserError(`${where}: model_type is ${JSON.stringify(type)}; Muster trains gpt2 and llama`);
}

/** The base of the rotary angles: `rope_theta`, or inside `rope_parameters` as newer versions of transformers write. */
function ropeTheta(fields: Fields): number {
  for (const name of ["rope_scaling", "rope_parameters"]) {
    const rope = fields.object[name] as Record<string, unknown> | null | undefined;
    if (rope == null) continue;
    const inner = new Fields(rope, `${fields.where}: ${name}`);
    inner.only("rope_type", ["default"]);
    inner.only("type", ["default"]);
    if (rope.rope_theta !== undefined) return inner.number("rope_theta");
  }
  return fields.number("rope_theta", 10000);
}

/** The `config.json` that Hugging Face transformers loads. */
export function toHuggingFace(c: ModelConfiguration): Record<string, unknown> {
  const common = {
    initializer_range: c.initializerRange,
    tie_word_embeddings: c.tied,
    torch_dtype: "float32",
    use_cache: true,
    vocab_size: c.vocabularySize,
    bos_token_id: null,
    eos_token_id: null,
  };
  if (c.family === "gpt2") {
    return {
      architectures: ["GPT2LMHeadModel"],
      model_type: "gpt2",
      activation_function: "gelu_new",
      attn_pdrop: 0,
      embd_pdrop: 0,
      resid_pdrop: 0,
      layer_norm_epsilon: c.normEpsilon,
      n_ctx: c.maximumSequenceLength,
      n_embd: c.width,
      n_head: c.heads,
      n_inner: c.hiddenWidth === 4 * c.width ? null : c.hiddenWidth,
      n_layer: c.layers,
      n_positions: c.maximumSequenceLength,
      scale_attn_weights: true,
      ...common,
    };
  }
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    attention_bias: false,
    attention_dropout: 0,
    head_dim: c.headSize,
    hidden_act: "silu",
    hidden_size: c.width,
    intermediate_size: c.hiddenWidth,
    max_position_embeddings: c.maximumSequenceLength,
    mlp_bias: false,
    num_attention_heads: c.heads,
    num_hidden_layers: c.layers,
    num_key_value_heads: c.keyValueHeads,
    rms_norm_eps: c.normEpsilon,
    rope_scaling: null,
    rope_theta: c.ropeTheta,
    ...common,
  };
}
