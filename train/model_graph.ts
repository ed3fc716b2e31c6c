/**
 * The graphs of a model, or of a rank's part of one, at work, in named segments over one set of parameters: `train`
 * (forward and backward of one micro-batch), `update` (gradient norm, AdamW), `evaluate` (forward and loss) and those of
 * `decode_graph.ts`. A stage of a pipeline has `forward` and `backward` apart, for each micro-batch under way.
 * @module
 */

import type { Graph } from "../graph/graph.ts";
import type { Tensor } from "../graph/tensor.ts";
import { buildDecode, type DecodeTensors } from "./decode_graph.ts";
import { type BatchInputs, GraphBuilder } from "./graph_builder.ts";
import { addReductions, addUpdate } from "./update_graph.ts";
import type { ParameterBank } from "./parameter_banks.ts";
import type { ModelGraphOptions, RankLayout } from "./rank_layout.ts";

/** A built graph and its tensors. */
export interface ModelGraph {
  readonly graph: Graph;
  readonly options: ModelGraphOptions;
  readonly layout: RankLayout;
  readonly banks: readonly ParameterBank[];
  /** One for each micro-batch that may be under way, for each part: see `slotIndex`. */
  readonly slots: readonly BatchInputs[];
  /** f32 [1]: 1 / (targets that count in the whole step). */
  readonly lossGradient: Tensor;
  /** f32 [1]: sum of losses; added to by every run, zeroed by the host. */
  readonly lossSum: Tensor;
  /** f32 [1]: of all gradients. */
  readonly sumOfSquares: Tensor;
  /** f32 [16]. */
  readonly hyper: Tensor;
  /** Rotary tables, for models that have them. */
  readonly rope: { readonly cos: Tensor; readonly sin: Tensor } | undefined;
  readonly decode: DecodeTensors | undefined;
  /** Of `evaluate`, by name, with `observe`. */
  readonly observed: ReadonlyMap<string, Tensor>;
}

/** Builds the graphs. */
export function buildModelGraph(options: ModelGraphOptions): ModelGraph {
  const builder = new GraphBuilder(options);
  const { graph, layout, banks, slots, lossGradient, lossSum, rope } = builder;
  const { segments } = options;
  const hyper = graph.tensor("hyper", [16], "input");
  const squares = graph.tensor("sumOfSquares", [1], "output");
  if (segments.includes("train")) {
    for (let slot = 0; slot < layout.slots; slot++) layout.parts.forEach((_, chunk) => builder.train(chunk, slot));
    addReductions(builder);
    addUpdate(builder, squares, hyper);
  }
  const observed = new Map<string, Tensor>();
  if (segments.includes("evaluate")) builder.evaluate(observed);
  const decode = segments.includes("decode") ? buildDecode(builder) : undefined;
  return {
    graph,
    options,
    layout,
    banks,
    slots,
    lossGradient,
    lossSum,
    sumOfSquares: squares,
    hyper,
    rope,
    decode,
    observed,
  };
}
