/**
 * The graphs of a model at work, in named segments over one set of parameters: `train` (forward and backward of one
 * micro-batch), `update` (gradient norm, AdamW), `evaluate` (forward and loss) and `decode` (the next token's logits).
 * @module
 */

import { adamw } from "../kernels/adamw.ts";
import { crossEntropy } from "../kernels/cross_entropy.ts";
import { addTensors } from "../kernels/residual_add.ts";
import { sumOfSquares } from "../kernels/sum_of_squares.ts";
import { backward } from "../graph/backward.ts";
import { Graph, type OpDefinition } from "../graph/graph.ts";
import type { Role, Tensor } from "../graph/tensor.ts";
import type { ModelConfiguration } from "../model/configuration.ts";
import type { ForwardInputs } from "../model/layers.ts";
import { families } from "../model/model.ts";
import type { Parameter } from "../model/parameters.ts";

/** What to build. */
export interface ModelGraphOptions {
  readonly configuration: ModelConfiguration;
  /** Sequences in a micro-batch. */
  readonly batch: number;
  readonly sequenceLength: number;
  /** Segments wanted; `train` brings `update`. */
  readonly segments: readonly ("train" | "evaluate" | "decode")[];
  /** Probability of dropout while training. */
  readonly dropout?: number;
  /** Keep the logits and hidden states of `evaluate` for reading. */
  readonly observe?: boolean;
}

/** A parameter with what belongs to it. */
export interface TrainedParameter {
  readonly parameter: Parameter;
  readonly tensor: Tensor;
  /** Absent where nothing is trained. */
  readonly training:
    | { readonly gradient: Tensor; readonly firstMoment: Tensor; readonly secondMoment: Tensor }
    | undefined;
}

/** A built graph and its tensors. */
export interface ModelGraph {
  readonly graph: Graph;
  readonly options: ModelGraphOptions;
  readonly parameters: readonly TrainedParameter[];
  /** u32 [N], N = batch * sequenceLength. */
  readonly tokens: Tensor;
  /** i32 [N]; negative: ignored. */
  readonly targets: Tensor;
  /** u32 [N]: what `sortTokens` makes. */
  readonly order: Tensor;
  readonly runs: Tensor;
  /** f32 [1]: 1 / (targets that count in the whole step). */
  readonly lossGradient: Tensor;
  /** f32 [1]: sum of losses; added to by every run, zeroed by the host. */
  readonly lossSum: Tensor;
  /** f32 [1]: of all gradients. */
  readonly sumOfSquares: Tensor;
  /** f32 [16]. */
  readonly hyper: Tensor;
  /** u32 [4]: seed, step, global row of the first row, 0. */
  readonly dropoutState: Tensor;
  /** Rotary tables, for models that have them. */
  readonly rope: { readonly cos: Tensor; readonly sin: Tensor } | undefined;
  /** Decoding: u32 [1] each, and the logits [1, padded vocabulary]. */
  readonly decode: { readonly token: Tensor; readonly position: Tensor; readonly logits: Tensor } | undefined;
  /** Of `evaluate`, by name, with `observe`. */
  readonly observed: ReadonlyMap<string, Tensor>;
}

/** Reads its inputs by doing nothing: keeps their memory to the end of a segment. */
const keep: OpDefinition = { name: "keep", infer: () => [], lower: () => [] };

