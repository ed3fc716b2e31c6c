/**
 * The thread that has the links to other machines: it meets them, makes the sums that ranks ask for in shared memory, and tells
 * who is lost.
 * @module
 */

import { MachineError, messageOf, UserError } from "../errors.ts";
import { Trace } from "../gpu/trace.ts";
import { Node, type World } from "../network/node.ts";
import { serveSums, summingMemory } from "../parallel/machine_sums.ts";
import { ProcessGroup } from "../parallel/process_group.ts";
import { networkRank, RunStatus } from "../parallel/status.ts";
import type { NetworkMessage, NetworkOptions, NetworkOrder, ServeOrder } from "./network_protocol.ts";
import { packFailure } from "./rank_protocol.ts";

/** Signs of life, word of newcomers and of what was traced go out this often, in ms. */
const beatMilliseconds = 250;
/** When a collective has failed, so long is waited for word of who is lost, in ms. */
const wordMilliseconds = 2000;

/** A world under way. */
class Service {
  readonly world: World;
  readonly #post: (message: NetworkMessage) => void;
  readonly #groups: ProcessGroup[] = [];
  readonly #stop = new AbortController();
  readonly #traces: Trace[] = [];
  #over = false;
  #beat: ReturnType<typeof setInterval> | undefined;

  constructor(world: World, post: (message: NetworkMessage) => void) {
    this.world = world;
    this.#post = post;
    world.lost.then((error) => this.#lose(error));
  }

  #lose(error: unknown): void {
    if (this.#over) return;
    this.#finish();
    this.#post({ type: "lost", failure: packFailure(error) });
  }

  #finish(): void {
    this.#over = true;
    this.#stop.abort();
    clearInterval(this.#beat);
    for (const group of this.#groups) group.close();
  }

  #group(lane: number, timeoutSeconds: number, memory?: ReturnType<typeof summingMemory>): ProcessGroup {
    const { rank, size, lanes } = this.world;
    const group = new ProcessGroup({ rank, size, links: lanes[lane], timeoutSeconds, memory });
    this.#groups.push(group);
    return group;
  }

  /** Runs `work` on links; if it fails the world has ended, and whoever is lost is to blame. */
  async #guard(work: Promise<void>): Promise<void> {
    try {
      await work;
    } catch (error) {
      if (this.#over) return;
      let timer: ReturnType<typeof setTimeout> | undefined;
      const late = new Promise<undefined>((resolve) => timer = setTimeout(() => resolve(undefined), wordMilliseconds));
      await Promise.race([this.world.lost, late]);
      clearTimeout(timer);
      // If nobody is lost, this has all hear of it, this machine too.
      await this.world.end(messageOf(error), error instanceof UserError);
    }
  }

  /** Gives tensors of machine `root` to all. */
  async share(tensors: readonly Float32Array[], root: number): Promise<void> {
    // Ranks have not begun, so the lane of the first group is free; its own group is made behind.
    const group = new ProcessGroup({ ...this.world, links: this.world.lanes[0], timeoutSeconds: 60 });
    for (const tensor of tensors) await group.broadcast(tensor, root);
    await group.barrier();
  }

  /** Makes the sums that the groups of this machine ask for. */
  serve({ groups, status: memory, timeoutSeconds, trace }: ServeOrder): void {
    const status = new RunStatus(memory);
    status.doing(networkRank, "sums over all machines");
    groups.forEach((setup, lane) => {
      const group = this.#group(lane, timeoutSeconds, summingMemory(setup));
      const spans = trace ? this.#traces[lane] = new Trace() : undefined;
      const sum = async (data: Float32Array) => {
        spans?.begin(`all-reduce of ${(data.byteLength / 1e6).toPrecision(3)} MB over machines`, "collective");
        await group.allReduce(data);
        spans?.end();
      };
      this.#guard(serveSums(setup, sum, this.#stop.signal));
    });
    let waiting = "";
    this.#beat = setInterval(() => {
      status.beat(networkRank);
      const machines = this.world.waiting();
      if (machines.join() !== waiting) this.#post({ type: "waiting", machines });
      waiting = machines.join();
      this.#traces.forEach((spans, lane) => this.#post({ type: "trace", lane, spans: spans.take() }));
    }, beatMilliseconds);
  }

  /** Has nothing more to say: another world is to come. */
  close(): void {
    if (!this.#over) this.#finish();
  }

  /** Stands back in good order, when all do. */
  async leave(): Promise<void> {
    if (this.#over) throw new MachineError("The world has ended already");
    await this.#groups[0]?.barrier();
    this.#finish();
    await this.world.leave();
  }

  /** Ends the world for all. */
  async end(reason: string, mistake: boolean): Promise<void> {
    if (this.#over) return;
    this.#finish();
    await this.world.end(reason, mistake);
  }
}

/** Does what the coordinator orders, until it orders to close. */
export async function runNetwork(
  options: NetworkOptions,
  orders: AsyncIterable<NetworkOrder>,
  post: (message: NetworkMessage) => void,
): Promise<void> {
  const node = await Node.open({ ...options, report: (sentence) => post({ type: "report", sentence }) });
  post({ type: "opened" });
  let service: Service | undefined;
  const carryOut = async (order: NetworkOrder) => {
    if (order.type === "meet") {
      service?.close();
      const world = await node.meet(order.offer);
      service = new Service(world, post);
      const { membership: { world: id }, rank, size, machines, facts } = world;
      return post({ type: "met", world: { id, rank, size, machines, facts } });
    }
    if (order.type === "serve") service?.serve(order);
    else if (order.type === "share") {
      await service!.share(order.tensors, order.root);
      post({ type: "shared" });
    } else if (order.type === "leave" || order.type === "end") {
      await (order.type === "leave" ? service?.leave() : service?.end(order.reason, order.mistake));
      post({ type: "left" });
    } else await node.close();
  };
  for await (const order of orders) {
    const done = carryOut(order).catch((error) => post({ type: "failed", failure: packFailure(error) }));
    if (order.type !== "close") continue;
    await done;
    return post({ type: "closed" });
  }
}
