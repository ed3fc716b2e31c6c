/**
 * A plan made concrete on one device: buffers, pipelines and bind groups, made once and replayed.
 *
 * Dispatches go out in submits of about 120 ms by measured time, in a row without waiting: drivers kill what runs for
 * seconds. The first run of a segment uses guesses, the second is timed (with software drivers the third too: `twins.ts`),
 * from then on only command buffers are made.
 * @module
 */

import { MachineError } from "../errors.ts";
import type { Device } from "../gpu/device.ts";
import { compileKernels } from "./compile.ts";
import { assertSplittable, type Box, cutGrid, dispatchMilliseconds, guessMilliseconds, submitEnds } from "./grid.ts";
import type { CollectiveAttributes } from "./collective.ts";
import type { CollectiveExecutor, CreateOptions, OpTime } from "./executor.ts";
import type { Graph, Op } from "./graph.ts";
import { bindingsOf } from "./images.ts";
import { around, encodePieces, entries, type Memory, type Piece, type PieceStretch, type Segment } from "./pieces.ts";
import { formatBytes, makePlan, type Plan, type PlannedDispatch } from "./plan.ts";
import { TensorMemory } from "./tensor_memory.ts";
import { weighTwins } from "./twins.ts";

const uniformStride = 256;
/** Behind this much work, in ms, the device is waited for: what has come to an end tells that it works. */
const drainMilliseconds = 2000;

/** How to run a segment. */
export interface RunOptions {
  /** False in all micro-batches of a step but the last; true if left out. */
  readonly last?: boolean;
}

/** A replayable program. */
export class Program extends TensorMemory implements Memory {
  readonly #segments = new Map<string, Segment>();
  readonly #uniforms: GPUBuffer[] = [];
  /** Uniform blocks that are not there yet, for one upload. */
  #gathered: Uint32Array[] = [];
  #slot = 0;
  readonly #absent: GPUBuffer;
  /** Textures of `plan.images`. */
  readonly images: readonly GPUTexture[];
  /** Submitted since the device was last waited for, in ms. */
  #underWay = 0;

  /** Carries out collectives; set before a segment that has some is run. */
  executor: CollectiveExecutor | undefined;

  private constructor(device: Device, plan: Plan, buffers: readonly GPUBuffer[]) {
    super(device, plan, buffers);
    this.#absent = device.createBuffer(uniformStride);
    this.images = plan.images.map(({ width, height, halves }) => device.createImage(width, height, halves));
  }

