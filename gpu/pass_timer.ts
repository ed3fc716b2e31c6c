/**
 * How long the device itself is at work: timestamps at the beginning and the end of passes.
 * @module
 */

import type { Device } from "./device.ts";

/** Queries that WebGPU allows in a set: two a pass. */
const queries = 4096;

/** Times passes. Give it to a device as `Device.passTimer`, whose program's passes it times from then on. */
export class PassTimer {
  readonly #device: Device;
  readonly #set: GPUQuerySet;
  readonly #resolved: GPUBuffer;
  #used = 0;

  /** True if the device can tell times. */
  static works(device: Device): boolean {
    return device.gpu.features.has("timestamp-query");
  }

  constructor(device: Device) {
    this.#device = device;
    this.#set = device.gpu.createQuerySet({ type: "timestamp", count: queries });
    this.#resolved = device.createBuffer(queries * 8, GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC);
  }

  /** What the next pass is begun with. */
  describePass(): GPUComputePassDescriptor {
    if (this.#used + 2 > queries) throw new Error(`More than ${queries / 2} passes are timed at once`);
    const first = this.#used;
    this.#used += 2;
    return {
      timestampWrites: {
        querySet: this.#set,
        beginningOfPassWriteIndex: first,
        endOfPassWriteIndex: first + 1,
      },
    };
  }

  /** Sum of the times of all passes since the last call, in ms. Waits for them. */
  async take(): Promise<number> {
    const used = this.#used;
    this.#used = 0;
    if (used === 0) return 0;
    const encoder = this.#device.gpu.createCommandEncoder();
    encoder.resolveQuerySet(this.#set, 0, used, this.#resolved, 0);
    this.#device.gpu.queue.submit([encoder.finish()]);
    const times = new BigUint64Array(used);
    await this.#device.readBack(this.#resolved, 0, times);
    let nanoseconds = 0n;
    for (let i = 0; i < used; i += 2) nanoseconds += times[i + 1] - times[i];
    return Number(nanoseconds) / 1e6;
  }

  /** Frees its memory. */
  destroy(): void {
    this.#set.destroy();
    this.#resolved.destroy();
  }
}
