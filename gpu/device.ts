/**
 * One opened GPU: buffers, pipelines, transfers, and the errors that WebGPU keeps to itself.
 *
 * A device belongs to one thread: waiting for it blocks that thread until its queue has drained.
 * @module
 */

import { MachineError } from "../errors.ts";
import { imageFormat, imageSize } from "./bindings.ts";
import type { Capabilities } from "./capabilities.ts";
import { Pipelines, type ShaderSource } from "./pipelines.ts";
import type { Trace } from "./trace.ts";

export type { ShaderSource } from "./pipelines.ts";

/** Upload and read-back are cut into pieces of this size; larger ones made wgpu allocate staging memory without end. */
export const transferBytes = 16 * 2 ** 20;

/** Long loops let the event loop finish what they left behind this often, in ms. */
const settleMilliseconds = 2000;

/** An opened device. Make one with `openDevice`. */
export class Device {
  /** Buffers, pipelines and bind groups made so far; replay must not raise it. */
  objectsCreated = 0;
  /** Told of transfers and waits, while there is one. */
  trace: Trace | undefined;
  /** Times the passes of programs, while there is one. */
  passTimer: { describePass(): GPUComputePassDescriptor } | undefined;
  readonly #pipelines = new Pipelines(this);
  readonly #smallStaging: GPUBuffer;
  readonly #largeStaging: GPUBuffer;
  #synchronous = false;
  #ended = false;
  #failure: string | undefined;
  #pending = 0;
  #settled = performance.now();

  /** @param gpu the WebGPU device @param capabilities what it was found to do */
  constructor(readonly gpu: GPUDevice, public capabilities: Capabilities) {
    gpu.addEventListener("uncapturederror", (event) => {
      this.#failure ??= (event as GPUUncapturedErrorEvent).error.message;
    });
    gpu.lost.then((info) => {
      if (!this.#ended) this.#failure ??= `the device was lost (${info.message || info.reason})`;
    });
    this.#smallStaging = this.#staging(64 * 1024);
    this.#largeStaging = this.#staging(transferBytes);
  }

  #staging(size: number): GPUBuffer {
    this.objectsCreated++;
    return this.gpu.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  }

  /**
   * Learns whether a mapping is finished when `mapAsync` returns, as it is in Deno 2.9 (it drains the queue inside the
   * call) once a buffer has been mapped in the ordinary way; otherwise every read-back awaits.
   */
  async prepareReadBack(): Promise<void> {
    for (const staging of [this.#smallStaging, this.#largeStaging]) {
      await staging.mapAsync(GPUMapMode.READ);
      staging.getMappedRange(0, 8);
      staging.unmap();
    }
    const probe = this.createBuffer(256);
    const expected = new Uint32Array([0x4d757374, 0x65722121]);
    this.gpu.queue.writeBuffer(probe, 0, expected);
    this.#synchronous = true;
    const found = new Uint32Array(2);
    try {
      await this.readBack(probe, 0, found);
      this.#synchronous = found[0] === expected[0] && found[1] === expected[1];
    } catch {
      this.#synchronous = false;
    }
    probe.destroy();
  }

  /** Throws `MachineError` if the device reported an error or was lost since it was opened. */
  check(): void {
    if (this.#failure !== undefined) {
      throw new MachineError(`The GPU ${this.capabilities.name} failed: ${this.#failure}`, { restartable: true });
    }
  }

  /** A zeroed buffer for tensors. */
  createBuffer(size: number, usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST) {
    this.objectsCreated++;
    return this.gpu.createBuffer({ size, usage });
  }

  /**
   * Creates buffers of these sizes, or returns undefined if the device has no room for them.
   * Some drivers refuse large buffers although there is memory, so a caller may try again with smaller ones.
   */
  async createBuffers(sizes: readonly number[]): Promise<GPUBuffer[] | undefined> {
    this.gpu.pushErrorScope("out-of-memory");
    const buffers = sizes.map((size) => this.createBuffer(size));
    if (!(await this.gpu.popErrorScope())) return buffers;
    for (const buffer of buffers) buffer.destroy();
    return undefined;
  }

  /** A texture of at least `width` x `height` vectors of four f32, or of four halves, for reading. */
  createImage(width: number, height: number, halves: boolean): GPUTexture {
    this.objectsCreated++;
    const usage = GPUTextureUsage.STORAGE_BINDING | GPUTextureUsage.COPY_DST;
    return this.gpu.createTexture({ size: imageSize(width, height, halves), format: imageFormat(halves), usage });
  }

  /** The layout of these bindings (`bindings.ts`). */
  bindGroupLayout(bindings: string): GPUBindGroupLayout {
    return this.#pipelines.layout(bindings);
  }

  /**
   * The pipeline of a kernel with these bindings (`bindGroupLayout`), compiled by the time the promise resolves; equal text is
   * compiled once. Throws on bad WGSL.
   */
  pipeline(source: ShaderSource, bindings: string): Promise<GPUComputePipeline> {
    return this.#pipelines.get(source, bindings);
  }

  /** The kernel of such a pipeline compiled once more: of the two each is the other's twin. */
  twin(pipeline: GPUComputePipeline): GPUComputePipeline {
    return this.#pipelines.twin(pipeline);
  }

  /** Uploads `data` to `buffer` at byte `offset`; ordered before whatever is submitted next. */
  write(buffer: GPUBuffer, offset: number, data: ArrayBufferView<ArrayBufferLike>): void {
    this.trace?.begin("copies to the device", "copy");
    this.#write(buffer, offset, data);
    this.trace?.end();
  }

  #write(buffer: GPUBuffer, offset: number, data: ArrayBufferView<ArrayBufferLike>): void {
    const { queue } = this.gpu;
    if (data.byteLength <= transferBytes) {
      queue.writeBuffer(buffer, offset, data as BufferSource);
      return;
    }
    for (let done = 0; done < data.byteLength; done += transferBytes) {
      const bytes = Math.min(transferBytes, data.byteLength - done);
      queue.writeBuffer(
        buffer,
        offset + done,
        new Uint8Array(data.buffer, data.byteOffset + done, bytes) as BufferSource,
      );
      // Staging memory of an upload is freed only after a submit.
      queue.submit([]);
      this.drain();
    }
  }

