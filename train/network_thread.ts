/**
 * The other machines of a run as the coordinator sees them: met, told, lost. A thread of its own has the links.
 * @module
 */

import { MachineError } from "../errors.ts";
import type { TraceSpans } from "../gpu/trace.ts";
import type { Offer } from "../network/node.ts";
import type { MetWorld, NetworkMessage, NetworkOptions, NetworkOrder, ServeOrder } from "./network_protocol.ts";
import { startNetwork } from "./rank.ts";
import { unpackFailure } from "./rank_protocol.ts";

/** Told of what the network has to say. */
export interface NetworkHooks {
  readonly onReport: (sentence: string) => void;
  /** The world has ended. */
  readonly onLost: (error: Error) => void;
  /** These wait to be let in. */
  readonly onWaiting: (machines: readonly string[]) => void;
  readonly onTrace: (lane: number, spans: TraceSpans) => void;
}

/** Ended the ranks of this machine because another was lost. */
export class WorldEnded extends MachineError {}

/** The thread that has the links. */
export class NetworkThread {
  readonly #worker: Worker;
  readonly #hooks: NetworkHooks;
  /** Why the world has ended; undefined until it has. */
  lost: Error | undefined;
  /** Why there is no thread any more. */
  #failure: Error | undefined;
  /** What is waited for. */
  #expected: { type: string; resolve: (message: NetworkMessage) => void; reject: (error: Error) => void } | undefined;

  private constructor(options: NetworkOptions, hooks: NetworkHooks) {
    this.#hooks = hooks;
    this.#worker = startNetwork(options);
    this.#worker.onmessage = ({ data }: MessageEvent<NetworkMessage>) => this.#hear(data);
    this.#worker.onerror = (event) => {
      event.preventDefault();
      const message = `The thread that has the links failed: ${event.message}`;
      this.#failure = new MachineError(message, { restartable: true });
      this.#fail(this.#failure);
    };
  }

  /** Opens this machine's door. Rejects with what is wrong with an address, a secret or a number. */
  static async open(options: NetworkOptions, hooks: NetworkHooks): Promise<NetworkThread> {
    const thread = new NetworkThread(options, hooks);
    await thread.#await("opened");
    return thread;
  }

  /** Tells whoever waits for the thread, or else that nothing goes on. */
  #fail(error: Error): void {
    const expected = this.#expected;
    this.#expected = undefined;
    if (expected) expected.reject(error);
    else this.#lose(error);
  }

  #lose(error: Error): void {
    this.lost = error;
    this.#hooks.onLost(error);
  }

  #hear(message: NetworkMessage): void {
    const expected = this.#expected;
    // What was told of the last world comes before the next one is met.
    if (message.type === "met") this.lost = undefined;
    if (message.type === expected?.type) {
      this.#expected = undefined;
      return expected.resolve(message);
    }
    const { onReport, onWaiting, onTrace } = this.#hooks;
    if (message.type === "failed") this.#fail(unpackFailure(message.failure));
    else if (message.type === "report") onReport(message.sentence);
    else if (message.type === "lost") this.#lose(unpackFailure(message.failure));
    else if (message.type === "waiting") onWaiting(message.machines);
    else if (message.type === "trace") onTrace(message.lane, message.spans);
  }

  #await<K extends NetworkMessage["type"]>(type: K): Promise<Extract<NetworkMessage, { type: K }>> {
    if (this.#failure) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      this.#expected = { type, resolve: resolve as (message: NetworkMessage) => void, reject };
    });
  }

  #order<K extends NetworkMessage["type"]>(
    order: NetworkOrder,
    answer: K,
  ): Promise<Extract<NetworkMessage, { type: K }>> {
    const answered = this.#await(answer);
    this.#worker.postMessage(order);
    return answered;
  }

  /** Meets the others; rejects if they do not come together in time, or do not agree. */
  async meet(offer: Offer): Promise<MetWorld> {
    return (await this.#order({ type: "meet", offer }, "met")).world;
  }

  /** Gives tensors, in shared memory, of machine `root` to all. */
  async share(tensors: readonly Float32Array[], root: number): Promise<void> {
    await this.#order({ type: "share", tensors, root }, "shared");
  }

  /** Has the sums made that groups of ranks ask for. */
  serve(order: Omit<ServeOrder, "type">): void {
    this.#worker.postMessage({ type: "serve", ...order } satisfies NetworkOrder);
  }

  /** Has no more recorded for the timeline. */
  untrace(): void {
    this.#worker.postMessage({ type: "untrace" } satisfies NetworkOrder);
  }

  /** Stands back in good order when nothing more is exchanged; rejects if the world ended before all did. */
  async leave(anew: boolean): Promise<void> {
    await this.#order({ type: "leave", anew }, "left");
  }

  /** Ends the world for all, and says why; `mistake`: nobody should go on. */
  async end(reason: string, mistake: boolean): Promise<void> {
    await this.#order({ type: "end", reason, mistake }, "left");
  }

  /** Gives up a meeting that is under way. */
  abandon(): void {
    this.#worker.postMessage({ type: "abandon" } satisfies NetworkOrder);
  }

  /** Ends the thread. */
  async close(): Promise<void> {
    if (!this.#failure) await this.#order({ type: "close" }, "closed");
  }
}
