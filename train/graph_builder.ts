/**
 * Builds the segments of a model, or of a rank's part of one, over one set of parameters.
 * @module
 */

import { adamw } from "../kernels/adamw.ts";
import { crossEntropy, crossEntropyOfShares, crossEntropyShare } from "../kernels/cross_entropy.ts";
import { fillZero } from "../kernels/fill_zero.ts";
import { addTensors } from "../kernels/residual_add.ts";
import { sumOfSquares } from "../kernels/sum_of_squares.ts";
import { backward } from "../graph/backward.ts";
import { collective } from "../graph/collective.ts";
import { Graph, type Op, type OpDefinition } from "../graph/graph.ts";
import { elementCount, type Tensor } from "../graph/tensor.ts";
import type { ModelConfiguration } from "../model/configuration.ts";
import type { ForwardInputs } from "../model/layers.ts";
import { forwardPass, type Observer, partParameters } from "../model/model.ts";
import type { Parameter } from "../model/parameters.ts";
import { localSizes, type ModelPart } from "../model/part.ts";
import { type BankOptions, makeBanks, type ParameterBank, reduceGradients } from "./parameter_banks.ts";
import { type ModelGraphOptions, type RankLayout, segmentName, slotIndex, soleRank } from "./rank_layout.ts";

/** What the host writes for a micro-batch. */
export interface BatchInputs {
  /** u32 [N], N = batch * sequenceLength. */
  readonly tokens: Tensor;
  /** i32 [N]; negative: ignored. */
  readonly targets: Tensor;
  /** u32 [N]: what `sortTokens` makes. */
  readonly order: Tensor;
  readonly runs: Tensor;
  /** u32 [4]: seed, step, global row of the first row, 0. */
  readonly dropoutState: Tensor;
}

/** Reads its inputs by doing nothing: keeps their memory to the end of a segment. */
export const keep: OpDefinition = { name: "keep", infer: () => [], lower: () => [] };

/** What the steps of building share. */
export class GraphBuilder {
  readonly graph = new Graph();
  readonly layout: RankLayout;
  readonly banks: readonly ParameterBank[];
  readonly slots: readonly BatchInputs[];
  readonly lossGradient: Tensor;
  readonly lossSum: Tensor;
  readonly rope: { readonly cos: Tensor; readonly sin: Tensor } | undefined;
  readonly bankOptions: BankOptions;
  readonly #byName: ReadonlyMap<string, Tensor>;

