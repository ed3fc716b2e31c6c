/**
 * The machines that train with this one: met, brought to the same state, lost, and met again.
 * @module
 */

import { MachineError, messageOf, UserError } from "../errors.ts";
import { saveCheckpoint } from "./checkpoint.ts";
import { checkpointOf } from "./checkpoint_contents.ts";
import type { MetWorld } from "./network_protocol.ts";
import { NetworkThread, WorldEnded } from "./network_thread.ts";
import type { NodePlace } from "./node_place.ts";
import type { PreparedRun } from "./prepare_run.ts";
import type { RunRecord } from "./run_record.ts";
import { RunState, tensorsOf } from "./run_state.ts";
import { nameWeights, newestState, offerOf, worldOf } from "./run_terms.ts";
import type { RunWorld } from "./run_world.ts";
import type { CompleteSettings } from "./settings.ts";

const isNotFinite = (error: unknown) => messageOf(error).includes("Training stopped at step");

/** True if an error is one that the run would come to on any machine. */
function isOfTheRun(error: unknown): boolean {
  return error instanceof UserError || isNotFinite(error);
}

/** What the ranks of this machine are ended by when the world has ended: the run goes on elsewhere, unless it cannot. */
export function endingOf(error: Error): Error {
  // Numbers that are not finite are nobody's mistake.
  if (isNotFinite(error)) return new MachineError(error.message);
  return error instanceof UserError ? error : new WorldEnded(error.message, { restartable: true });
}

/** The machines with which this one trains. */
export class Cluster {
  readonly state: RunState;
  readonly #prepared: PreparedRun;
  readonly #place: NodePlace;
  readonly #record: RunRecord;
  readonly #signal: AbortSignal | undefined;
  #thread: NetworkThread | undefined;
  #weights: string | undefined;
  /** Told when the world ends. */
  onLost: (error: Error) => void = () => {};
  /** Told when somebody waits to be let in. */
  onWaiting: () => void = () => {};

  constructor(place: NodePlace, prepared: PreparedRun, record: RunRecord, signal: AbortSignal | undefined) {
    this.#place = place;
    this.#prepared = prepared;
    this.#record = record;
    this.#signal = signal;
    this.state = new RunState(prepared, place.nodes);
  }

  async #open({ minNodes, rendezvousTimeout, peerTimeout }: CompleteSettings): Promise<NetworkThread> {
    const { nodes, nodeRank, rendezvous, listen, secret, tls } = this.#place;
    const options = {
      size: nodes,
      rank: nodeRank,
      least: minNodes,
      rendezvous,
      listen,
      secret,
      tls,
      group: "train",
      timeoutSeconds: rendezvousTimeout,
      peerTimeoutSeconds: peerTimeout,
    };
    const record = this.#record;
    return await NetworkThread.open(options, {
      onReport: (sentence) => record.message(sentence),
      onLost: (error) => this.onLost(error),
      onWaiting: (machines) => {
        if (machines.length > 0) this.onWaiting();
      },
      onTrace: (lane, spans) => record.traceNetwork(lane, spans),
    });
  }

  /** Meets the others, until all have the same state. */
  async meet(): Promise<RunWorld> {
    const { settings } = this.#prepared;
    this.#thread ??= await this.#open(settings);
    this.#weights ??= await nameWeights(this.#prepared);
    // Before others wait for it.
    if (this.state.step > 0) await this.state.inMemory();
    const abort = () => this.#thread!.abandon();
    this.#signal?.addEventListener("abort", abort);
    try {
      for (;;) {
        this.#record.message(`waiting for the other machines at ${this.#place.rendezvous}`);
        const met = await this.#meet();
        const { root, step, name, lacking } = newestState(met);
        const world = worldOf(met);
        try {
          if (lacking && step === 0) this.state.restart();
          else if (lacking) {
            const own = root === met.rank;
            const memory = own ? await this.state.inMemory() : this.state.spare();
            if (this.state.name !== name) {
              this.#record.message(`receiving the state of step ${step} from ${met.machines[root]}`);
            }
            await this.#thread.share(tensorsOf(memory), root);
            this.state.filled(memory, step, name);
          }
          return world;
        } catch (error) {
          if (isOfTheRun(error)) throw error;
          this.#record.message(messageOf(error));
        }
      }
    } finally {
      this.#signal?.removeEventListener("abort", abort);
    }
  }

  async #meet(): Promise<MetWorld> {
    try {
      this.#signal?.throwIfAborted();
      return await this.#thread!.meet(offerOf(this.#prepared, { weights: this.#weights!, state: this.state.name }));
    } catch (error) {
      throw this.#signal?.aborted ? new MachineError("Asked to stop while it waited for the other machines") : error;
    }
  }

  /** Why the world has ended; undefined until it has. */
  get lost(): Error | undefined {
    return this.#thread?.lost;
  }

  /** Has the network make the sums that ranks ask for. */
  serve(order: Parameters<NetworkThread["serve"]>[0]): void {
    this.#thread!.serve(order);
  }

  /** Has no more recorded for the timeline. */
  untrace(): void {
    this.#thread!.untrace();
  }

  /**
   * Stands back from the world in good order when all have come so far, and the first one's disk has what it is to have.
   * False if the world ended before.
   */
  async leave(anew: boolean): Promise<boolean> {
    return await this.#thread!.leave(anew).then(() => true, () => false);
  }

  /** Ends the world for all because this machine, or the run, cannot go on. */
  async end(error: unknown): Promise<void> {
    if (this.lost === undefined) await this.#thread?.end(messageOf(error), isOfTheRun(error)).catch(() => {});
  }

  /** Of a run that ends without its company, the newest state is put on the disk, unless it is there. */
  async keepState(): Promise<void> {
    const { newest, step, name, saved } = this.state;
    if (!newest || name === saved) return;
    const { run, settings: { keep } } = this.#prepared;
    // Machines that share a disk may be at it at once, in one folder.
    const mark = `.${Deno.hostname()}.${Deno.pid}`;
    try {
      this.#record.makeFolder();
      const path = await saveCheckpoint(run, checkpointOf(this.#prepared, newest, step), keep, mark);
      this.#record.tell({ event: "checkpoint", step, path });
    } catch (failure) {
      this.#record.message(`The state of step ${step} could not be saved: ${messageOf(failure)}`);
    }
  }

  /** Ends the thread that has the links. */
  async close(): Promise<void> {
    await this.#thread?.close();
  }
}
