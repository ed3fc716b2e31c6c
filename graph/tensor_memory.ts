/**
 * The buffers of a plan on a device: tensors in and out.
 * @module
 */

import type { Device } from "../gpu/device.ts";
import { fromHalves, type Halves, toHalves } from "./halves.ts";
import type { Plan } from "./plan.ts";
import { bytesOf, elementCount, isHalf, type Tensor } from "./tensor.ts";

/** What tensors are written from and read into; of halves f32, which are converted, or the bits. */
export type Numbers = Float32Array | Uint32Array | Int32Array | Halves;

/** Memory of f32 seen as that of the elements of `tensor`, for moving these as they are: as many 16-bit words of halves. */
export function asElements(tensor: Tensor, memory: Float32Array): Float32Array | Halves {
  return isHalf(tensor.dtype) ? new Uint16Array(memory.buffer, memory.byteOffset, memory.length) : memory;
}

/** Memory of all tensors of a plan. */
export class TensorMemory {
  /** Halves on their way to and from f32. */
  #halves = new Uint16Array(0);

  /** @param device that the buffers belong to @param plan which tensor lies where @param buffers of the plan's sizes */
  constructor(readonly device: Device, readonly plan: Plan, readonly buffers: readonly GPUBuffer[]) {}

  /**
   * Uploads all elements of `tensor`, or those from `start` on; ordered before the next `run`. A tensor of halves takes
   * f32, which it rounds, or the bits of its elements.
   */
  write(tensor: Tensor, data: Numbers, start = 0): void {
    if (start + data.length > elementCount(tensor)) throw new RangeError(`${data.length} elements for ${tensor.name}`);
    const { dtype } = tensor;
    const converts = isHalf(dtype) && data instanceof Float32Array;
    const bits = converts ? toHalves(data, dtype, this.#room(data.length)) : data;
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
    if (isHalf(dtype) && target instanceof Float32Array) {
      fromHalves(await this.readInto(tensor, this.#room(target.length), start), dtype, target);
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

  #room(length: number): Uint16Array<ArrayBuffer> {
    if (this.#halves.length < length) this.#halves = new Uint16Array(length);
    return this.#halves.subarray(0, length);
  }

  /** All elements of a tensor of floats. */
  read(tensor: Tensor): Promise<Float32Array> {
    return this.readInto(tensor, new Float32Array(elementCount(tensor)));
  }
}