  constructor(readonly options: ModelGraphOptions) {
    const { graph } = this;
    const { configuration, batch, sequenceLength, segments } = options;
    this.layout = options.layout ?? soleRank(configuration);
    const { parts, data, zero, bucketElements, slots } = this.layout;
    const parameters = [...new Map(parts.flatMap((part) => partParameters(configuration, part)).map((p) => [p.name, p]))
      .values()];
    const { tensor, sequenceParallel } = parts[0];
    const table = tableName(parameters, configuration, parts);
    const firstStage = parts.some((part) => part.embedding);
    const lastStage = parts.some((part) => part.head);
    const apart = configuration.tied && firstStage !== lastStage;
    this.bankOptions = {
      training: segments.includes("train"),
      bucketElements,
      data,
      zero,
      tensor,
      sequenceParallel,
      tiedCopy: apart && lastStage ? table : undefined,
      tiedOriginal: apart && firstStage ? table : undefined,
      keyValueHeads: configuration.keyValueHeads,
    };
    this.banks = makeBanks(graph, parameters, this.bankOptions);
    this.#byName = new Map(
      this.banks.flatMap(({ members }) => members.map(({ parameter, tensor }) => [parameter.name, tensor] as const)),
    );
    const rows = batch * sequenceLength;
    const input = (name: string, shape: number[], dtype: "f32" | "u32" | "i32") =>
      graph.tensor(name, shape, "input", { dtype });
    this.slots = Array.from({ length: parts.length * slots }, () => ({
      tokens: input("tokens", [rows], "u32"),
      targets: input("targets", [rows], "i32"),
      order: input("order", [rows], "u32"),
      runs: input("runs", [rows], "u32"),
      dropoutState: input("dropoutState", [4], "u32"),
    }));
    this.lossGradient = input("lossGradient", [1], "f32");
    this.lossSum = graph.tensor("lossSum", [1], "output");
    const tableShape = [configuration.maximumSequenceLength, configuration.headSize / 2];
    this.rope = configuration.family === "llama"
      ? { cos: graph.tensor("cos", tableShape, "constant"), sin: graph.tensor("sin", tableShape, "constant") }
      : undefined;
  }

  /** The forward pass of a part; ends with logits or `[N, width]`. */
  forward(part: ModelPart, inputs: ForwardInputs, length: number, hidden?: Tensor, observe?: Observer): Tensor {
    const { graph, options: { configuration }, rope } = this;
    return forwardPass(
      {
        graph,
        configuration,
        part,
        parameters: this.#byName,
        inputs: { ...inputs, ...(rope ? { rope } : {}) },
        sequenceLength: length,
      },
      hidden,
      observe,
    );
  }

  /** Adds the losses of logits to the sum. */
  loss(part: ModelPart, logits: Tensor, targets: Tensor): void {
    const { graph, options: { configuration }, lossGradient, lossSum } = this;
    const inputs = [logits, targets, lossGradient];
    if (part.tensor.size === 1) {
      const { vocabularySize } = configuration;
      graph.add(crossEntropy, inputs, { vocabularySize, accumulate: true }, { outputs: [lossSum] });
      return;
    }
    const { vocabulary, firstToken } = localSizes(configuration, part.tensor);
    const attributes = { vocabularySize: vocabulary, firstToken };
    const [share] = graph.add(crossEntropyShare, [logits, targets], attributes);
    const shape = [elementCount(share) / 4 * part.tensor.size, 4];
    const [shares] = graph.add(collective, [share], { kind: "allGather", group: "tensor", shape });
    graph.add(crossEntropyOfShares, [...inputs, shares], attributes, { outputs: [lossSum] });
  }

  /** `[N, width]` as it passes between parts. */
  hiddenShape(part: ModelPart, rows: number): number[] {
    const { tensor, sequenceParallel } = part;
    return [sequenceParallel ? rows / tensor.size : rows, this.options.configuration.width];
  }

  /** What comes from the part before (`activations`) or behind (`gradients`), into a tensor of its own. */
  receive(kind: "activations" | "gradients", index: number, part: ModelPart, slot: number): Tensor {
    const { graph, options: { batch, sequenceLength } } = this;
    const shape = this.hiddenShape(part, batch * sequenceLength);
    const hidden = graph.tensor(`${kind} ${index}.${slot}`, shape, "input");
    graph.add(collective, [], { kind: "receive", group: `${kind} ${index}`, shape }, { outputs: [hidden] });
    return hidden;
  }

  send(kind: "activations" | "gradients", index: number, x: Tensor): void {
    this.graph.add(collective, [x], { kind: "send", group: `${kind} ${index}` });
  }

  /** Forward and backward of one part for one slot. Boundary i is between parts i - 1 and i. */
  train(chunk: number, slot: number): void {
    const { graph, layout, options: { sequenceLength, dropout = 0 } } = this;
    const part = layout.parts[chunk];
    const index = layout.indices[chunk];
    const { tokens, targets, order, runs, dropoutState } = this.slots[slotIndex(layout, chunk, slot)];
    const dropped = dropout > 0 ? { dropout: { state: dropoutState, probability: dropout } } : {};
    const forwardName = segmentName("forward", layout, chunk, slot);
    let hidden: Tensor | undefined;
    let result: Tensor | undefined;
    graph.segment(forwardName, () => {
      if (!part.embedding) hidden = this.receive("activations", index, part, slot);
      result = this.forward(part, { tokens, scatter: { order, runs }, ...dropped }, sequenceLength, hidden);
      if (part.head) this.loss(part, result, targets);
      else this.send("activations", index + 1, result);
    });
    const forwardOps = [...graph.segments.get(forwardName)!];
    graph.segment(segmentName("backward", layout, chunk, slot), () => {
      const seed: [Tensor, Tensor] = part.head
        ? [this.lossSum, this.lossGradient]
        : [result!, this.receive("gradients", index + 1, part, slot)];
      const accumulators = new Map(
        this.banks.flatMap(({ members }) => members.map(({ tensor, gradient }) => [tensor, gradient!] as const)),
      );
      const given = backward(graph, new Map([seed]), accumulators, addTensors, hidden ? [hidden] : [], forwardOps);
      if (hidden) this.send("gradients", index, given.get(hidden)!);
    });
    if (layout.splitWeights) this.moveWeights(chunk, slot);
  }

  /** Takes what only makes gradients of weights out of a backward segment into one of its own. */
  moveWeights(chunk: number, slot: number): void {
    const { graph, layout } = this;
    const name = segmentName("backward", layout, chunk, slot);
    const ops = graph.segments.get(name)!;
    const forWeights = (op: Op) => op.outputs.length > 0 && op.outputs.every(({ role }) => role === "gradient");
    graph.segments.set(name, ops.filter((op) => !forWeights(op)));
    graph.segments.set(segmentName("weights", layout, chunk, slot), ops.filter(forWeights));
  }

  /** The collectives that sum gradients over ranks: under way in backward, or behind it where parts depend on each other. */
  reduce(): void {
    const { graph, layout, bankOptions } = this;
    for (const bank of this.banks) {
      let added: Op[] = [];
      graph.segment("reduce", () => {
        const before = graph.current.length;
        reduceGradients(graph, bank, layout.parts[0], bankOptions);
        added = graph.current.slice(before);
      });
      if (layout.total > 1) continue;
      const ops = graph.segments.get("train")!;
      const own = new Set(bank.members.map(({ gradient }) => gradient));
      const last = ops.findLastIndex((op) => op.outputs.some((output) => own.has(output)));
      ops.splice(last + 1, 0, ...added);
    }
    if (layout.total === 1) graph.segments.delete("reduce");
  }

  /** Norm of the gradients, AdamW, and what makes the weights whole again. */
  update(squares: Tensor, hyper: Tensor): void {
    const { graph, layout } = this;
    graph.segment("update", () => {
      const shards = this.banks.map((bank) => bank.optimizer!);
      graph.add(
        sumOfSquares,
        shards.map(({ gradients }) => gradients),
        { runs: shards.map(({ counted }) => counted) },
        {
          outputs: [squares],
        },
      );
      if (layout.world > 1) {
        graph.add(collective, [squares], { kind: "allReduce", group: "world" }, {
          name: "all-reduce of the gradient norm",
          outputs: [squares],
        });
      }
      for (const { name, weights, gradients, length, optimizer } of this.banks) {
        const { decayed, firstMoment, secondMoment } = optimizer!;
        const state = [optimizer!.weights, optimizer!.gradients, firstMoment, secondMoment];
        graph.add(adamw, [...state, hyper, squares], { decayed }, { outputs: state });
        if (optimizer!.weights === weights) continue;
        graph.add(fillZero, [], { shape: [length] }, { outputs: [gradients!] });
        graph.add(collective, [optimizer!.weights], { kind: "allGather", group: "data", shape: [length] }, {
          name: `all-gather of ${name}`,
          outputs: [weights],
        });
      }
    });
  }

  /** Forward and loss of all parts. */
  evaluate(observed: Map<string, Tensor>): void {
    const { graph, layout, options: { sequenceLength, observe } } = this;
    layout.parts.forEach((part, chunk) => {
      const index = layout.indices[chunk];
      graph.segment(layout.total === 1 ? "evaluate" : `evaluate ${chunk}`, () => {
        const hidden = part.embedding ? undefined : this.receive("activations", index, part, 0);
        const result = this.forward(part, { tokens: this.slots[0].tokens }, sequenceLength, hidden, (name, hidden) => {
          observed.set(name, hidden);
        });
        if (part.head) {
          observed.set("logits", result);
          this.loss(part, result, this.slots[0].targets);
        } else this.send("activations", index + 1, result);
        if (observe) graph.add(keep, [...observed.values()], {});
      });
    });
  }
}

function tableName(
  parameters: readonly Parameter[],
  configuration: ModelConfiguration,
  parts: readonly ModelPart[],
): string | undefined {
  const holds = configuration.tied && parts.some((part) => part.embedding || part.head);
  return holds ? parameters.find(({ unit, decay }) => unit === 0 && decay)?.name : undefined;
}
