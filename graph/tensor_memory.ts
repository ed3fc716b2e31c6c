/**
 * The buffers of a plan on a device: tensors in and out.
 * @module
 */

import type { Device } from "../gpu/device.ts";
import { fromHalves, toHalves } from "./halves.ts";
import type { Plan } from "./plan.ts";
import { bytesOf, elementCount, type Tensor } from "./tensor.ts";

type Numbers = Float32Array | Uint32Array | Int32Array | Uint16Array<ArrayBuffer>;

/** Memory of all tensors of a plan. */
export class TensorMemory {
  /** @param device that the buffers belong to @param plan which tensor lies where @param buffers of the plan's sizes */
  constructor(readonly device: Device, readonly plan: Plan, readonly buffers: readonly GPUBuffer[]) {}

  /**
   * Uploads all elements of `tensor`, or those from `start` on; ordered before the next `run`. A tensor of halves takes
   * f32, which it rounds, or the bits of its elements.
   */
  write(tensor: Tensor, data: Numbers, start = 0): void {
    if (start + data.length > elementCount(tensor)) throw new RangeError(`${data.length} elements for ${tensor.name}`);
    const { dtype } = tensor;
    const bits = (dtype === "f16" || dtype === "bf16") && data instanceof Float32Array ? toHalves(data, dtype) : data;
    for (const place of this.plan.placements[tensor.id]) {
      const from = Math.max(start, place.start);
      const to = Math.min(start + data.length, place.start + place.length);
      if (from >= to || place.buffer < 0) continue;
      const whole = from === start && to === start + data.length;
      const piece = whole ? bits : bits.subarray(from - start, to - start);
      this.device.write(this.buffers[place.buffer], place.offset + (from - place.start) * bytesOf(dtype), piece);
    }
  }

  /**
   * Reads elements of `tensor` from `start` on into `target`, waiting for all submitted work. Of halves f32 are read, or
   * their bits.
   */
  async readInto<T extends Numbers>(tensor: Tensor, target: T, start = 0): Promise<T> {
    const { dtype } = tensor;
    if ((dtype === "f16" || dtype === "bf16") && target instanceof Float32Array) {
      fromHalves(await this.readInto(tensor, new Uint16Array(target.length), start), dtype, target);
      return target;
    }
    for (const place of this.plan.placements[tensor.id]) {
      const from = Math.max(start, place.start);
      const to = Math.min(start + target.length, place.start + place.length);
      if (from >= to) continue;
      if (place.buffer < 0) throw new Error(`No op uses ${tensor.name}: it has no memory`);
      const piece = target.subarray(from - start, to - start);
      const offset = place.offset + (from - place.start) * bytesOf(dtype);
      await this.device.readBack(this.buffers[place.buffer], offset, piece);
    }
    return target;
  }

  /** All elements of a tensor of floats. */
  read(tensor: Tensor): Promise<Float32Array> {
    return this.readInto(tensor, new Float32Array(elementCount(tensor)));
  }
}