  /**
   * Copies bytes of `buffer` from `offset` into `target`, waiting for all submitted work. Finished when the call
   * returns (the promise is there for runtimes whose mapping takes a turn of the event loop). Multiples of 4 bytes.
   */
  async readBack(buffer: GPUBuffer, offset: number, target: ArrayBufferView<ArrayBufferLike>): Promise<void> {
    const bytes = new Uint8Array(target.buffer, target.byteOffset, target.byteLength);
    const staging = bytes.byteLength <= this.#smallStaging.size ? this.#smallStaging : this.#largeStaging;
    this.trace?.begin("copies from the device", "copy");
    for (let done = 0; done < bytes.byteLength; done += staging.size) {
      const size = Math.min(staging.size, bytes.byteLength - done);
      const encoder = this.gpu.createCommandEncoder();
      encoder.copyBufferToBuffer(buffer, offset + done, staging, 0, size);
      this.gpu.queue.submit([encoder.finish()]);
      this.trace?.begin("waits for the device", "device");
      const mapping = staging.mapAsync(GPUMapMode.READ, 0, size);
      try {
        if (this.#synchronous) this.#leave(mapping);
        else await mapping;
        this.trace?.end();
        bytes.set(new Uint8Array(staging.getMappedRange(0, size)), done);
        staging.unmap();
      } catch (error) {
        // What is behind it comes as an event, in a later turn.
        await this.settle();
        this.check();
        throw error;
      }
    }
    this.trace?.end();
    this.check();
  }

  /** Waits until all submitted work is done. Blocks the thread. */
  drain(): void {
    this.trace?.begin("waits for the device", "device");
    this.#leave(this.gpu.queue.onSubmittedWorkDone());
    this.trace?.end();
  }

  /** Leaves a promise un-awaited whose effect is there already. */
  #leave(promise: Promise<unknown>): void {
    this.#pending++;
    const done = () => void this.#pending--;
    promise.then(done, done);
  }

  /** Lets the event loop finish what un-awaited mappings left behind. */
  async settle(): Promise<void> {
    this.#settled = performance.now();
    for (let turns = 0; turns === 0 || (this.#pending > 0 && turns < 1000); turns++) {
      await new Promise((resolve) => setTimeout(resolve, turns === 0 ? 0 : 5));
    }
  }

  /** The same, but only every two seconds, then true: for long loops. */
  async settleNowAndThen(): Promise<boolean> {
    const due = performance.now() - this.#settled > settleMilliseconds;
    if (due) await this.settle();
    return due;
  }

  /** Ends the device and frees its memory. */
  async destroy(): Promise<void> {
    this.#ended = true;
    this.drain();
    await this.settle();
    this.#smallStaging.destroy();
    this.#largeStaging.destroy();
    this.gpu.destroy();
    await this.gpu.lost;
  }
}