/** Builds the graphs. */
export function buildModelGraph(options: ModelGraphOptions): ModelGraph {
  const { configuration, batch, sequenceLength, segments, dropout = 0 } = options;
  const graph = new Graph();
  const family = families[configuration.family];
  const training = segments.includes("train");
  const rows = batch * sequenceLength;

  // Matrices, which decay, and vectors, which do not, in a bank each: the optimizer takes a bank at a time.
  const all = family.parameters(configuration);
  const ordered = [...all.filter((p) => p.decay), ...all.filter((p) => !p.decay)];
  const declare = (role: Role, prefix: string) => {
    const tensors = ordered.map((p) => graph.tensor(`${prefix}${p.name}`, p.shape, role));
    const matrices = ordered.filter((p) => p.decay).length;
    const banks = [
      graph.bank(`${prefix}matrices`, role, tensors.slice(0, matrices)),
      graph.bank(`${prefix}vectors`, role, tensors.slice(matrices)),
    ];
    return { tensors, banks };
  };
  const weights = declare("parameter", "");
  const gradients = training ? declare("gradient", "gradient of ") : undefined;
  const first = training ? declare("optimizer", "first moment of ") : undefined;
  const second = training ? declare("optimizer", "second moment of ") : undefined;
  const parameters = ordered.map((parameter, i): TrainedParameter => ({
    parameter,
    tensor: weights.tensors[i],
    training: gradients && first && second
      ? { gradient: gradients.tensors[i], firstMoment: first.tensors[i], secondMoment: second.tensors[i] }
      : undefined,
  }));

  const input = (name: string, shape: number[], dtype: "f32" | "u32" | "i32") =>
    graph.tensor(name, shape, "input", { dtype });
  const tokens = input("tokens", [rows], "u32");
  const targets = input("targets", [rows], "i32");
  const order = input("order", [rows], "u32");
  const runs = input("runs", [rows], "u32");
  const lossGradient = input("lossGradient", [1], "f32");
  const hyper = input("hyper", [16], "f32");
  const dropoutState = input("dropoutState", [4], "u32");
  const lossSum = graph.tensor("lossSum", [1], "output");
  const squares = graph.tensor("sumOfSquares", [1], "output");
  const tableShape = [configuration.maximumSequenceLength, configuration.headSize / 2];
  const rope = configuration.family === "llama"
    ? { cos: graph.tensor("cos", tableShape, "constant"), sin: graph.tensor("sin", tableShape, "constant") }
    : undefined;

  const byName = new Map(parameters.map(({ parameter, tensor }) => [parameter.name, tensor]));
  const forward = (
    inputs: ForwardInputs,
    length: number,
    observe?: (name: string, hidden: Tensor) => void,
  ) =>
    family.forward(
      {
        graph,
        configuration,
        parameters: byName,
        inputs: { ...inputs, ...(rope ? { rope } : {}) },
        sequenceLength: length,
      },
      observe,
    );
  const loss = (logits: Tensor) =>
    graph.add(crossEntropy, [logits, targets, lossGradient], {
      vocabularySize: configuration.vocabularySize,
      accumulate: true,
    }, { outputs: [lossSum] });

  if (gradients && first && second) {
    graph.segment("train", () => {
      const dropped = dropout > 0 ? { dropout: { state: dropoutState, probability: dropout } } : {};
      loss(forward({ tokens, scatter: { order, runs }, ...dropped }, sequenceLength));
      const accumulators = new Map(parameters.map(({ tensor, training }) => [tensor, training!.gradient]));
      backward(graph, new Map([[lossSum, lossGradient]]), accumulators, addTensors);
    });
    graph.segment("update", () => {
      graph.add(sumOfSquares, gradients.banks, {}, { outputs: [squares] });
      weights.banks.forEach((bank, i) => {
        const state = [bank, gradients.banks[i], first.banks[i], second.banks[i]];
        graph.add(adamw, [...state, hyper, squares], { decay: i === 0 }, { outputs: state });
      });
    });
  }
  const observed = new Map<string, Tensor>();
  if (segments.includes("evaluate")) {
    graph.segment("evaluate", () => {
      const logits = forward({ tokens }, sequenceLength, (name, hidden) => observed.set(name, hidden));
      observed.set("logits", logits);
      loss(logits);
      if (options.observe) graph.add(keep, [...observed.values()], {});
    });
  }
  return {
    graph,
    options,
    parameters,
    tokens,
    targets,
    order,
    runs,
    lossGradient,
    lossSum,
    sumOfSquares: squares,
    hyper,
    dropoutState,
    rope,
    decode: segments.includes("decode") ? buildDecode(graph, configuration, forward) : undefined,
    observed,
  };
}

function buildDecode(
  graph: Graph,
  configuration: ModelConfiguration,
  forward: (inputs: ForwardInputs, length: number) => Tensor,
): NonNullable<ModelGraph["decode"]> {
  const { layers, keyValueHeads, headSize, maximumSequenceLength } = configuration;
  const token = graph.tensor("token", [1], "input", { dtype: "u32" });
  const position = graph.tensor("position", [1], "input", { dtype: "u32" });
  const cache = (name: string) => graph.tensor(name, [maximumSequenceLength, keyValueHeads * headSize], "output");
  const caches = Array.from({ length: layers }, (_, i) => ({ keys: cache(`keys${i}`), values: cache(`values${i}`) }));
  let logits: Tensor | undefined;
  graph.segment("decode", () => {
    logits = forward({ tokens: token, decode: { position, caches } }, 1);
    graph.add(keep, [logits], {});
  });
  return { token, position, logits: logits! };
}
