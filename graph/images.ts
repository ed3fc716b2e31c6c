/**
 * Windows that kernels read as textures: which texture, and when it must be filled.
 * @module
 */

import { imageWidth } from "../gpu/bindings.ts";
import { type Dispatch, maximumImageExtent, type Target, type Window } from "./dispatch.ts";
import { bytesOf, rowSize, type Tensor } from "./tensor.ts";

/** A texture's size, in vectors of four, and whether these are halves. */
export interface ImageShape {
  readonly halves: boolean;
  readonly width: number;
  readonly height: number;
}

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

/** `window` as an image of its tensor's rows, or undefined where it cannot be one. */
export function imageOf(window: Window): Window | undefined {
  const size = rowSize(window.tensor);
  const bytes = bytesOf(window.tensor.dtype);
  const fits = size * bytes % 256 === 0 && imageWidth(size / 4, bytes === 2) <= maximumImageExtent &&
    window.length / size <= maximumImageExtent;
  return fits ? { ...window, image: size / 4 } : undefined;
}

/** `window` as an image where that is faster to read, on software drivers, and can be. */
export function imageIfFaster({ capabilities }: Target, window: Window): Window {
  return (capabilities.type === "cpu" ? imageOf(window) : undefined) ?? window;
}

/** A kernel's text in which the storage that is bound as an image is declared as one, whose vectors are counted through all rows. */
export function declareImages(text: string, windows: readonly (Window | undefined)[]): string {
  return text.replaceAll(
    /\{\{storage (\d+) (\w+) (\w+|\{\{\w+\}\})\}\}/g,
    (declared, binding: string, name: string) => {
      const width = windows[Number(binding) - 1]?.image;
      return width ? `{{image ${binding} ${name} ${width}}}` : declared;
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
 * view, a bank); of each shape there are as many textures as one dispatch reads, and the one that was used longest ago is
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
    const held = new Map<number, { tensor: Tensor; start: number; used: number }>();
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

function assign(
  dispatch: Dispatch,
  time: number,
  shapes: ImageShape[],
  held: Map<number, { tensor: Tensor; start: number; used: number }>,
): (ImageUse | undefined)[] {
  const images: (ImageUse | undefined)[] = dispatch.windows.map(() => undefined);
  const wanted = dispatch.windows.flatMap((window, i) => {
    if (!window?.image) return [];
    const { tensor, start, length, image: width } = window;
    return [{ i, tensor, start, width, height: length / (4 * width), halves: bytesOf(tensor.dtype) === 2 }];
  });
  const fits = (image: number, { width, height, halves }: ImageShape) =>
    shapes[image].width === width && shapes[image].height === height && shapes[image].halves === halves;
  for (const want of wanted) {
    const found = [...held].find(([image, { tensor, start }]) =>
      fits(image, want) && tensor === want.tensor && start === want.start
    );
    if (!found) continue;
    found[1].used = time;
    images[want.i] = { image: found[0], copy: false };
  }
  for (const want of wanted) {
    if (images[want.i]) continue;
    const free = shapes.map((_, image) => image)
      .filter((image) => fits(image, want) && !(held.get(image)?.used === time))
      .sort((a, b) => (held.get(a)?.used ?? -1) - (held.get(b)?.used ?? -1));
    const image = free[0] ?? shapes.push({ width: want.width, height: want.height, halves: want.halves }) - 1;
    held.set(image, { tensor: want.tensor, start: want.start, used: time });
    images[want.i] = { image, copy: true };
  }
  return images;
}
