/**
 * Windows that kernels read as textures: which texture, and when it must be filled.
 * @module
 */

import { imageSize, maximumImageExtent } from "../gpu/bindings.ts";
import type { Dispatch, Target, Window } from "./dispatch.ts";
import { bytesOf, rowSize, type Tensor } from "./tensor.ts";

/** A texture's size, in vectors of four, and whether these are halves. */
export interface ImageShape {
  readonly halves: boolean;
  /** For flat tensors, however many rows of vectors they are: as high as the largest of them. */
  readonly flat: boolean;
  readonly width: number;
  readonly height: number;
}

/** Vectors in a row of an image of a flat tensor; its last row may be shorter. */
const flatWidth = 256;

/** The texture that a window is bound as. */
export interface ImageUse {
  /** Index in `Plan.images`. */
  readonly image: number;
  /** The window is copied into it before; otherwise it is there already. */
  readonly copy: boolean;
}

/** A dispatch, what its op writes, and which images it reads. */
interface Reader extends Dispatch {
  readonly op: { readonly outputs: readonly Tensor[] };
  readonly images?: readonly (ImageUse | undefined)[];
}

/** `window` as an image of its tensor's rows (those of a flat tensor are `flatWidth` vectors), or undefined where it cannot be one. */
export function imageOf(window: Window): Window | undefined {
  const size = isFlat(window.tensor) ? 4 * flatWidth : rowSize(window.tensor);
  const bytes = bytesOf(window.tensor.dtype);
  const fits = size * bytes % 256 === 0 &&
    imageSize(size / 4, window.length / size, bytes === 2).every((extent) => extent <= maximumImageExtent);
  return fits ? { ...window, image: size / 4 } : undefined;
}

function isFlat({ shape }: Tensor): boolean {
  return shape.length === 1;
}

/** What is copied for a dispatch pays from so many bytes on: fewer cost more by the pause between two passes than they save. */
const leastBytes = 2 ** 20;

/** Windows that a dispatch reads, as images where that is faster, on software drivers, and can be. */
export function imagesIfFaster({ capabilities }: Target, windows: readonly Window[]): Window[] {
  const bytes = windows.reduce((sum, { tensor, length }) => sum + bytesOf(tensor.dtype) * length, 0);
  return windows.map((window) =>
    (capabilities.type === "cpu" && bytes >= leastBytes ? imageOf(window) : undefined) ?? window
  );
}

/**
 * A kernel's text in which the storage that is bound as an image is declared as one, whose vectors are counted through all rows.
 * What a kernel reads and writes may be bound twice, as storage and by a later binding as an image: it is read from that.
 */
export function declareImages(text: string, windows: readonly (Window | undefined)[]): string {
  return text.replaceAll(
    /\{\{storage (\d+) (\w+) (\w+|\{\{\w+\}\})\}\}/g,
    (declared, binding: string, name: string, type: string) => {
      const own = windows[Number(binding) - 1];
      if (own?.image) return `{{image ${binding} ${name} ${own.image}}}`;
      const read = windows.findIndex((other) =>
        other?.image && other.tensor === own?.tensor && other.start === own.start
      );
      if (read < 0) return declared;
      return `{{storage ${binding} ${name}Stored ${type}}}
fn store_${name}(i: u32, value: ${type}) { store_${name}Stored(i, value); }
{{image ${read + 1} ${name} ${windows[read]!.image}}}`;
    },
  );
}

/** What each binding of a dispatch is, from binding 1 on: `b` a buffer, `f` an image of f32, `h` one of halves. */
export function bindingsOf({ windows }: Dispatch): string {
  return windows.map((window) => !window?.image ? "b" : bytesOf(window.tensor.dtype) === 2 ? "h" : "f").join("");
}

/**
 * Replaces dispatches that read images by ones that know which, and returns the shapes of all images. A dispatch finds what an
 * earlier one of the same stretch had copied, unless that was written since, itself or as another tensor of the same memory (a
 * view, a bank); of each shape (all flat tensors have one) there are as many textures as one dispatch reads, and the one that was used longest ago is
 * filled anew.
 *
 * @param blocksOf the memory of a tensor
 */
export function assignImages<R extends Reader>(
  stretches: readonly { readonly dispatches: R[] }[],
  blocksOf: (tensor: Tensor) => readonly number[],
): ImageShape[] {
  const shapes: ImageShape[] = [];
  for (const { dispatches } of stretches) {
    const held = new Map<number, Held>();
    dispatches.forEach((dispatch, time) => {
      if (/[fh]/.test(bindingsOf(dispatch))) {
        dispatches[time] = { ...dispatch, images: assign(dispatch, time, shapes, held) };
      }
      const written = new Set(dispatch.op.outputs.flatMap(blocksOf));
      for (const [image, { tensor }] of held) {
        if (blocksOf(tensor).some((block) => written.has(block))) held.delete(image);
      }
    });
  }
  return shapes;
}

/** What is in an image, and when that was read last. */
interface Held {
  readonly tensor: Tensor;
  readonly start: number;
  readonly length: number;
  used: number;
}

function assign(
  dispatch: Dispatch,
  time: number,
  shapes: ImageShape[],
  held: Map<number, Held>,
): (ImageUse | undefined)[] {
  const images: (ImageUse | undefined)[] = dispatch.windows.map(() => undefined);
  const wanted = dispatch.windows.flatMap((window, i) => {
    if (!window?.image) return [];
    const { tensor, start, length, image: width } = window;
    const shape = {
      width,
      height: Math.ceil(length / (4 * width)),
      halves: bytesOf(tensor.dtype) === 2,
      flat: isFlat(tensor),
    };
    return [{ i, tensor, start, length, shape }];
  });
  const fits = (image: number, { width, height, halves, flat }: ImageShape) => {
    const own = shapes[image];
    return own.width === width && own.halves === halves && own.flat === flat && (flat || own.height === height);
  };
  for (const want of wanted) {
    const found = [...held].find(([image, { tensor, start, length }]) =>
      fits(image, want.shape) && tensor === want.tensor && start === want.start && length === want.length
    );
    if (!found) continue;
    found[1].used = time;
    images[want.i] = { image: found[0], copy: false };
  }
  for (const want of wanted) {
    if (images[want.i]) continue;
    const free = shapes.map((_, image) => image)
      .filter((image) => fits(image, want.shape) && !(held.get(image)?.used === time))
      .sort((a, b) => (held.get(a)?.used ?? -1) - (held.get(b)?.used ?? -1));
    const image = free[0] ?? shapes.push(want.shape) - 1;
    if (want.shape.height > shapes[image].height) shapes[image] = want.shape;
    held.set(image, { tensor: want.tensor, start: want.start, length: want.length, used: time });
    images[want.i] = { image, copy: true };
  }
  return images;
}
