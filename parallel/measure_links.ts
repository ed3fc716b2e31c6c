/**
 * How fast the links of a group are: latency and bandwidth of each, one after another so that none disturbs another, and
 * then the all-reduce of all members together. What is timed is what training uses, proofs of the bytes included.
 * @module
 */

import { MachineError, UserError } from "../errors.ts";
import type { Link } from "../network/link.ts";
import { GuardedLinks } from "./guarded_links.ts";
import { type AlgorithmChoice, type CollectiveAlgorithm, ProcessGroup } from "./process_group.ts";

/** What is measured, and over what. */
export interface MeasureLinksOptions {
  /** This member's number, from 0. */
  readonly rank: number;
  /** Number of members: at least 2. */
  readonly size: number;
  /** A link to each other member, by its rank; they are closed at the end. */
  readonly links: ReadonlyMap<number, Link>;
  /**
   * Longest time in which a send or receive may make no headway. It must be longer than two members take to measure their
   * link while the others wait: 1 s, or up to 3 s below 0.1 GB/s, more below 0.2 MB/s.
   */
  readonly timeoutSeconds: number;
  /** Bytes that are all-reduced, each a multiple of 4 and the same on all members (default: 4 KiB to 64 MiB). */
  readonly sizes?: readonly number[];
  /** How all-reduces go (default: by size); the same on all members. */
  readonly algorithm?: CollectiveAlgorithm;
  /** Whether to measure first which way is best for which size, and go by that; the same on all members. */
  readonly tune?: boolean;
  /** Told in words what is measured next. */
  readonly progress?: (what: string) => void;
}

/** A link between two members. */
export interface LinkMeasurement {
  /** Ranks of its ends, the lower first. */
  readonly between: readonly [number, number];
  /** Latency: half of the median round trip of 64 bytes, in µs. */
  readonly microseconds: number;
  /** Bandwidth from the lower rank to the higher and back, one way at a time, in GB/s: by messages of up to 16 MiB. */
  readonly gigabytesPerSecond: readonly [number, number];
}

/** An all-reduce by all members. */
export interface AllReduceMeasurement {
  /** Bytes that each member gives and gets. */
  readonly bytes: number;
  /** Median over rounds of the slowest member's time, in µs. */
  readonly microseconds: number;
  /** Bus bandwidth, 2 (n - 1) / n · bytes / time among n members, in GB/s: what each sends, whatever n is. */
  readonly gigabytesPerSecond: number;
}

/** What was measured: the same on all members. */
export interface LinkMeasurements {
  /** All pairs, in order. */
  readonly links: readonly LinkMeasurement[];
  /** In the order of the sizes. */
  readonly allReduces: readonly AllReduceMeasurement[];
  /** What the measurement of ways has settled; null if there was none. */
  readonly choice: AlgorithmChoice | null;
}

/** Bytes of the all-reduces if not told otherwise: 4 KiB to 64 MiB. */
export const defaultSizes: readonly number[] = Array.from({ length: 8 }, (_, i) => 4096 * 4 ** i);
/** Bytes of an order, of an answer, and so of a ping-pong's messages. */
const messageBytes = 64;
/** Bytes of the message by which a link's bandwidth is first guessed, and of the largest. */
const leastBytes = 16 * 1024;
const mostBytes = 16 * 2 ** 20;
/** A message that takes so many seconds is large enough. */
const longEnough = 0.1;
/** Seconds in which one thing is repeated; what takes longer is done once. */
const budget = 0.25;

/**
 * Measures the links; all members call it at once.
 *
 * @throws MachineError (restartable) when a member is lost or silent, UserError when members measure different things
 */
export async function measureLinks(options: MeasureLinksOptions): Promise<LinkMeasurements> {
  const { rank, size, links, timeoutSeconds, sizes = defaultSizes, algorithm, progress = () => {} } = options;
  if (size < 2) throw new UserError("Links are measured among at least 2 members");
  for (const bytes of sizes) {
    if (Number.isInteger(bytes / 4) && bytes > 0 && bytes <= 2 ** 31) continue;
    throw new UserError(`Cannot all-reduce ${bytes} bytes: f32 take a multiple of 4, and at most 2 GiB are measured`);
  }
  const scratch = Math.ceil(ProcessGroup.scratchBytes / 65536) * 65536;
  const pages = Math.ceil((scratch + Math.max(0, ...sizes)) / 65536);
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  const own = { memory, scratchOffset: 0 };
  const group = new ProcessGroup({ rank, size, links, timeoutSeconds, algorithm, memory: own });
  const guarded = new GuardedLinks(links, timeoutSeconds, ["the measurement of links"]);
  try {
    const pairs = Array.from({ length: size }, (_, a) => a)
      .flatMap((a) => Array.from({ length: size - 1 - a }, (_, i) => [a, a + 1 + i] as const));
    /** Three numbers of each pair; its lower rank puts them in. */
    const found = new Float32Array(3 * pairs.length);
    for (const [i, [a, b]] of pairs.entries()) {
      progress(`link ${i + 1} of ${pairs.length}: node ${a} – node ${b}`);
      await group.barrier();
      if (rank === a) await guarded.run([0, 0, 0, 0], async () => found.set(await measureLink(guarded, b), 3 * i));
      if (rank === b) await guarded.run([0, 0, 0, 0], () => answerOrders(guarded, a));
    }
    await group.allReduce(found);
    if (options.tune) progress("ways to all-reduce");
    const choice = options.tune ? await group.tune() : null;
    const allReduces: AllReduceMeasurement[] = [];
    for (const [i, bytes] of sizes.entries()) {
      progress(`all-reduce ${i + 1} of ${sizes.length}: ${bytes} bytes by ${size} nodes`);
      const seconds = await timeAllReduce(group, new Float32Array(memory.buffer, scratch, bytes / 4));
      const gigabytesPerSecond = rounded(2 * (size - 1) / size * bytes / seconds / 1e9);
      allReduces.push({ bytes, microseconds: rounded(seconds * 1e6), gigabytesPerSecond });
    }
    // Nobody closes a link that another still reads from.
    await group.barrier();
    return {
      links: pairs.map((between, i) => {
        const [microseconds, forth, back] = [...found.subarray(3 * i, 3 * i + 3)].map(rounded);
        return { between, microseconds, gigabytesPerSecond: [forth, back] };
      }),
      allReduces,
      choice,
    };
  } finally {
    group.close();
  }
}

