/**
 * The timeline of a run's first steps, in the JSON of Chrome's trace events, which Perfetto and chrome://tracing open.
 *
 * It is an array, whose closing bracket both do without ("Trace Event Format", Google, 2016): of a run whose process is
 * ended, all that was written so far can be seen.
 * @module
 */

import { MachineError, messageOf, UserError } from "../errors.ts";
import type { TraceSpans } from "../gpu/trace.ts";

/** Steps that are traced, behind the first one of a run: the file does not grow without end. */
export const traceSteps = 200;

const dayMilliseconds = 86_400_000;

/** Microseconds, to the nanosecond. */
const microseconds = (nanoseconds: number) => (nanoseconds / 1e3).toFixed(3);

/** A file that is written while the run goes. A process is a machine, a thread is a rank. */
export class TraceFile {
  /** This machine's number. */
  machine = 0;
  readonly #file: Deno.FsFile;
  readonly #encoder = new TextEncoder();
  /** Time 0 of the file, in ms since 1970: the beginning of the day, so that files of several machines fit together. */
  readonly #origin = Math.floor(Date.now() / dayMilliseconds) * dayMilliseconds;
  #separator = "[\n";

  /**
   * Makes the file, or empties it.
   *
   * @throws UserError if it cannot be written
   */
  constructor(readonly path: string) {
    try {
      this.#file = Deno.openSync(path, { write: true, create: true, truncate: true });
    } catch (error) {
      throw new UserError(`Cannot write the timeline ${path} (${messageOf(error)}): choose another file with --trace`);
    }
  }

  #write(text: string): void {
    const bytes = this.#encoder.encode(text);
    try {
      for (let done = 0; done < bytes.length;) done += this.#file.writeSync(bytes.subarray(done));
    } catch (error) {
      throw new MachineError(`Cannot write the timeline ${this.path} (${messageOf(error)})`);
    }
  }

  #events(events: readonly string[]): void {
    if (events.length === 0) return;
    this.#write(this.#separator + events.join(",\n"));
    this.#separator = ",\n";
  }

  /** Names the tracks: the machine by its devices, one for each rank, and one for each group that the network serves. */
  nameTracks(devices: string, ranks: number, lanes: number): void {
    const { machine } = this;
    const names = [
      ...Array.from({ length: ranks }, (_, rank) => `rank ${rank}`),
      ...Array.from({ length: lanes }, (_, lane) => lane === 0 ? "network: numbers" : `network: gradients ${lane - 1}`),
    ];
    const metadata = (name: string, tid: number, args: Record<string, unknown>) =>
      JSON.stringify({ ph: "M", name, pid: machine, tid, args });
    this.#events([
      metadata("process_name", 0, { name: `machine ${machine}: ${devices}` }),
      ...names.flatMap((name, track) => [
        metadata("thread_name", track, { name }),
        metadata("thread_sort_index", track, { sort_index: track }),
      ]),
    ]);
  }

  /** Adds what a rank did. */
  add(rank: number, { names, categories, begins, ends }: TraceSpans): void {
    // Whole nanoseconds, so that spans that end together do so in the file.
    const time = (milliseconds: number) => Math.round((milliseconds - this.#origin) * 1e6);
    this.#events(names.map((name, i) => {
      const begin = time(begins[i]);
      const [ts, dur] = [begin, time(ends[i]) - begin].map(microseconds);
      const [shown, category] = [name, categories[i]].map((text) => JSON.stringify(text));
      return `{"ph":"X","name":${shown},"cat":${category},"ts":${ts},"dur":${dur},"pid":${this.machine},"tid":${rank}}`;
    }));
  }

  /** Adds a number as of now, in percent, which is drawn as a curve of its own. */
  addShare(name: string, share: number): void {
    const ts = Number(microseconds(Math.round((performance.timeOrigin + performance.now() - this.#origin) * 1e6)));
    const args = { "%": Math.round(share * 1e4) / 100 };
    this.#events([JSON.stringify({ ph: "C", name, pid: this.machine, ts, args })]);
  }

  /** Ends the array and closes the file, however the run ended. */
  close(): void {
    try {
      this.#write(this.#separator === "[\n" ? "[]\n" : "\n]\n");
    } catch {
      // A full disk has been told of already, or is no reason to fail now: the bracket is not needed.
    }
    this.#file.close();
  }
}
