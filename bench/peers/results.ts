/** What programs print that train the same GPT, and whether Muster is as fast beside them as it is to be. Pure. */

/** One training by one program. */
export interface Training {
  /** Median of steady steps. */
  readonly milliseconds: number;
  /** Steady steps that were timed. */
  readonly steps: number;
  readonly firstMilliseconds: number;
  /** Losses of the steps from the first, with the digits that were printed. */
  readonly losses: readonly string[];
  /** Where it was stopped before its end. */
  readonly cut: boolean;
  /** The WebGPU adapter, if it was told. */
  readonly adapter?: string;
}

const median = (values: readonly number[]) => [...values].sort((a, b) => a - b)[values.length >> 1];

/**
 * What a program printed: a line of JSON and a line of losses; of one that was stopped before, the lines `step N LOSS MS ms`
 * of its progress. Undefined if there is neither.
 */
export function parseTraining(stdout: string, stderr = ""): Training | undefined {
  const line = /^\{.*"ms_per_step".*\}$/m.exec(stdout)?.[0];
  const losses = /^loss (.+)$/m.exec(stdout)?.[1].trim().split(" ");
  if (line && losses) {
    const { ms_per_step, n, first_ms, adapter } = JSON.parse(line);
    return { milliseconds: ms_per_step, steps: n, firstMilliseconds: first_ms, losses, cut: false, adapter };
  }
  const told = [...stderr.matchAll(/^step (\d+) ([\d.]+) (\d+) ms$/gm)];
  if (told.length === 0) return undefined;
  const times = told.map(([, , , ms]) => Number(ms));
  const steady = times.slice(1);
  return {
    milliseconds: median(steady.length > 0 ? steady : times),
    steps: steady.length,
    firstMilliseconds: times[0],
    losses: told.map(([, , loss]) => loss),
    cut: true,
  };
}

/** A program's trainings of all rounds, or why there is none. */
export interface PeerResult {
  readonly name: string;
  readonly milliseconds: number | undefined;
  readonly rounds: readonly Training[];
  /** The most that its processes had in memory, in bytes. */
  readonly peakBytes: number;
  readonly reason?: string;
}

/** Puts rounds together: the median of their medians. */
export function summarize(
  name: string,
  rounds: readonly Training[],
  peakBytes: number,
  reason?: string,
): PeerResult {
  // A first step has the compilation in it: it says nothing of the next.
  const steady = rounds.filter(({ steps }) => steps > 0).map(({ milliseconds }) => milliseconds);
  const milliseconds = steady.length > 0 ? median(steady) : undefined;
  return { name, milliseconds, rounds, peakBytes, ...reason === undefined ? {} : { reason } };
}

/** How many losses of `other` are those of `own`, of how many both have, and the largest difference. */
export function compareLosses(own: readonly string[], other: readonly string[]) {
  const steps = Math.min(own.length, other.length);
  const pairs = Array.from({ length: steps }, (_, i) => [own[i], other[i]]);
  return {
    steps,
    equal: pairs.filter(([a, b]) => a === b).length,
    difference: Math.max(0, ...pairs.map(([a, b]) => Math.abs(Number(a) - Number(b)))),
  };
}

/** Something that is to hold. */
export interface Goal {
  readonly text: string;
  /** What was measured; undefined where the peer is missing. */
  readonly value: number | undefined;
  readonly met: boolean | undefined;
}

/** Peers by the names that bench/peers.ts gives them. */
export const names = { own: "Muster", webgpu: "jax-js WebGPU", wasm: "jax-js WebAssembly", torch: "PyTorch" } as const;

/** The goals of a workload. */
export function goals(workload: "small" | "medium", results: readonly PeerResult[]): Goal[] {
  const of = (name: string) => results.find((result) => result.name === name);
  const time = (name: string) => of(name)?.milliseconds;
  const ratio = (a: string, b: string) => {
    const [above, below] = [time(a), time(b)];
    return above === undefined || below === undefined ? undefined : above / below;
  };
  const goal = (text: string, value: number | undefined, holds: (value: number) => boolean): Goal => ({
    text,
    value,
    met: value === undefined ? undefined : holds(value),
  });
  const { own, webgpu, wasm, torch } = names;
  if (workload === "medium") {
    const own = of(names.own);
    return [
      goal(`${webgpu} takes at least 5 times as long`, ratio(webgpu, names.own), (value) => value >= 5),
      goal(
        "Muster has at most 3 GiB in memory",
        own?.milliseconds === undefined ? undefined : own.peakBytes / 2 ** 30,
        (value) => value <= 3,
      ),
    ];
  }
  return [
    goal(`${webgpu} takes at least 4 times as long`, ratio(webgpu, own), (value) => value >= 4),
    goal(`${wasm} takes longer`, ratio(wasm, own), (value) => value > 1),
    goal(`Muster takes at most 1.5 times as long as ${torch}`, ratio(own, torch), (value) => value <= 1.5),
  ];
}
