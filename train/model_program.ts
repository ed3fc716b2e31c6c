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
import type { Run } from "../graph/collective.ts";
import { assertFits, type Plan } from "../graph/plan.ts";
import type { CollectiveExecutor } from "../graph/executor.ts";
import { Program } from "../graph/program.ts";
import { toHalves } from "../graph/halves.ts";
import { elementCount, isHalf } from "../graph/tensor.ts";
import { asElements } from "../graph/tensor_memory.ts";
import { initialValues } from "../model/model.ts";
import { buildModelGraph, type ModelGraph } from "./model_graph.ts";
import { type ModelGraphOptions, segmentName } from "./rank_layout.ts";
import type { Action } from "../parallel/schedules.ts";
import { hostNames, type ParameterBank, type TrainedParameter } from "./parameter_banks.ts";
import { checkShape, eachRun, placeOf, type StateKind, storedName } from "./model_state.ts";

/** Elements that are read back at a time: each piece is a sign of life. */
const readElements = 2 ** 24;

/** Which micro-batch of a step is staged. */
export interface MicroBatch {
  readonly seed: number;
  readonly step: number;
  /** Its first row among all of the step's. */
  readonly firstRow: number;
}

/** Throws `UserError` if the device or the model cannot do with the precision. */
function checkPrecision({ capabilities: { name, shaderF16 } }: Device, options: ModelGraphOptions): void {
  const { configuration: { family, headSize }, layout: { precision = "f32" } = {} } = options;
  if (precision === "f16" && !shaderF16) {
    throw new UserError(`${name} does not offer f16 (shader-f16): use --precision bf16, which every GPU can`);
  }
  if (precision !== "f32" && family === "llama" && headSize % 4 !== 0) {
    throw new UserError(
      `--precision ${precision} rotates two elements at a time, but half of a head is ${headSize / 2}: ` +
        `choose --width and --heads so that heads have a multiple of 4`,
    );
  }
}

/** A model's program. */
export class ModelProgram {
  readonly #hyper = new Float32Array(16);
  readonly #scalar = new Float32Array(1);
  readonly #zero = new Float32Array(1);
  readonly #dropout = new Uint32Array(4);
  readonly #order: Uint32Array;
  readonly #runs: Uint32Array;
  readonly #counts: Uint32Array;
  /** By what the loss, and so all gradients, are multiplied; AdamW and the norm do without. */
  lossScale = 1;

  private constructor(readonly program: Program, readonly model: ModelGraph) {
    const rows = elementCount(model.slots[0].tokens);
    this.#order = new Uint32Array(rows);
    this.#runs = new Uint32Array(rows);
    this.#counts = new Uint32Array(model.options.configuration.vocabularySize + 1);
  }

  /** Tells of the plan and of each kernel compiled. Builds, plans (refusing what does not fit the device's memory) and makes the program. Weights are still zero. */
  static async create(
    device: Device,
    options: ModelGraphOptions,
    executor?: CollectiveExecutor,
    told: { planned?: (plan: Plan) => void; compiled?: (done: number, total: number) => void } = {},
  ): Promise<ModelProgram> {
    checkPrecision(device, options);
    const { memoryBytes } = device.capabilities;
    const model = buildModelGraph(options);
    const program = await Program.create(device, model.graph, {
      check(plan) {
        assertFits(plan, memoryBytes);
        told.planned?.(plan);
      },
      compiled(done, total) {
        executor?.alive?.();
        told.compiled?.(done, total);
      },
    });
    program.executor = executor;
    if (model.rope) {
      const { headSize, maximumSequenceLength, ropeTheta } = options.configuration;
      const { cos, sin } = ropeTables(headSize, maximumSequenceLength, ropeTheta);
      program.write(model.rope.cos, cos);
      program.write(model.rope.sin, sin);
    }
    return new ModelProgram(program, model);
  }

  /** All parameters that are here. */
  get parameters(): readonly TrainedParameter[] {
    return this.model.banks.flatMap(({ members }) => members);
  }

