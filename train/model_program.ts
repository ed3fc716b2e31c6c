/**
 * A model on a device: its program, its weights in and out under their names in checkpoints, batches in, losses out.
 * @module
 */

import { type AdamWStep, fillHyper } from "../kernels/adamw.ts";
import { sortTokens } from "../kernels/embedding.ts";
import { ropeTables } from "../kernels/rope.ts";
import type { NamedTensor, TensorReader } from "../data/safetensors.ts";
import { UserError } from "../errors.ts";
import type { Device } from "../gpu/device.ts";
import { assertFits } from "../graph/plan.ts";
import { Program } from "../graph/program.ts";
import { elementCount, rowSize, type Tensor } from "../graph/tensor.ts";
import { initialValues } from "../model/model.ts";
import type { ParameterSource } from "../model/parameters.ts";
import { buildModelGraph, type ModelGraph, type ModelGraphOptions, type TrainedParameter } from "./model_graph.ts";

/** Which of a parameter's tensors is meant. */
export type StateKind = "weights" | "gradient" | "firstMoment" | "secondMoment";

/** Prefixes under which optimizer state is saved: PyTorch's names for AdamW's. */
export const statePrefixes = { firstMoment: "exp_avg.", secondMoment: "exp_avg_sq." } as const;

function stateOf({ tensor, training }: TrainedParameter, kind: StateKind): Tensor {
  if (kind === "weights") return tensor;
  if (!training) throw new Error("Nothing is trained here");
  return training[kind];
}

/** GPT-2's own files leave out the prefix that transformers writes today. */
function storedName(reader: TensorReader, name: string): string {
  const short = name.replace(/^transformer\./, "");
  return !reader.tensors.has(name) && reader.tensors.has(short) ? short : name;
}

/** A model's program. */
export class ModelProgram {
  readonly #hyper = new Float32Array(16);
  readonly #scalar = new Float32Array(1);
  readonly #zero = new Float32Array(1);
  readonly #word = new Uint32Array(1);
  readonly #dropout = new Uint32Array(4);
  readonly #order: Uint32Array;
  readonly #runs: Uint32Array;
  readonly #counts: Uint32Array;

  private constructor(readonly program: Program, readonly model: ModelGraph) {
    const rows = elementCount(model.tokens);
    this.#order = new Uint32Array(rows);
    this.#runs = new Uint32Array(rows);
    this.#counts = new Uint32Array(model.options.configuration.vocabularySize + 1);
  }

  /** Builds, plans (refusing what does not fit the device's memory) and makes the program. Weights are still zero. */
  static async create(device: Device, options: ModelGraphOptions): Promise<ModelProgram> {
    const model = buildModelGraph(options);
    const { memoryBytes } = device.capabilities;
    const program = await Program.create(device, model.graph, (plan) => assertFits(plan, memoryBytes));
    if (model.rope) {
      const { headSize, maximumSequenceLength, ropeTheta } = options.configuration;
      const { cos, sin } = ropeTables(headSize, maximumSequenceLength, ropeTheta);
      program.write(model.rope.cos, cos);
      program.write(model.rope.sin, sin);
    }
    return new ModelProgram(program, model);
  }

  /** Initial weights from a seed. */
  initialize(seed: number): void {
    for (const { parameter, tensor } of this.model.parameters) {
      this.program.write(tensor, initialValues(parameter, seed));
    }
  }

  /** Loads one kind of state; names in `reader` have `prefix` before those of the checkpoint. */
  load(reader: TensorReader, kind: StateKind = "weights", prefix = ""): void {
    for (const trained of this.model.parameters) {
      let row = 0;
      for (const source of trained.parameter.sources) {
        const target = new Float32Array(elementCount(source));
        const name = storedName(reader, prefix + source.name);
        checkShape(reader, name, source);
        reader.readInto(name, target);
        this.program.write(stateOf(trained, kind), target, row * rowSize(trained.parameter));
        row += source.shape[0];
      }
    }
  }

