/**
 * What a thread does and when: spans of time that lie beside or within each other, for a timeline.
 *
 * Work on a GPU is asynchronous: a span tells what the thread does, which hands dispatches over and goes on. What the device
 * takes shows where the thread waits for it.
 * @module
 */

/** Kinds of spans. */
export type TraceCategory = "step" | "phase" | "collective" | "wait" | "sum" | "copy" | "device";

/** Spans in the order in which they began; each lies beside or within each earlier one. Plain data. */
export interface TraceSpans {
  readonly names: readonly string[];
  readonly categories: readonly TraceCategory[];
  /** In ms since 1970, on a clock that does not jump; those of threads agree to microseconds. */
  readonly begins: readonly number[];
  readonly ends: readonly number[];
}

/** Time in which a thread sets its clock, in ms: with fewer cores than threads it runs for some of it at least. */
const settingMilliseconds = 50;

/**
 * Time 0 of this thread's `performance.now()`, in ms since 1970. `performance.timeOrigin` was measured to be off by up to 1 ms
 * in one Worker of thirty. The wall clock shows whole ms: the largest difference from it was seen just when it ticked.
 */
export function clockOrigin(): number {
  const end = performance.now() + settingMilliseconds;
  let origin = -Infinity;
  for (let now = 0; now < end;) {
    const wall = Date.now();
    now = performance.now();
    origin = Math.max(origin, wall - now);
  }
  return origin;
}

/** Records spans of one thread. Whoever can be traced has one or none; a span costs two looks at the clock. */
export class Trace {
  #names: string[] = [];
  #categories: TraceCategory[] = [];
  #begins: number[] = [];
  #ends: number[] = [];
  /** Those that have not ended, the innermost last. */
  readonly #open: number[] = [];
  readonly #origin = clockOrigin();

  /** Begins a span inside those that are open. */
  begin(name: string, category: TraceCategory): void {
    this.#open.push(this.#names.length);
    this.#names.push(name);
    this.#categories.push(category);
    this.#ends.push(NaN);
    this.#begins.push(performance.now());
  }

  /** Ends the innermost span. */
  end(): void {
    const now = performance.now();
    this.#ends[this.#open.pop()!] = now;
  }

  /** Ends what is open from `depth` on, and begins a span there; depth 0 is inside no other. */
  next(depth: number, name: string, category: TraceCategory): void {
    while (this.#open.length > depth) this.end();
    this.begin(name, category);
  }

  /** True if nothing is open. */
  get idle(): boolean {
    return this.#open.length === 0;
  }

  /** Ends what is open. */
  close(): void {
    while (this.#open.length > 0) this.end();
  }

  /** Ends what is open, and hands over what was recorded since the last time. */
  take(): TraceSpans {
    this.close();
    const taken = {
      names: this.#names,
      categories: this.#categories,
      begins: this.#begins.map((time) => this.#origin + time),
      ends: this.#ends.map((time) => this.#origin + time),
    };
    [this.#names, this.#categories, this.#begins, this.#ends] = [[], [], [], []];
    return taken;
  }
}