  /**
   * Plans `graph` for `device` and makes the program.
   * Buffers are halved down to 16 MiB where the device refuses them although there is memory.
   */
  static async create(device: Device, graph: Graph, { check, compiled }: CreateOptions = {}): Promise<Program> {
    let { chunkBytes } = device.capabilities;
    let plan = makePlan(graph, device.capabilities, chunkBytes);
    check?.(plan);
    let buffers = await device.createBuffers(plan.buffers);
    while (!buffers) {
      chunkBytes /= 2;
      if (chunkBytes < 16 * 2 ** 20) {
        throw new MachineError(
          `${device.capabilities.name} refused ${formatBytes(plan.totalBytes)} of buffers even in small pieces: ` +
            `lower --micro-batch-size, close programs that use the GPU, or enable Resizable BAR (Above 4G decoding)`,
        );
      }
      plan = makePlan(graph, device.capabilities, chunkBytes);
      buffers = await device.createBuffers(plan.buffers);
    }
    const program = new Program(device, plan, buffers);
    await program.#prepare(compiled).catch((error) => {
      program.destroy();
      throw error;
    });
    return program;
  }

  async #prepare(compiled: CreateOptions["compiled"]): Promise<void> {
    const { device, plan } = this;
    assertSplittable(plan, device.capabilities);
    await compileKernels(device, plan, compiled);
    for (const [name, planned] of plan.segments) {
      const stretches: PieceStretch[] = [];
      for (const { dispatches, collective } of planned) {
        const pieces: Piece[] = [];
        for (const planned of dispatches) {
          const pipeline = await device.pipeline(planned.kernel, bindingsOf(planned));
          const guess = guessMilliseconds(planned, device.capabilities);
          const boxes = cutGrid(planned.workgroups, Math.ceil(guess / dispatchMilliseconds));
          pieces.push(...this.#makePieces(planned, pipeline, boxes, guess, around(planned, this)));
        }
        stretches.push({ pieces, ends: submitEnds(pieces), collective });
      }
      this.#segments.set(name, { stretches, runs: 0 });
    }
    this.#flushUniforms();
    device.check();
  }

  #makePieces(
    planned: PlannedDispatch,
    pipeline: GPUComputePipeline,
    boxes: Box[],
    milliseconds: number,
    { copies, zeroes }: Pick<Piece, "copies" | "zeroes">,
  ): Piece[] {
    const { device } = this;
    return boxes.map((box, part) => {
      const slots = 65536 / uniformStride;
      if (this.#slot % slots === 0) {
        this.#uniforms.push(device.createBuffer(65536, GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST));
        this.#gathered.push(new Uint32Array(65536 / 4));
      }
      const words = this.#gathered[this.#gathered.length - 1];
      const uniformOffset = (this.#slot % slots) * uniformStride;
      words.set([...box.origin, ...planned.uniforms], uniformOffset / 4);
      this.#slot++;
      device.objectsCreated++;
      const bindGroup = device.gpu.createBindGroup({
        layout: device.bindGroupLayout(bindingsOf(planned)),
        entries: [
          {
            binding: 0,
            resource: { buffer: this.#uniforms[this.#uniforms.length - 1], offset: uniformOffset, size: uniformStride },
          },
          ...entries(planned, this, this.#absent),
        ],
      });
      const share = milliseconds * box.size[0] * box.size[1] * box.size[2] /
        (planned.workgroups[0] * planned.workgroups[1] * planned.workgroups[2]);
      const own = { copies: part === 0 ? copies : [], zeroes: part === boxes.length - 1 ? zeroes : [] };
      return { planned, pipeline, bindGroup, ...own, origin: box.origin, size: box.size, milliseconds: share };
    });
  }

  #flushUniforms(): void {
    const first = this.#uniforms.length - this.#gathered.length;
    this.#gathered.forEach((words, i) => this.device.write(this.#uniforms[first + i], 0, words));
    this.#gathered = [];
    this.#slot = 0;
  }

  #segment(name: string): Segment {
    const segment = this.#segments.get(name);
    if (!segment) throw new Error(`The program has no segment ${name}`);
    return segment;
  }

  #submit(pieces: readonly Piece[], from: number, to: number): void {
    const { gpu, passTimer } = this.device;
    const encoder = gpu.createCommandEncoder();
    encodePieces(encoder, pieces.slice(from, to), () => passTimer?.describePass());
    gpu.queue.submit([encoder.finish()]);
  }

  /**
   * Submits a segment. Waits only now and then in much work, in the second run, which is timed, and for collectives. Without
   * these it is finished when the call returns.
   */
  async run(name: string, { last = true }: RunOptions = {}): Promise<void> {
    const segment = this.#segment(name);
    const timed = segment.runs++ === 1 || segment.trial !== undefined;
    const deferred: (() => Promise<void>)[] = [];
    for (const stretch of segment.stretches) {
      if (timed) this.#calibrate(stretch);
      else this.#submitStretch(stretch);
      // What was put off runs while the device computes this stretch.
      for (const finish of deferred.splice(0)) await finish();
      const { collective } = stretch;
      if (!collective || (collective.attributes.last && !last)) continue;
      const rest = await this.#execute(collective);
      if (rest) deferred.push(rest);
    }
    if (timed) segment.trial = weighTwins(this.device, segment);
    for (const finish of deferred) await finish();
    await this.executor?.settle?.();
  }

  #submitStretch({ pieces, ends }: PieceStretch): void {
    let from = 0;
    for (const end of ends) {
      this.#submit(pieces, from, end);
      for (let i = from; i < end; i++) this.#underWay += pieces[i].milliseconds;
      from = end;
      if (this.#underWay > drainMilliseconds) this.#drain();
    }
  }

  #drain(): void {
    this.device.drain();
    this.#underWay = 0;
    this.executor?.alive?.();
  }

  async #execute(op: Op<CollectiveAttributes>): Promise<(() => Promise<void>) | undefined> {
    if (!this.executor) throw new Error(`The program has nothing that carries out ${op.name}`);
    const rest = await this.executor.execute(op, this);
    if (!rest) return undefined;
    if (op.attributes.deferred) return rest;
    await rest();
    await this.executor.settle?.();
    return undefined;
  }

  /** Runs the pieces one by one, waiting for each, then cuts and groups them by the time they took. */
  #calibrate(segment: PieceStretch): void {
    this.device.drain();
    const floor = this.#emptyMilliseconds();
    for (let i = 0; i < segment.pieces.length; i++) {
      const start = performance.now();
      this.#submit(segment.pieces, i, i + 1);
      this.#drain();
      segment.pieces[i].milliseconds = Math.max(0.001, performance.now() - start - floor);
    }
    const isLong = ({ milliseconds }: Piece) => milliseconds > dispatchMilliseconds;
    if (segment.pieces.some(isLong)) {
      segment.pieces = segment.pieces.flatMap((piece) => isLong(piece) ? this.#cut(piece) : [piece]);
    }
    if (this.#gathered.length > 0) this.#flushUniforms();
    segment.ends = submitEnds(segment.pieces);
  }

  #cut(piece: Piece): Piece[] {
    const count = Math.ceil(piece.milliseconds / dispatchMilliseconds);
    const boxes = cutGrid(piece.size, count).map((box) => ({
      size: box.size,
      origin: box.origin.map((value, axis) => value + piece.origin[axis]) as [number, number, number],
    }));
    const volume = piece.size[0] * piece.size[1] * piece.size[2];
    const { workgroups } = piece.planned;
    const whole = piece.milliseconds * workgroups[0] * workgroups[1] * workgroups[2] / volume;
    return this.#makePieces(piece.planned, piece.pipeline, boxes, whole, piece);
  }

  #emptyMilliseconds(): number {
    let best = Infinity;
    for (let i = 0; i < 5; i++) {
      const start = performance.now();
      this.#submit([], 0, 0);
      this.device.drain();
      best = Math.min(best, performance.now() - start);
    }
    return best;
  }

  /** Has the next run of every segment timed anew, for a device whose speed has changed. */
  recalibrate(): void {
    for (const segment of this.#segments.values()) segment.runs = Math.min(segment.runs, 1);
  }

  /** Runs a segment dispatch by dispatch and returns the time of each op, in order. */
  profile(name: string): OpTime[] {
    const { stretches } = this.#segment(name);
    for (const stretch of stretches) this.#calibrate(stretch);
    const times: OpTime[] = [];
    let last: PlannedDispatch | undefined;
    for (const { planned, milliseconds } of stretches.flatMap(({ pieces }) => pieces)) {
      const { op, kernel, flops, bytes } = planned;
      const before = times[times.length - 1];
      if (planned === last) times[times.length - 1] = { ...before, milliseconds: before.milliseconds + milliseconds };
      else times.push({ op, kernel: `${kernel.file} ${kernel.variant}`.trim(), milliseconds, flops, bytes });
      last = planned;
    }
    return times;
  }

  /** Runs a segment op by op, calling `after` behind each with nothing else under way. */
  async step(name: string, after: (op: Op) => Promise<void>, { last = true }: RunOptions = {}): Promise<void> {
    for (const { pieces, collective } of this.#segment(name).stretches) {
      for (let i = 0; i < pieces.length; i++) {
        this.#submit(pieces, i, i + 1);
        const { op } = pieces[i].planned;
        if (i + 1 === pieces.length || pieces[i + 1].planned.op !== op) await after(op);
      }
      if (!collective || (collective.attributes.last && !last)) continue;
      await (await this.#execute(collective))?.();
      await this.executor?.settle?.();
      await after(collective as Op);
    }
  }

  /** Submits of one run of a segment: how long each of its dispatches is predicted to take, in ms. */
  predict(name: string): number[][] {
    return this.#segment(name).stretches.flatMap(({ pieces, ends }) =>
      ends.map((end, i) => pieces.slice(ends[i - 1] ?? 0, end).map(({ milliseconds }) => milliseconds))
    );
  }

  /** Frees the buffers; the device stays. */
  destroy(): void {
    this.device.drain();
    for (const memory of [...this.buffers, ...this.#uniforms, this.#absent, ...this.images]) memory.destroy();
  }
}