  /** Initial weights from a seed. */
  initialize(seed: number): void {
    for (const bank of this.model.banks) {
      const flat = new Float32Array(bank.length);
      bank.members.forEach(({ parameter }, i) => flat.set(initialValues(parameter, seed), bank.offsets[i]));
      this.#write(bank, "weights", flat);
    }
  }

  #hostMemory(name: string, elements: number): Float32Array {
    const { executor } = this.program;
    if (!executor) throw new Error("Host memory belongs to an executor");
    return executor.hostMemory(name, elements);
  }

  /** Writes a kind of state of a bank; of weights also the copy in half, and the part that others fetch. */
  #write(bank: ParameterBank, kind: StateKind, flat: Float32Array): void {
    const { layout } = this.model;
    const { tensor, run, host } = placeOf(bank, kind, layout);
    const own = flat.subarray(run.start, run.start + run.length);
    if (host) this.#hostMemory(host, run.length).set(own);
    else this.program.write(tensor, own);
    this.program.executor?.alive?.();
    if (kind !== "weights") return;
    if (layout.zero === 3) {
      const { dtype } = bank.weights;
      const shared = asElements(bank.weights, this.#hostMemory(hostNames.weights(bank.name), bank.length));
      shared.set(isHalf(dtype) ? toHalves(own, dtype) : own, run.start);
    } else if (tensor !== bank.weights) this.program.write(bank.weights, flat);
  }

  /** Reads what this rank has of a kind of state of a bank. */
  async readState(bank: ParameterBank, kind: StateKind): Promise<{ run: Run; flat: Float32Array }> {
    const { tensor, run, host } = placeOf(bank, kind, this.model.layout);
    const flat = new Float32Array(run.length);
    if (host) {
      flat.set(this.#hostMemory(host, run.length));
      return { run, flat };
    }
    for (let start = 0; start < run.length; start += readElements) {
      await this.program.readInto(tensor, flat.subarray(start, start + readElements), start);
      this.program.executor?.alive?.();
    }
    return { run, flat };
  }

  /** Forgets what the gradients have summed so far. */
  clearGradients(): void {
    for (const bank of this.model.banks) {
      const { gradients, optimizer } = bank;
      for (const flat of new Set([gradients, optimizer?.gradients])) {
        if (flat) this.program.write(flat, new Float32Array(elementCount(flat)));
      }
    }
  }

  /** Loads one kind of state; names in `reader` have `prefix` before those of the checkpoint. */
  load(reader: TensorReader, kind: StateKind = "weights", prefix = ""): void {
    for (const bank of this.model.banks) {
      const flat = new Float32Array(bank.length);
      let last: { name: string; data: Float32Array } | undefined;
      bank.members.forEach(({ parameter }, i) => {
        for (const source of parameter.sources) {
          const name = storedName(reader, prefix + source.name);
          if (last?.name !== name) {
            checkShape(reader, name, source);
            last = { name, data: new Float32Array(elementCount(source)) };
            reader.readInto(name, last.data);
          }
          const { data } = last;
          eachRun(bank, i, source, (from, to, length) => flat.set(data.subarray(from, from + length), to));
        }
      });
      this.#write(bank, kind, flat);
    }
  }

  /** Reads one kind of state into whole tensors of the checkpoint: what this rank has of each. */
  async saveInto(kind: StateKind, target: (name: string, shape: readonly number[]) => Float32Array): Promise<void> {
    for (const bank of this.model.banks) {
      const { run, flat } = await this.readState(bank, kind);
      bank.members.forEach(({ parameter }, i) => {
        for (const source of parameter.sources) {
          const whole = target(source.name, source.shape);
          eachRun(bank, i, source, (from, to, length) => {
            const start = Math.max(to, run.start);
            const end = Math.min(to + length, run.start + run.length);
            if (start < end) whole.set(flat.subarray(start - run.start, end - run.start), from + start - to);
          });
        }
      });
    }
  }

  /** Reads one kind of state, under the names of the checkpoint with `prefix` before them. */
  async save(kind: StateKind = "weights", prefix = ""): Promise<NamedTensor[]> {
    const tensors = new Map<string, NamedTensor>();
    await this.saveInto(kind, (name, shape) => {
      let tensor = tensors.get(name);
      if (!tensor) {
        tensor = {
          name: prefix + name,
          shape,
          data: new Float32Array(new SharedArrayBuffer(elementCount({ shape }) * 4)),
        };
        tensors.set(name, tensor);
      }
      return tensor.data as Float32Array;
    });
    return [...tensors.values()];
  }

  /** Begins a step: `count` targets of all its micro-batches together have a loss. */
  beginStep(count: number): void {
    this.#scalar[0] = this.lossScale / Math.max(1, count);
    this.program.write(this.model.lossGradient, this.#scalar);
    this.program.write(this.model.lossSum, this.#zero);
  }

  /** Readies tokens for `stage`, on the host alone: the device may be busy with others. */
  prepare(tokens: Uint32Array): void {
    sortTokens(tokens, this.#order, this.#runs, this.#counts);
  }

  /** Uploads a micro-batch: `batch * sequenceLength` tokens and their targets. */
  writeBatch(tokens: Uint32Array, targets: Int32Array, slot = 0): void {
    this.program.write(this.model.slots[slot].tokens, tokens);
    this.program.write(this.model.slots[slot].targets, targets);
  }

  /** Uploads a micro-batch to train on, whose tokens were prepared last. */
  stage(tokens: Uint32Array, targets: Int32Array, batch?: MicroBatch, slot = 0): void {
    const inputs = this.model.slots[slot];
    this.writeBatch(tokens, targets, slot);
    this.program.write(inputs.order, this.#order);
    this.program.write(inputs.runs, this.#runs);
    if (batch) {
      this.#dropout[0] = batch.seed;
      this.#dropout[1] = batch.step;
      this.#dropout[2] = batch.firstRow;
      this.program.write(inputs.dropoutState, this.#dropout);
    }
  }

  /** Forward and backward of a micro-batch through the whole model; behind the `last`, gradients are summed over ranks. */
  async train(tokens: Uint32Array, targets: Int32Array, batch?: MicroBatch, last = true): Promise<void> {
    this.prepare(tokens);
    this.stage(tokens, targets, batch);
    await this.runWhole(last);
  }

  /** Forward and backward of the micro-batch that is staged. */
  async runWhole(last = true): Promise<void> {
    await this.program.run("train", { last });
  }

  /** One action of a schedule, on a micro-batch that is staged, through one part of the model. */
  async runPart(kind: Action["kind"], chunk: number, slot: number): Promise<void> {
    await this.program.run(segmentName(kind, this.model.layout, chunk, slot));
  }

  /** Clips the gradients, takes an optimizer step and zeroes them. */
  async update(options: Omit<AdamWStep, "gradientScale">): Promise<void> {
    fillHyper(this.#hyper, { ...options, gradientScale: 1 / this.lossScale });
    this.program.write(this.model.hyper, this.#hyper);
    if (this.model.graph.segments.has("reduce")) await this.program.run("reduce");
    await this.program.run("update");
  }

  /** Adds the losses of a batch to the sum. */
  async evaluate(tokens: Uint32Array, targets: Int32Array): Promise<void> {
    this.writeBatch(tokens, targets);
    const { parts, total } = this.model.layout;
    if (total === 1) return await this.program.run("evaluate");
    for (let chunk = 0; chunk < parts.length; chunk++) await this.program.run(`evaluate ${chunk}`);
  }

  /** The sum of losses since `beginStep`. */
  async lossSum(): Promise<number> {
    return (await this.program.readInto(this.model.lossSum, this.#scalar))[0];
  }

  /** Global gradient norm before clipping, of the last `update`. */
  async gradientNorm(): Promise<number> {
    return Math.sqrt((await this.program.readInto(this.model.sumOfSquares, this.#scalar))[0]) / this.lossScale;
  }

  /** Frees the buffers. */
  destroy(): void {
    this.program.destroy();
  }
}
