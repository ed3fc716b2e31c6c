/**
 * The tuner: times a few variants of each class of product on a device and keeps the fastest whose numbers are those of the
 * plain kernel.
 * @module
 */

import { MachineError, messageOf } from "../errors.ts";
import type { ProductVariant, ProductVariants } from "../gpu/capabilities.ts";
import type { Device } from "../gpu/device.ts";
import { Graph } from "../graph/graph.ts";
import { Program } from "../graph/program.ts";
import type { DataType, Tensor } from "../graph/tensor.ts";
import { matmul } from "./matmul.ts";
import { productCandidates, productClass, type Sizes } from "./matmul_variants.ts";
import type { MatmulLayout } from "./matmul_register.ts";

/** How much to try. */
export type TuningMode = "quick" | "full";

/** What became of a variant. */
export interface Trial {
  readonly variant: ProductVariant;
  /** Of one product; undefined if it was discarded. */
  readonly milliseconds: number | undefined;
  /** Why it was discarded. */
  readonly reason?: string;
}

/** What was tried for a class of products. */
export interface ClassTuning {
  readonly productClass: string;
  /** Rows, columns and steps of the product that was timed. */
  readonly sizes: Sizes;
  readonly trials: readonly Trial[];
  /** The fastest, or undefined where none was right or there was no time: then the built-in choice holds. */
  readonly chosen: ProductVariant | undefined;
  /** The mode of which all was tried; undefined where time was over before. */
  readonly tried: TuningMode | undefined;
}

/** The result of tuning a device. */
export interface Tuning {
  readonly classes: readonly ClassTuning[];
  /** What was chosen, by class. */
  readonly products: ProductVariants;
  /** Time that it took the last time. */
  readonly seconds: number;
}

/** Seconds that tuning may take, by mode; what is then not tried stays as built in, until the next time. */
const budgetSeconds: Readonly<Record<TuningMode, number>> = { quick: 6.5, full: 90 };
/** Element types of B. */
const typesOf: Readonly<Record<TuningMode, readonly DataType[]>> = { quick: ["f32"], full: ["f32", "bf16"] };
/** Candidates of a class, the likeliest first. */
const mostCandidates: Readonly<Record<TuningMode, number>> = { quick: 3, full: 12 };
/** A variant that takes longer to compile is discarded. */
const mostCompileSeconds = 3;
/** A sample takes at least this long, in ms, and a variant has this many samples. */
const sampleMilliseconds = 8;
const samples = 4;
/** Of the largest number; products in another order of sums differ by a hundredth of it. */
const tolerance = 1e-4;
/** A later candidate must be this much faster: noise does not decide. */
const worthwhile = 0.95;

/** What classes are timed by: products of a small GPT, of GPT-2, and last ones of few workgroups with long sums. */
const timedProducts: readonly { readonly layout: MatmulLayout; readonly sizes: Sizes }[] = [
  { layout: "NN", sizes: { M: 1024, N: 128, K: 256 } },
  { layout: "NT", sizes: { M: 1024, N: 128, K: 256 } },
  { layout: "TN", sizes: { M: 256, N: 256, K: 1024 } },
  { layout: "NN", sizes: { M: 1024, N: 768, K: 384 } },
  { layout: "NT", sizes: { M: 1024, N: 768, K: 384 } },
  { layout: "TN", sizes: { M: 768, N: 768, K: 512 } },
  { layout: "NN", sizes: { M: 64, N: 768, K: 3072 } },
  { layout: "NT", sizes: { M: 64, N: 768, K: 3072 } },
  { layout: "TN", sizes: { M: 128, N: 128, K: 8192 } },
];
/** Small, since it is the first thing that an unknown device does; edges are cut off for most tiles, but images can be, and sums be cut. */
const checked: Sizes = { M: 320, N: 192, K: 1024 };

function covers(found: ClassTuning | undefined, mode: TuningMode): boolean {
  return found?.tried === mode || found?.tried === "full";
}