const rounded = (value: number) => Number(value.toPrecision(4));

function median(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[numbers.length >> 1];
}

/** Latency to a member in µs, and bandwidth to and from it in GB/s. The member must be answering orders. */
async function measureLink(links: GuardedLinks, peer: number): Promise<[number, number, number]> {
  const payload = new Uint8Array(mostBytes);
  const none = new Uint8Array(0);
  links.phase = "latency";
  const roundTrip = await repeat(() => exchange(links, peer, none, none), 1000);
  const bandwidth = async (once: (bytes: Uint8Array) => Promise<number>) => {
    let bytes = leastBytes;
    for (; bytes < mostBytes; bytes *= 4) {
      if (await once(payload.subarray(0, bytes)) - roundTrip > longEnough) break;
    }
    bytes = Math.min(bytes, mostBytes);
    const seconds = await repeat(() => once(payload.subarray(0, bytes)), 20);
    // Order and answer take a round trip besides; where latency varies it could be all of the time.
    return bytes / Math.max(seconds - roundTrip, seconds / 2) / 1e9;
  };
  links.phase = "bandwidth";
  const forth = await bandwidth((bytes) => exchange(links, peer, bytes, none));
  const back = await bandwidth((bytes) => exchange(links, peer, none, bytes));
  await links.send(peer, order(-1, 0));
  return [roundTrip / 2 * 1e6, forth, back];
}

/** Median time of what is done again and again for a while, at most so many times. */
async function repeat(once: () => Promise<number>, most: number): Promise<number> {
  const end = performance.now() + budget * 1000;
  const times: number[] = [];
  do times.push(await once()); while (times.length < most && performance.now() < end);
  return median(times);
}

/** What to send on and what to send back, in bytes; the former negative at the end. */
function order(forth: number, back: number): Uint8Array {
  const message = new Uint8Array(messageBytes);
  const view = new DataView(message.buffer);
  view.setFloat64(0, forth);
  view.setFloat64(8, back);
  return message;
}

/** Sends `forth` and has `back` filled; gives the seconds until all is there. */
async function exchange(links: GuardedLinks, peer: number, forth: Uint8Array, back: Uint8Array): Promise<number> {
  const start = performance.now();
  await links.send(peer, order(forth.length, back.length));
  await links.send(peer, forth);
  await links.receive(peer, new Uint8Array(messageBytes));
  await links.receive(peer, back);
  return (performance.now() - start) / 1e3;
}

/** The other end of the exchanges. */
async function answerOrders(links: GuardedLinks, peer: number): Promise<void> {
  const payload = new Uint8Array(mostBytes);
  const answer = new Uint8Array(messageBytes);
  const message = new Uint8Array(messageBytes);
  const view = new DataView(message.buffer);
  for (;;) {
    links.phase = "waiting for orders";
    await links.receive(peer, message);
    const [forth, back] = [view.getFloat64(0), view.getFloat64(8)];
    if (forth < 0) return;
    if (!(forth <= mostBytes && back >= 0 && back <= mostBytes)) {
      throw new MachineError(`${links.links.get(peer)!.peer} wants ${forth} and ${back} bytes to be exchanged`);
    }
    links.phase = "bandwidth";
    await links.receive(peer, payload.subarray(0, forth));
    await links.send(peer, answer);
    await links.send(peer, payload.subarray(0, back));
  }
}

/** Median over rounds of the slowest member's time for an all-reduce, in seconds; the same on all members. */
async function timeAllReduce(group: ProcessGroup, data: Float32Array): Promise<number> {
  const { rank, size } = group;
  const once = async () => {
    data.fill(rank + 1);
    await group.barrier();
    const start = performance.now();
    await group.allReduce(data);
    const times = new Float32Array(size);
    times[rank] = (performance.now() - start) / 1e3;
    if (data[data.length >> 1] !== size * (size + 1) / 2) {
      throw new MachineError(`An all-reduce of ${data.byteLength} bytes gave a wrong sum`);
    }
    await group.allReduce(times);
    return Math.max(...times);
  };
  // All know the slowest time, so all do as many rounds.
  const rounds = Math.max(1, Math.min(50, Math.round(budget / await once())));
  const times: number[] = [];
  while (times.length < rounds) times.push(await once());
  return median(times);
}
