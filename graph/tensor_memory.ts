/**
 * The buffers of a plan on a device: tensors in and out.
 * @module
 */

import type { Device } from "../gpu/device.ts";
import type { Plan } from "./plan.ts";
import { elementCount, type Tensor } from "./tensor.ts";

/** Memory of all tensors of a plan. */
export class TensorMemory {
  /** @param device that the buffers belong to @param plan which tensor lies where @param buffers of the plan's sizes */
  constructor(readonly device: Device, readonly plan: Plan, readonly buffers: readonly GPUBuffer[]) {}

  /** Uploads all elements of `tensor`, or those from `start` on; ordered before the next `run`. */
  write(tensor: Tensor, data: Float32Array | Uint32Array | Int32Array, start = 0): void {
    if (start + data.length > elementCount(tensor)) throw new RangeError(`${data.length} elements for ${tensor.name}`);
    for (const place of this.plan.placements[tensor.id]) {
      const from = Math.max(start, place.start);
      const to = Math.min(start + data.length, place.start + place.length);
      if (from >= to || place.buffer < 0) continue;
      const whole = from === start && to === start + data.length;
      const piece = whole ? data : data.subarray(from - start, to - start);
      this.device.write(this.buffers[place.buffer], place.offset + (from - place.start) * 4, piece);
    }
  }

  /** Reads elements of `tensor` from `start` on into `target`, waiting for all submitted work. */
  async readInto<T extends Float32Array | Uint32Array | Int32Array>(tensor: Tensor, target: T, start = 0): Promise<T> {
    for (const place of this.plan.placements[tensor.id]) {
      const from = Math.max(start, place.start);
      const to = Math.min(start + target.length, place.start + place.length);
      if (from >= to) continue;
      if (place.buffer < 0) throw new Error(`No op uses ${tensor.name}: it has no memory`);
      const piece = target.subarray(from - start, to - start);
      await this.device.readBack(this.buffers[place.buffer], place.offset + (from - place.start) * 4, piece);
    }
    return target;
  }

  /** All elements of an f32 tensor. */
  read(tensor: Tensor): Promise<Float32Array> {
    return this.readInto(tensor, new Float32Array(elementCount(tensor)));
  }
}