/** True if nothing that `mode` tries is missing. */
export function isTuned(classes: readonly ClassTuning[], mode: TuningMode): boolean {
  const found = new Map(classes.map((tuned) => [tuned.productClass, tuned]));
  return typesOf[mode].every((b) =>
    timedProducts.every(({ layout, sizes }) => covers(found.get(productClass(layout, sizes, b)), mode))
  );
}

/** What was chosen for these classes. */
export function productsOf(classes: readonly ClassTuning[]): ProductVariants {
  return Object.fromEntries(classes.flatMap(({ productClass, chosen }) => chosen ? [[productClass, chosen]] : []));
}

/** Values of about the size of activations: random bits are slower or faster than these on some drivers. */
function values(count: number): Float32Array {
  let state = 12345;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32 - 0.5;
  });
}

/** A product to compute. */
interface Product {
  readonly layout: MatmulLayout;
  readonly sizes: Sizes;
  readonly b: DataType;
}

/** A program that computes one product with `variant`, and the tensor it writes. */
async function makeProduct(
  device: Device,
  { layout, sizes, b: dtype }: Product,
  variant: ProductVariant,
): Promise<[Program, Tensor]> {
  const { M, N, K } = sizes;
  const before = device.capabilities;
  device.capabilities = { ...before, products: { [productClass(layout, sizes, dtype)]: variant } };
  try {
    const graph = new Graph();
    const [aShape, bShape] = [layout === "TN" ? [K, M] : [M, K], layout === "NT" ? [N, K] : [K, N]];
    const a = graph.tensor("a", aShape, "input");
    const b = graph.tensor("b", bShape, "input", { dtype });
    const c = graph.tensor("c", [M, N], "output");
    graph.segment("product", () => void graph.add(matmul, [a, b], { layout }, { outputs: [c] }));
    const program = await Program.create(device, graph);
    program.write(a, values(M * K));
    program.write(b, values(N * K));
    return [program, c];
  } finally {
    device.capabilities = before;
  }
}

/** The plain kernel's variant. */
function plain(layout: MatmulLayout): ProductVariant {
  return { family: "direct", rows: 8, columns: layout === "NT" ? 4 : 1 };
}

/** The numbers of the product that is checked. */
async function numbersOf(
  device: Device,
  layout: MatmulLayout,
  b: DataType,
  variant: ProductVariant,
): Promise<Float32Array> {
  const [program, c] = await makeProduct(device, { layout, b, sizes: checked }, variant);
  try {
    await program.run("product");
    return await program.readInto(c, new Float32Array(checked.M * checked.N));
  } finally {
    program.destroy();
  }
}

/** Largest difference as a share of the largest number; NaN where there is one. */
function difference(actual: Float32Array, expected: Float32Array): number {
  let [largest, error] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    largest = Math.max(largest, Math.abs(expected[i]));
    const d = Math.abs(actual[i] - expected[i]);
    if (!(d <= error)) error = d;
  }
  return error / largest;
}

/** Milliseconds of a product by each program: the least of a few samples, taken in turn, so that a busy moment hits all. */
async function millisecondsOf(device: Device, programs: readonly Program[]): Promise<number[]> {
  const sample = async (program: Program, count: number) => {
    const start = performance.now();
    for (let i = 0; i < count; i++) await program.run("product");
    device.drain();
    return (performance.now() - start) / count;
  };
  const counts: number[] = [];
  for (const program of programs) {
    // The program times its second run itself.
    await sample(program, 2);
    counts.push(Math.max(1, Math.ceil(sampleMilliseconds / Math.max(await sample(program, 1), 0.01))));
  }
  const best = programs.map(() => Infinity);
  for (let round = 0; round < samples; round++) {
    for (const [i, program] of programs.entries()) best[i] = Math.min(best[i], await sample(program, counts[i]));
  }
  return best;
}

