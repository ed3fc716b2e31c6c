/**
 * The folder of a run: `settings.json`, `metrics.jsonl` (its events, a line each) and `checkpoints/`.
 * @module
 */

import { hasCode, MachineError, messageOf, UserError } from "../errors.ts";
import type { TrainEvent } from "./events.ts";

/** The first of runs/1, runs/2, … that does not exist. */
export function nextRunFolder(): string {
  for (let i = 1;; i++) {
    try {
      Deno.statSync(`runs/${i}`);
    } catch {
      return `runs/${i}`;
    }
  }
}

/** Makes the folder and proves that it can be written. */
export function makeRunFolder(path: string): void {
  try {
    Deno.mkdirSync(path, { recursive: true });
    const probe = `${path}/.${crypto.randomUUID()}.tmp`;
    Deno.writeTextFileSync(probe, "");
    Deno.removeSync(probe);
  } catch (error) {
    throw new UserError(`Cannot write the output folder ${path} (${messageOf(error)}): choose another with --out`);
  }
}

/** Writes into a run's folder, which could be written when the run began. */
function writing<T>(folder: string, write: () => T): T {
  try {
    return write();
  } catch (error) {
    const reason = hasCode(error, "ENOSPC") ? "the disk is full" : messageOf(error);
    throw new MachineError(`Cannot write into the run's folder ${folder}: ${reason}`);
  }
}

/** Puts the settings into a run's folder. */
export function writeSettings(folder: string, settings: unknown): void {
  writing(folder, () => Deno.writeTextFileSync(`${folder}/settings.json`, JSON.stringify(settings, null, 2)));
}

/** Appends events to `metrics.jsonl`. */
export class MetricsFile {
  readonly #folder: string;
  readonly #file: Deno.FsFile;
  readonly #encoder = new TextEncoder();

  /** @param folder of the run @param firstStep later steps in the file are of a run that was given up: they are dropped */
  constructor(folder: string, firstStep: number) {
    this.#folder = folder;
    const path = `${folder}/metrics.jsonl`;
    const kept = readMetrics(folder).filter((event) => !("step" in event) || event.step <= firstStep);
    const temporary = `${path}.tmp`;
    this.#file = writing(folder, () => {
      Deno.writeTextFileSync(temporary, kept.map((event) => `${JSON.stringify(event)}\n`).join(""));
      Deno.renameSync(temporary, path);
      return Deno.openSync(path, { append: true });
    });
  }

  /** Writes one event. */
  write(event: TrainEvent): void {
    const bytes = this.#encoder.encode(`${JSON.stringify(event)}\n`);
    writing(this.#folder, () => {
      for (let done = 0; done < bytes.length;) done += this.#file.writeSync(bytes.subarray(done));
    });
  }

  /** Closes the file. */
  close(): void {
    this.#file.close();
  }
}

/** Events of a run so far; a line that was cut off by a crash is left out. */
export function readMetrics(folder: string): TrainEvent[] {
  let text: string;
  try {
    text = Deno.readTextFileSync(`${folder}/metrics.jsonl`);
  } catch {
    return [];
  }
  return text.split("\n").flatMap((line) => {
    try {
      return [JSON.parse(line) as TrainEvent];
    } catch {
      return [];
    }
  });
}
