/**
 * Builds the segments of a model, or of a rank's part of one, over one set of parameters.
 * @module
 */

import { gelu } from "../kernels/gelu.ts";
import { layernorm } from "../kernels/layernorm.ts";
import { rmsnorm } from "../kernels/rmsnorm.ts";
import { silu } from "../kernels/silu.ts";
import { swiglu } from "../kernels/swiglu.ts";
import { addTensors } from "../kernels/residual_add.ts";
import { backward } from "../graph/backward.ts";
import { collective } from "../graph/collective.ts";
import { Graph, type Op, type OpDefinition } from "../graph/graph.ts";
import { appendRecomputing } from "../graph/recompute.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { ForwardInputs } from "../model/layers.ts";
import { forwardPass, type Observer } from "../model/model.ts";
import type { ModelPart } from "../model/part.ts";
import { rankParameters } from "./bank_options.ts";
import { evaluateLoss, trainLoss } from "./loss.ts";
import { type BankOptions, makeBanks, type ParameterBank } from "./parameter_banks.ts";
import { type ModelGraphOptions, type RankLayout, segmentName, slotIndex, soleRank } from "./rank_layout.ts";
import { gatherWeights, shardGradients } from "./sharding.ts";

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

/** Ops whose results are computed again rather than kept, if asked: what backward needs of them costs little. */
const cheapOps: ReadonlySet<unknown> = new Set<unknown>([layernorm, rmsnorm, gelu, silu, swiglu]);

/** What the steps of building share. */
export class GraphBuilder {
  readonly graph: Graph;
  readonly layout: RankLayout;
  readonly banks: readonly ParameterBank[];
  readonly slots: readonly BatchInputs[];
  readonly lossGradient: Tensor;
  readonly lossSum: Tensor;
  readonly rope: { readonly cos: Tensor; readonly sin: Tensor } | undefined;
  readonly bankOptions: BankOptions;
  /** By name. */
  readonly parameters: ReadonlyMap<string, Tensor>;