/** Why a variant is not timed: it does not compile, takes too long to, or has wrong numbers; undefined if it is. */
async function reasonAgainst(
  device: Device,
  kind: { layout: MatmulLayout; b: DataType },
  variant: ProductVariant,
  expected: Float32Array,
): Promise<string | undefined> {
  const start = performance.now();
  let actual: Float32Array;
  try {
    actual = await numbersOf(device, kind.layout, kind.b, variant);
  } catch (error) {
    // Others may do, unless it took the device with it.
    device.check();
    if (error instanceof MachineError) return messageOf(error);
    throw error;
  }
  const seconds = (performance.now() - start) / 1e3;
  if (seconds > mostCompileSeconds) return `took ${seconds.toFixed(1)} s to compile`;
  const error = difference(actual, expected);
  return error <= tolerance ? undefined : "wrong numbers";
}

/** How to tune. */
interface TuneOptions {
  /** What was found before: it is kept, and what is missing of `mode` is tried. */
  readonly before?: readonly ClassTuning[];
  /** Told of each class as it is done. */
  readonly tell?: (done: ClassTuning) => void;
  /** Seconds that it may take; the first class that is missing is tried to its end all the same. */
  readonly seconds?: number;
  /** What to try (tests have others). */
  readonly candidates?: typeof productCandidates;
}

/** Tunes `device` as `mode` says. */
export async function tuneProducts(
  device: Device,
  mode: TuningMode,
  { before = [], tell, seconds = budgetSeconds[mode], candidates = productCandidates }: TuneOptions = {},
): Promise<Tuning> {
  const start = performance.now();
  const spent = () => (performance.now() - start) / 1e3;
  const found = new Map(before.map((tuned) => [tuned.productClass, tuned]));
  let finished = 0;
  const isOver = () => finished > 0 && spent() > seconds;
  for (const b of typesOf[mode]) {
    const expected = new Map<MatmulLayout, Float32Array>();
    const reasons = new Map<string, string | undefined>();
    for (const { layout, sizes } of timedProducts) {
      const name = productClass(layout, sizes, b);
      const known = found.get(name);
      if (covers(known, mode)) continue;
      const wanted = candidates(device.capabilities, name).slice(0, mostCandidates[mode]);
      const trials: Trial[] = [];
      const timed: { variant: ProductVariant; program: Program }[] = [];
      for (const variant of wanted) {
        if (isOver()) break;
        const right = expected.get(layout) ?? await numbersOf(device, layout, b, plain(layout));
        expected.set(layout, right);
        // A kernel's text is the same for all sizes: it is checked once.
        const key = JSON.stringify([layout, variant]);
        if (!reasons.has(key)) reasons.set(key, await reasonAgainst(device, { layout, b }, variant, right));
        const reason = reasons.get(key);
        if (reason) trials.push({ variant, milliseconds: undefined, reason });
        else timed.push({ variant, program: (await makeProduct(device, { layout, sizes, b }, variant))[0] });
      }
      const times = await millisecondsOf(device, timed.map(({ program }) => program));
      timed.forEach(({ variant, program }, i) => {
        trials.push({ variant, milliseconds: times[i] });
        program.destroy();
      });
      const tried = trials.length === wanted.length ? mode : undefined;
      if (tried) finished++;
      // Less than was known before is no news.
      if (known && trials.length <= known.trials.length && !tried) continue;
      const done = { productClass: name, sizes, trials, chosen: fastest(trials), tried };
      found.set(name, done);
      tell?.(done);
    }
  }
  const classes = [...found.values()];
  return { classes, products: productsOf(classes), seconds: spent() };
}

/** The fastest of the trials, which begin with the likeliest. */
function fastest(trials: readonly Trial[]): ProductVariant | undefined {
  let best: Trial | undefined;
  for (const trial of trials) {
    if (trial.milliseconds === undefined) continue;
    if (!best || trial.milliseconds < best.milliseconds! * worthwhile) best = trial;
  }
  return best?.variant;
}
