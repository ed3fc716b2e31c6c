/** Machines of a run, for tests: processes on loopback, or calls of `train` in this one. */

import assert from "node:assert/strict";
import type { TrainEvent } from "../../train/events.ts";
import { readMetrics } from "../../train/run_folder.ts";
import { type GivenSettings } from "../../train/settings.ts";
import { train } from "../../train/trainer.ts";
import { freePort } from "../network/nodes.ts";
import { withFolder } from "../folder.ts";

const entry = new URL("../../cli.ts", import.meta.url).pathname;
const running = new Set<Machine>();

const text = Array.from(
  { length: 400 },
  (_, i) => `${i}. the whale swam ${["north", "south", "east"][i % 3]} for ${i % 7} days\n`,
).join("");

/** A small model. */
export const small: GivenSettings = {
  layers: 1,
  heads: 2,
  width: 32,
  sequenceLength: 16,
  batchSize: 12,
  evalBatches: 1,
  warmupSteps: 0,
  learningRate: 1e-3,
  lrSchedule: "constant",
};

/** The events of a kind. */
export type EventOf<K extends TrainEvent["event"]> = Extract<TrainEvent, { event: K }>;

/** The events of a kind among others. */
export function only<K extends TrainEvent["event"]>(events: readonly TrainEvent[], kind: K): EventOf<K>[] {
  return events.filter((event): event is EventOf<K> => event.event === kind);
}

/** Loss by step; of a step that was taken again the last one. */
export function lossesOf(events: readonly TrainEvent[]): Map<number, number> {
  return new Map(only(events, "step").map(({ step, loss }) => [step, loss]));
}

/** Asserts that all steps up to `steps` are there, with the losses of an undisturbed run but for rounding. */
export function sameLosses(
  found: ReadonlyMap<number, number>,
  reference: ReadonlyMap<number, number>,
  first = 1,
): void {
  for (const [step, expected] of reference) {
    if (step < first) continue;
    const loss = found.get(step);
    assert.ok(loss !== undefined, `step ${step} is missing among ${[...found.keys()]}`);
    assert.ok(Math.abs(loss / expected - 1) < 1e-4, `step ${step}: ${loss} instead of ${expected}`);
  }
}

/** A folder with a text, for all machines; they end with it. */
export function inFolder(body: (folder: string) => Promise<void>): () => Promise<void> {
  return () =>
    withFolder({ "text.txt": text }, async (folder) => {
      try {
        await body(folder);
      } finally {
        await Promise.all([...running].map((machine) => machine.end()));
      }
    });
}

/** Settings of machine `nodeRank`. */
export interface MachineSettings extends GivenSettings {
  readonly env?: Readonly<Record<string, string>>;
}

/** What `of` machines have alike: they meet at a port that is free. */
export function together(folder: string, nodes: number, settings: GivenSettings = {}): GivenSettings {
  return {
    ...small,
    data: `${folder}/text.txt`,
    nodes,
    rendezvous: `127.0.0.1:${freePort()}`,
    // Longer than this machine's other work could hold up a thread.
    peerTimeout: 10,
    rendezvousTimeout: 30,
    ...settings,
  };
}

/** Trains here, as one machine or several; each one's events. */
export async function trainHere(folder: string, all: readonly GivenSettings[]): Promise<TrainEvent[][]> {
  return await Promise.all(all.map(async (settings, i) => {
    const events: TrainEvent[] = [];
    await train({ ...small, data: `${folder}/text.txt`, out: `${folder}/${crypto.randomUUID()}/${i}`, ...settings }, {
      onEvent: (event) => events.push(event),
    });
    return events;
  }));
}

/** A machine in a process of its own, without one that watches it: so that it can be killed as a machine dies. */
export class Machine {
  readonly events: TrainEvent[] = [];
  readonly run: string;
  stderr = "";
  /** Its exit code. */
  readonly ended: Promise<number>;
  readonly #process: Deno.ChildProcess;
  #change = Promise.withResolvers<void>();

  constructor(folder: string, name: string, { env, ...settings }: MachineSettings) {
    this.run = `${folder}/${name}`;
    const flags = Object.entries({ ...settings, out: settings.out ?? this.run }).flatMap(([key, value]) => {
      if (value === undefined) return [];
      const flag = `--${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
      return value === true ? [flag] : [flag, String(value)];
    });
    this.#process = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--quiet", entry, "train", "--json", ...flags],
      cwd: folder,
      env: { MUSTER_CACHE: `${folder}/cache`, NO_COLOR: "1", LP_NUM_THREADS: "1", MUSTER_SUPERVISED: "1", ...env },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.ended = this.#listen();
    running.add(this);
  }

  get pid(): number {
    return this.#process.pid;
  }

  kill(signal: Deno.Signal): void {
    try {
      this.#process.kill(signal);
    } catch {
      // It has ended.
    }
  }

  /** The first event of a kind from the `from`-th one on that `fits`. */
  async tells<K extends TrainEvent["event"]>(
    kind: K,
    fits: (event: EventOf<K>) => boolean = () => true,
    from = 0,
    seconds = 40,
  ): Promise<EventOf<K>> {
    const deadline = performance.now() + 1e3 * seconds;
    for (;;) {
      const found = only(this.events.slice(from), kind).find(fits);
      if (found) return found;
      const left = deadline - performance.now();
      const told = this.events.map(({ event, ...rest }) => `${event} ${"step" in rest ? rest.step : ""}`).join(", ");
      assert.ok(left > 0, `waited in vain for "${kind}" of ${this.run}, which told ${told} and ${this.stderr}`);
      let timer: ReturnType<typeof setTimeout> | undefined;
      await Promise.race([this.#change.promise, new Promise<void>((resolve) => timer = setTimeout(resolve, left))]);
      clearTimeout(timer);
    }
  }

  /** Behind this step. */
  async at(step: number): Promise<void> {
    await this.tells("step", (told) => told.step >= step);
  }

  /** Its exit code, within so many seconds. */
  async exits(seconds = 40): Promise<number> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<undefined>((resolve) => timer = setTimeout(() => resolve(undefined), 1e3 * seconds));
    const code = await Promise.race([this.ended, late]);
    clearTimeout(timer);
    assert.ok(code !== undefined, `${this.run} did not end in ${seconds} s: ${this.stderr}`);
    return code;
  }

  /** What its run's folder has of its events. */
  metrics(): TrainEvent[] {
    return readMetrics(this.run);
  }

  async end(): Promise<void> {
    this.kill("SIGKILL");
    await this.ended;
    running.delete(this);
  }

  async #listen(): Promise<number> {
    const errors = (async () => {
      for await (const part of this.#process.stderr.pipeThrough(new TextDecoderStream())) this.stderr += part;
    })();
    let rest = "";
    for await (const part of this.#process.stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + part).split("\n");
      rest = lines.pop()!;
      this.events.push(...lines.map((line) => JSON.parse(line) as TrainEvent));
      const change = this.#change;
      this.#change = Promise.withResolvers();
      change.resolve();
    }
    await errors;
    const { code } = await this.#process.status;
    return code;
  }
}

/** Starts `nodes` machines with what they have alike, and what some have for themselves. */
export function start(folder: string, shared: GivenSettings, own: readonly MachineSettings[]): Machine[] {
  return own.map((settings, i) => new Machine(folder, `machine${i}`, { ...shared, nodeRank: i, ...settings }));
}
