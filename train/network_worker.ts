/**
 * The thread that has the links to other machines: it meets them, makes the sums that ranks ask for in shared memory, and tells
 * who is lost.
 * @module
 */

import { MachineError, messageOf, UserError } from "../errors.ts";
import { Trace } from "../gpu/trace.ts";
import type { Link } from "../network/link.ts";
import { Node, type World } from "../network/node.ts";
import { stripe } from "../network/striped_link.ts";
import { serveSums, summingMemory } from "../parallel/machine_sums.ts";
import type { CompressedSum } from "../parallel/compressed_sum.ts";
import { ProcessGroup } from "../parallel/process_group.ts";
import { networkRank, RunStatus } from "../parallel/status.ts";
import type { NetworkMessage, NetworkOptions, NetworkOrder, ServeOrder } from "./network_protocol.ts";
import { packFailure } from "./rank_protocol.ts";

/** Signs of life, word of newcomers and of what was traced go out this often, in ms. */
const beatMilliseconds = 250;

/** A world under way. */
class Service {
  readonly world: World;
  readonly #post: (message: NetworkMessage) => void;
  readonly #groups: ProcessGroup[] = [];
  readonly #stop = new AbortController();
  readonly #traces: Trace[] = [];
  #toldAt = 0;
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
    this.#traces.forEach((trace, lane) => this.#post({ type: "trace", lane, spans: trace.take() }));
    for (const group of this.#groups) group.close();
  }

  /** Links to all others for a group: each of several connections, if there are. */
  #linksOf(group: number, groups: number): ReadonlyMap<number, Link> {
    const { lanes } = this.world;
    const connections = lanes.length / groups;
    const own = lanes.slice(group * connections, (group + 1) * connections);
    return new Map([...own[0].keys()].map((rank) => [rank, stripe(own.map((lane) => lane.get(rank)!))]));
  }

  /** Runs `work` on links; if it fails the world has ended, and whoever is lost is to blame. */
  async #guard(work: Promise<void>): Promise<void> {
    try {
      await work;
    } catch (error) {
      if (this.#over) return;
      const cause = await this.world.cause(error);
      // If nobody is lost, this has all hear of it, this machine too.
      if (cause === error) await this.world.end(messageOf(error), error instanceof UserError);
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
  async serve(
    { groups, status: memory, timeoutSeconds, compression, algorithm, tune, trace }: ServeOrder,
  ): Promise<void> {
    // The world may have ended meanwhile: nothing would stop the beats then.
    if (this.#over) return;
    const status = new RunStatus(memory);
    status.doing(networkRank, "sums over all machines");
    const { rank, size } = this.world;
    const made = groups.map((setup, lane) => {
      if (trace) this.#traces[lane] = new Trace();
      const group = new ProcessGroup({
        rank,
        size,
        links: this.#linksOf(lane, groups.length),
        timeoutSeconds,
        algorithm,
        memory: summingMemory(setup),
        onPhase: (phase) => this.#traces[lane]?.next(1, phase, "phase"),
      });
      this.#groups.push(group);
      return { setup, lane, group };
    });
    this.#watch(status);
    if (tune && made.length > 0) await this.#guard(this.#tune(made.map(({ group }) => group)));
    for (const { setup, lane, group } of made) {
      const sums = new Map<number, CompressedSum>();
      const sum = async (data: Float32Array, bucket: number, scale: number) => {
        const megabytes = (data.byteLength / 1e6).toPrecision(3);
        this.#traces[lane]?.next(
          0,
          lane === 0 ? "sum of numbers" : `all-reduce of bucket ${bucket}, ${megabytes} MB`,
          "collective",
        );
        // Numbers of the run go as they are.
        if (lane === 0 || compression === "none") await group.allReduce(data);
        else {
          const compressed = sums.getOrInsertComputed(bucket, () => group.compressed(data.length, compression));
          await compressed.allReduce(data, scale);
        }
        this.#traces[lane]?.close();
        this.#tellTrace();
      };
      this.#guard(serveSums(setup, sum, this.#stop.signal));
    }
  }

  /** One group measures, while nothing else is on the links; the others do as it found. */
  async #tune([first, ...others]: readonly ProcessGroup[]): Promise<void> {
    const { bounds } = await first.tune();
    for (const other of others) other.bounds = bounds;
    const [small, middle] = [bounds.doublingBytes, bounds.halvingBytes].map((bytes) =>
      `${Math.round(bytes / 1024)} KiB`
    );
    const sentence =
      `sums over machines go by doubling up to ${small}, by halving up to ${middle}, beyond around the ring`;
    this.#post({ type: "report", sentence });
  }

  /** Gives signs of life, and tells who waits and what was traced. */
  #watch(status: RunStatus): void {
    let waiting = "";
    this.#beat = setInterval(() => {
      status.beat(networkRank);
      const machines = this.world.waiting();
      if (machines.join() !== waiting) this.#post({ type: "waiting", machines });
      waiting = machines.join();
      this.#tellTrace();
    }, beatMilliseconds);
  }

  /** Tells what was traced, now and then, where no span is cut in two by it. */
  #tellTrace(): void {
    if (this.#traces.length === 0 || performance.now() - this.#toldAt < beatMilliseconds) return;
    this.#toldAt = performance.now();
    this.#traces.forEach((trace, lane) => trace.idle && this.#post({ type: "trace", lane, spans: trace.take() }));
  }

  /** Records no more for the timeline. */
  untrace(): void {
    this.#traces.forEach((trace, lane) => this.#post({ type: "trace", lane, spans: trace.take() }));
    this.#traces.length = 0;
  }

  /** Has nothing more to say: another world is to come. */
  close(): void {
    if (!this.#over) this.#finish();
  }

  /** Stands back in good order, when all do: for good, or to meet `anew`. */
  async leave(anew: boolean): Promise<void> {
    if (this.#over) throw new MachineError("The world has ended already");
    await this.#groups[0]?.barrier();
    this.#finish();
    await (anew ? this.world.end("the machines meet anew") : this.world.leave());
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
      const { membership: { world: id }, rank, size, machines, survivors, facts } = world;
      return post({ type: "met", world: { id, rank, size, machines, survivors, facts } });
    }
    if (order.type === "serve") await service?.serve(order);
    else if (order.type === "untrace") service?.untrace();
    else if (order.type === "share") {
      await service!.share(order.tensors, order.root);
      post({ type: "shared" });
    } else if (order.type === "leave" || order.type === "end") {
      await (order.type === "leave" ? service?.leave(order.anew) : service?.end(order.reason, order.mistake));
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
