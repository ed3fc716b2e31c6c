/**
 * What a run tells and writes. Of several machines the first one writes the run's folder.
 * @module
 */

import { MachineError, messageOf, UserError } from "../errors.ts";
import type { TraceSpans } from "../gpu/trace.ts";
import type { TrainEvent } from "./events.ts";
import type { PreparedRun } from "./prepare_run.ts";
import { makeRunFolder, MetricsFile, writeSettings } from "./run_folder.ts";
import type { RunWorld } from "./run_world.ts";
import { TraceFile } from "./trace_file.ts";

/** A run's events, metrics and timeline. */
export class RunRecord {
  readonly #prepared: PreparedRun;
  readonly #onEvent: (event: TrainEvent) => void;
  #trace: TraceFile | undefined;
  #metrics: MetricsFile | undefined;
  #ranks = 0;
  #begun = false;

  constructor(prepared: PreparedRun, onEvent: (event: TrainEvent) => void) {
    this.#prepared = prepared;
    this.#onEvent = onEvent;
  }

  /** True if there is a timeline. */
  get traces(): boolean {
    return this.#trace !== undefined;
  }

  /** Makes the run's folder, and puts the settings into it. */
  makeFolder(): void {
    const { run, settings } = this.#prepared;
    makeRunFolder(run);
    writeSettings(run, { ...settings, out: run });
  }

  /**
   * Begins a world, behind so many steps.
   *
   * @throws UserError if the run's folder or the timeline cannot be written
   */
  begin({ machine: { rank, size }, names, ranks }: RunWorld, step: number): void {
    this.#metrics?.close();
    this.#metrics = undefined;
    this.#ranks = ranks[rank];
    const { trace } = this.#prepared.settings;
    // Each machine has a timeline of its own.
    if (trace !== undefined) this.#trace ??= new TraceFile(rank === 0 ? trace : besides(trace, `node${rank}`));
    if (this.#trace) this.#trace.machine = rank;
    if (rank === 0) {
      this.#takeFolder();
      this.#metrics = new MetricsFile(this.#prepared.run, step);
    }
    this.#begun = true;
    if (this.#prepared.place) {
      this.tell({ event: "world", step, node: rank, nodes: size, machines: names });
    }
  }

  /** Makes the folder; where a run is under way, that it cannot be made is this machine's fault, and the others may go on. */
  #takeFolder(): void {
    try {
      this.makeFolder();
    } catch (error) {
      throw this.#begun ? new MachineError(messageOf(error)) : error;
    }
  }

  /** Tells of an event, and writes it down. */
  tell(event: TrainEvent): void {
    this.#metrics?.write(event);
    this.#onEvent(event);
  }

  /** Tells something in words. */
  message(message: string): void {
    this.#onEvent({ event: "message", message });
  }

  /** Names the tracks of the timeline: ranks, and what the network does for each group of them. */
  nameTracks(devices: string, lanes: number): void {
    this.#trace?.nameTracks(devices, this.#ranks, lanes);
  }

  /** Adds what a rank did to the timeline. */
  traceRank(rank: number, spans: TraceSpans): void {
    this.#trace?.add(rank, spans);
  }

  /** Adds a step's utilization to the timeline. */
  traceUtilization(share: number): void {
    this.#trace?.addShare("model FLOPs utilization", share);
  }

  /** Adds what the network did for a group of ranks. */
  traceNetwork(lane: number, spans: TraceSpans): void {
    this.#trace?.add(this.#ranks + lane, spans);
  }

  /** Writes down how the run failed. */
  failed(error: unknown): void {
    const exitCode = error instanceof UserError ? 2 : 1;
    try {
      this.#metrics?.write({ event: "error", message: messageOf(error), exitCode });
    } catch {
      // A full disk may be what went wrong: the first failure is the one to tell.
    }
  }

  /** Closes the files. */
  close(): void {
    this.#metrics?.close();
    this.#trace?.close();
  }
}

/** `trace.json` → `trace-node1.json`. */
function besides(path: string, what: string): string {
  return path.replace(/(\.[^./\\]*)?$/, (extension) => `-${what}${extension}`);
}