  /** Reads one kind of state, under the names of the checkpoint with `prefix` before them. */
  async save(kind: StateKind = "weights", prefix = ""): Promise<NamedTensor[]> {
    const tensors: NamedTensor[] = [];
    for (const trained of this.model.parameters) {
      let start = 0;
      for (const source of trained.parameter.sources) {
        const data = new Float32Array(new SharedArrayBuffer(elementCount(source) * 4));
        await this.program.readInto(stateOf(trained, kind), data, start);
        start += data.length;
        tensors.push({ name: prefix + source.name, shape: source.shape, data });
      }
    }
    return tensors;
  }

  /** Begins a step: `count` targets of all its micro-batches together have a loss. */
  beginStep(count: number): void {
    this.#scalar[0] = 1 / Math.max(1, count);
    this.program.write(this.model.lossGradient, this.#scalar);
    this.program.write(this.model.lossSum, this.#zero);
  }

  /** Uploads a micro-batch: `batch * sequenceLength` tokens and their targets. */
  writeBatch(tokens: Uint32Array, targets: Int32Array): void {
    this.program.write(this.model.tokens, tokens);
    this.program.write(this.model.targets, targets);
  }

  /** Uploads a micro-batch to train on, whose first row is `firstRow` of the step's. */
  stage(tokens: Uint32Array, targets: Int32Array, dropout?: { seed: number; step: number; firstRow: number }): void {
    this.writeBatch(tokens, targets);
    sortTokens(tokens, this.#order, this.#runs, this.#counts);
    this.program.write(this.model.order, this.#order);
    this.program.write(this.model.runs, this.#runs);
    if (dropout) {
      this.#dropout[0] = dropout.seed;
      this.#dropout[1] = dropout.step;
      this.#dropout[2] = dropout.firstRow;
      this.program.write(this.model.dropoutState, this.#dropout);
    }
  }

  /** Forward and backward of a micro-batch. */
  train(tokens: Uint32Array, targets: Int32Array, dropout?: { seed: number; step: number; firstRow: number }): void {
    this.stage(tokens, targets, dropout);
    this.program.run("train");
  }

  /** Clips the gradients, takes an optimizer step and zeroes them. */
  update(options: AdamWStep): void {
    fillHyper(this.#hyper, options);
    this.program.write(this.model.hyper, this.#hyper);
    this.program.run("update");
  }

  /** Adds the losses of a batch to the sum. */
  evaluate(tokens: Uint32Array, targets: Int32Array): void {
    this.writeBatch(tokens, targets);
    this.program.run("evaluate");
  }

  /** The sum of losses since `beginStep`. */
  async lossSum(): Promise<number> {
    return (await this.program.readInto(this.model.lossSum, this.#scalar))[0];
  }

  /** Global gradient norm before clipping, of the last `update`. */
  async gradientNorm(): Promise<number> {
    return Math.sqrt((await this.program.readInto(this.model.sumOfSquares, this.#scalar))[0]);
  }

  /** Takes `token` at `position` (all earlier positions having been taken) and fills `logits` for the next. */
  async decode(token: number, position: number, logits: Float32Array): Promise<void> {
    const { decode } = this.model;
    if (!decode) throw new Error("The program was built without decoding");
    this.#word[0] = token;
    this.program.write(decode.token, this.#word);
    this.#word[0] = position;
    this.program.write(decode.position, this.#word);
    this.program.run("decode");
    await this.program.readInto(decode.logits, logits);
  }

  /** Frees the buffers. */
  destroy(): void {
    this.program.destroy();
  }
}

function checkShape(reader: TensorReader, name: string, source: ParameterSource): void {
  const entry = reader.tensors.get(name);
  if (!entry) throw new UserError(`The checkpoint has no tensor ${name}: it is of another model`);
  if (entry.shape.join() !== source.shape.join()) {
    throw new UserError(
      `Tensor ${name} of the checkpoint is [${entry.shape.join(", ")}], but the model's is [${
        source.shape.join(", ")
      }]`,
    );
  }
}
