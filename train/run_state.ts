/**
 * The state of a run in host memory: what ranks fill, what goes to the disk, and what the run goes on from.
 * @module
 */

import { openCheckpoint } from "./checkpoint.ts";
import { makeCheckpointMemory } from "./launch.ts";
import { scalingName } from "./loss_scaling.ts";
import type { JobState } from "./make_jobs.ts";
import type { PreparedRun } from "./prepare_run.ts";
import type { CheckpointMemory } from "./rank_protocol.ts";

/** The tensors of a state, in an order that all machines have alike. */
export function tensorsOf({ weights, optimizer }: CheckpointMemory): Float32Array[] {
  return [...weights, ...optimizer].map(({ data }) => data);
}

/** The name of the state before the first step, which follows from the settings. */
const begun = "0 begun";

/** The states that a machine has. */
export class RunState {
  readonly #prepared: PreparedRun;
  /** Of several machines each keeps a whole state while the next is made. */
  readonly #memories: readonly CheckpointMemory[];
  #newest: CheckpointMemory | undefined;
  #step: number;
  #name: string;
  /** The name of the state that was last seen whole on the disk. */
  saved: string | undefined;

  constructor(prepared: PreparedRun, machines: number) {
    const { firstStep, resumeFolder, configuration, picked } = prepared;
    this.#prepared = prepared;
    this.#step = firstStep;
    // What lies on the disk of this machine need not be what lies on another's.
    this.#name = resumeFolder === undefined ? begun : `${firstStep} ${crypto.randomUUID()}`;
    if (resumeFolder !== undefined) this.saved = this.#name;
    this.#memories = Array.from({ length: machines > 1 ? 2 : 1 }, () => makeCheckpointMemory(configuration, picked));
  }

  /** Steps behind the newest whole state. */
  get step(): number {
    return this.#step;
  }

  /** The newest whole state, if it is in memory. */
  get newest(): CheckpointMemory | undefined {
    return this.#newest;
  }

  /** Where ranks begin, and the memories that they fill in turn: the newest state's last. */
  jobState(): JobState {
    const others = this.#memories.filter((memory) => memory !== this.#newest);
    return {
      step: this.#step,
      memory: this.#newest,
      checkpoints: this.#newest ? [...others, this.#newest] : others,
    };
  }

  /** The name of the newest state, which all machines that have the same state know by the same. */
  get name(): string {
    return this.#name;
  }

  /** Goes back to the beginning of the run. */
  restart(): void {
    [this.#newest, this.#step, this.#name] = [undefined, 0, begun];
  }

  /** Notes that `memory` is whole: the state of that name behind so many steps. */
  filled(memory: CheckpointMemory, step: number, name: string): void {
    [this.#newest, this.#step, this.#name] = [memory, step, name];
  }

  /** The newest state in memory, read from the disk if it is only there. */
  async inMemory(): Promise<CheckpointMemory> {
    if (this.#newest) return this.#newest;
    const [memory] = this.#memories;
    const { resumeFolder } = this.#prepared;
    if (resumeFolder === undefined) throw new Error("There is no state to give to other machines yet");
    const checkpoint = await openCheckpoint(resumeFolder);
    for (const { name, data } of memory.weights) checkpoint.weights.readInto(name, data);
    for (const { name, data } of memory.optimizer) {
      // A run of another precision has not got it.
      if (name !== scalingName || checkpoint.optimizer!.tensors.has(name)) checkpoint.optimizer!.readInto(name, data);
    }
    checkpoint.close();
    this.filled(memory, this.#step, this.#name);
    return memory;
  }

  /** Memory for a state that another machine gives; it is no state until it is `filled`. */
  spare(): CheckpointMemory {
    return this.#memories.find((memory) => memory !== this.#newest)!;
  }
}