  constructor(readonly options: ModelGraphOptions) {
    const { configuration, batch, sequenceLength, segments } = options;
    this.layout = options.layout ?? soleRank(configuration);
    const { parts, slots, precision } = this.layout;
    const graph = this.graph = new Graph(precision);
    const { parameters, options: bankOptions } = rankParameters(configuration, this.layout, segments.includes("train"));
    this.bankOptions = bankOptions;
    this.banks = makeBanks(graph, parameters, this.bankOptions);
    this.parameters = new Map(
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

  /** The forward pass of a part; ends with `[N, width]`, with the head behind the last norm. */
  forward(part: ModelPart, inputs: ForwardInputs, length: number, hidden?: Tensor, observe?: Observer): Tensor {
    const { graph, layout, options: { configuration }, parameters, rope } = this;
    return forwardPass(
      {
        graph,
        configuration,
        part,
        parameters,
        inputs: { ...inputs, ...(rope ? { rope } : {}) },
        sequenceLength: length,
        separateActivations: layout.recompute === "selective",
      },
      hidden,
      observe,
    );
  }

  /** Tokens of a micro-batch. */
  get rows(): number {
    return this.options.batch * this.options.sequenceLength;
  }

  /** `[N, width]` as it passes between parts. */
  hiddenShape(part: ModelPart, rows: number): number[] {
    const { tensor, sequenceParallel } = part;
    return [sequenceParallel ? rows / tensor.size : rows, this.options.configuration.width];
  }

  /** What comes from the part before (`activations`) or behind (`gradients`), into a tensor of its own. */
  receive(kind: "activations" | "gradients", index: number, part: ModelPart, slot: number, rows = this.rows): Tensor {
    const { graph } = this;
    const shape = this.hiddenShape(part, rows);
    const hidden = graph.tensor(`${kind} ${index}.${slot}`, shape, "input", { dtype: graph.typeOf({ shape }) });
    graph.add(collective, [], { kind: "receive", group: `${kind} ${index}`, shape }, { outputs: [hidden] });
    return hidden;
  }

  send(kind: "activations" | "gradients", index: number, x: Tensor): void {
    // Both ends must know it.
    if (x.dtype !== this.graph.typeOf({ shape: x.shape })) throw new Error(`${x.name} is sent as ${x.dtype}`);
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
    // What passes between blocks, and the number of ops before it.
    const boundaries: [Tensor, number][] = [];
    graph.segment(forwardName, () => {
      if (!part.embedding) hidden = this.receive("activations", index, part, slot);
      const inputs = { tokens, scatter: { order, runs }, ...dropped };
      const begun = graph.current.length;
      result = this.forward(part, inputs, sequenceLength, hidden, (name, x) => {
        if (/\d$/.test(name)) boundaries.push([x, graph.current.length]);
      });
      if (hidden) boundaries.unshift([hidden, begun]);
      if (!part.head) this.send("activations", index + 1, result);
    });
    const forwardOps = [...graph.segments.get(forwardName)!];
    const backwardName = segmentName("backward", layout, chunk, slot);
    let lossOps: readonly Op[] = [];
    graph.segment(backwardName, () => {
      const accumulators = new Map(
        this.banks.flatMap(({ members }) => members.map(({ tensor, gradient }) => [tensor, gradient!] as const)),
      );
      let seed: Tensor;
      if (part.head) {
        const begun = graph.current.length;
        seed = trainLoss(this, part, result!, targets, accumulators);
        lossOps = graph.current.slice(begun);
      } else seed = this.receive("gradients", index + 1, part, slot);
      const seeds = new Map([[result!, seed]]);
      const given = backward(graph, seeds, accumulators, addTensors, hidden ? [hidden] : [], forwardOps);
      if (hidden) this.send("gradients", index, given.get(hidden)!);
    });
    this.recompute(forwardOps, backwardName, boundaries);
    if (layout.splitWeights) this.moveWeights(chunk, slot, new Set(lossOps));
    if (layout.zero >= 2) {
      const weightsName = layout.splitWeights ? segmentName("weights", layout, chunk, slot) : backwardName;
      for (const name of new Set([backwardName, weightsName])) {
        shardGradients(graph, name, this.banks, this.bankOptions);
      }
    }
    if (layout.zero >= 3) {
      for (const name of new Set([forwardName, backwardName])) gatherWeights(graph, name, this.banks, this.bankOptions);
    }
  }

  /** Has backward compute again what the layout does not keep of the blocks, which lie between `boundaries`. */
  recompute(forwardOps: readonly Op[], backwardName: string, boundaries: readonly [Tensor, number][]): void {
    const { graph, layout } = this;
    if (layout.recompute === "none") return;
    const kept = new Set(boundaries.map(([x]) => x));
    const [first, last] = [boundaries[0][1], boundaries[boundaries.length - 1][1]];
    const inBlocks = forwardOps.slice(first, last);
    const cheap = (op: Op) => layout.recompute === "block" || cheapOps.has(op.definition);
    const discarded = new Set(inBlocks.filter(cheap).flatMap(({ outputs }) => outputs).filter((x) => !kept.has(x)));
    graph.rewrite(backwardName, (ops) => {
      const shared = ops.slice(0, forwardOps.length);
      const before = shared.every((op, i) => op === forwardOps[i]) ? shared : [];
      for (const op of before) graph.append(op);
      appendRecomputing(graph, forwardOps, ops.slice(before.length), discarded);
    });
  }

  /** Takes what only makes gradients of weights out of a backward segment into one of its own; the loss's logits do not wait. */
  moveWeights(chunk: number, slot: number, lossOps: ReadonlySet<Op>): void {
    const { graph, layout } = this;
    const name = segmentName("backward", layout, chunk, slot);
    const ops = graph.segments.get(name)!;
    const forWeights = (op: Op) => !lossOps.has(op) && op.outputs.some(({ role }) => role === "gradient");
    graph.segments.set(name, ops.filter((op) => !forWeights(op)));
    graph.segments.set(segmentName("weights", layout, chunk, slot), ops.filter(forWeights));
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
          const logits = evaluateLoss(this, part, result, this.slots[0].targets);
          if (observe) observed.set("logits", graph.stack("logits", logits));
        } else this.send("activations", index + 1, result);
        if (observe) graph.add(keep, [...observed.values()], {});
      });
      if (layout.zero >= 3) {
        gatherWeights(graph, layout.total === 1 ? "evaluate" : `evaluate ${chunk}`, this.banks, this.bankOptions);
      }
    });
  }
}
