/**
 * How long an all-reduce among machines takes, from a model of their links: Hockney's latency and bandwidth, with the
 * costs of Thakur, Rabenseifner and Gropp ("Optimization of collective communication operations in MPICH", 2005), and the
 * slices in which `ring.ts` and `doubling.ts` send. Pure functions; all machines and links are alike, both ways at once.
 * @module
 */

import { UserError } from "../errors.ts";
import { sliceLength as doublingLength } from "./doubling.ts";
import { blockLength, formats } from "./gradient_codecs.ts";
import { sliceBytes } from "./group_memory.ts";

/** A machine's link to the network. */
export interface LinkModel {
  /** Rate of the line in each direction, in bytes per second. */
  readonly bytesPerSecond: number;
  /** From the send of a small message to its receipt, software included, in seconds: what `muster comm-bench` prints. */
  readonly latencySeconds: number;
  /** What a step of a collective costs besides: turns of the event loop, waking, the call itself. In seconds. */
  readonly stepSeconds: number;
  /** Bytes per second that a machine's network thread sends, receives, proves and sums, all at once. */
  readonly threadBytesPerSecond: number;
}

/** Payload's share of a line: 1,448 of each 1,514 bytes of a frame (TCP with time stamps over Ethernet). */
export const payloadShare = 1448 / 1514;

/**
 * Measured on 2 cores of a cloud machine: bus bandwidth of an all-reduce of 4 to 64 MiB between two processes over
 * authenticated links (1.1 to 1.4 GB/s; plain ones 3.2), and what its smallest one takes beyond a message.
 */
const assumedLink = { stepSeconds: 20e-6, threadBytesPerSecond: 1.2e9 } as const;

/** Links that cost nothing. */
export const idealLink: LinkModel = {
  bytesPerSecond: Infinity,
  latencySeconds: 0,
  stepSeconds: 0,
  threadBytesPerSecond: Infinity,
};

/** How gradients are written on the way. */
export type GradientCompression = "none" | "f16" | "bf16" | "int8";

/** Bytes on the way for each byte of f32; f16 and int8 have a scale for each 256 numbers. */
export const wireShare: Readonly<Record<GradientCompression, number>> = {
  none: 1,
  f16: formats.f16.blockBytes / (4 * blockLength),
  bf16: formats.bf16.blockBytes / (4 * blockLength),
  int8: formats.int8.blockBytes / (4 * blockLength),
};
/** f32 that a network thread writes in fewer bytes and reads again, in bytes per second (some 2 to 3e9 measured). */
const codingBytesPerSecond = 2.5e9;
/** Elements of all chunks that a message of a direct exchange holds, and messages by which sums follow. */
const exchanged = { length: 128 * 1024, lag: 5 };

/** Ways of an all-reduce: around a ring, by recursive doubling, by halving and doubling, by direct exchange. */
export type PlannedAlgorithm = "ring" | "doubling" | "halving" | "exchange";

/** The ways that there are: what is compressed goes straight to whom it is for, since each hop would round anew. */
export const algorithmsFor = (compression: GradientCompression): readonly PlannedAlgorithm[] =>
  compression === "none" ? ["ring", "doubling", "halving"] : ["exchange"];

/** What an all-reduce costs each machine. */
export interface CollectiveCost {
  /** Until all have the sum, alone on its links. */
  readonly seconds: number;
  /** Of these, while messages are on their way: neither line nor thread is busy. */
  readonly latencySeconds: number;
  /** Bytes that the machine that sends most sends; as many come in. */
  readonly sentBytes: number;
}

/** Seconds of a message, of a byte of payload, and of a message's software alone. */
interface Prices {
  readonly step: number;
  readonly perByte: number;
  readonly software: number;
}
type Costs = (n: number, bytes: number, prices: Prices) => { seconds: number; sent: number };

/** Rounds among a power of two of the members, and 1 if others give theirs first and get the sum last. */
function roundsOf(n: number): { rounds: number; folded: number } {
  const rounds = Math.floor(Math.log2(n));
  return { rounds, folded: n > 2 ** rounds ? 1 : 0 };
}

/** Seconds among n members, and bytes of f32 that the busiest sends. */
const costs: Readonly<Record<PlannedAlgorithm, Costs>> = {
  // In each of 2 (n - 1) steps a chunk moves on. A slice goes on when it has come, so steps follow each other at the
  // pace of the link, or of a slice's way if that is longer.
  ring(n, bytes, { step, perByte }) {
    const chunk = bytes / n * perByte;
    const slice = Math.min(bytes / n, sliceBytes) * perByte;
    return {
      seconds: step + chunk + (2 * n - 3) * Math.max(chunk, step + slice),
      sent: 2 * (n - 1) / n * bytes,
    };
  },
  // Slices one after another, each through all rounds.
  doubling(n, bytes, { step, perByte }) {
    const { rounds, folded } = roundsOf(n);
    const slices = Math.ceil(bytes / (4 * doublingLength));
    return {
      seconds: (rounds + 2 * folded) * (slices * step + bytes * perByte),
      sent: (rounds + folded) * bytes,
    };
  },
  // Rabenseifner, "Optimization of collective reduction operations", 2004. On the way down partners greet each other first.
  halving(n, bytes, { step, perByte }) {
    const { rounds, folded } = roundsOf(n);
    const halves = 2 * (1 - 2 ** -rounds) * bytes;
    return {
      seconds: (3 * rounds + 3 * folded) * step + (halves + 2 * folded * bytes) * perByte,
      sent: halves + folded * bytes,
    };
  },
  // There and back, messages to all others at once; each costs the thread some software.
  exchange(n, bytes, { step, perByte, software }) {
    const slices = Math.ceil(bytes / 4 / exchanged.length);
    const messages = (n - 1) * (slices + Math.min(slices, exchanged.lag));
    const sent = 2 * (n - 1) / n * bytes;
    return { seconds: 2 * step + messages * software + sent * perByte, sent };
  },
};

/** The cost of summing `bytes` of f32 over `machines`. */
export function allReduceCost(
  algorithm: PlannedAlgorithm,
  machines: number,
  bytes: number,
  link: LinkModel,
  compression: GradientCompression = "none",
): CollectiveCost {
  if (machines === 1) return { seconds: 0, latencySeconds: 0, sentBytes: 0 };
  const wire = wireShare[compression];
  const coding = compression === "none" || link.threadBytesPerSecond === Infinity ? 0 : 1 / codingBytesPerSecond;
  const perByte = Math.max(
    wire / (payloadShare * link.bytesPerSecond),
    wire / link.threadBytesPerSecond + coding,
  );
  const cost = (perByte: number, software: number) =>
    costs[algorithm](machines, bytes, { step: link.latencySeconds + software, perByte, software });
  const { seconds, sent } = cost(perByte, link.stepSeconds);
  return { seconds, latencySeconds: cost(0, 0).seconds, sentBytes: wire * sent };
}

/** A sum over machines on a lane. */
export interface LaneSum {
  /** When this machine's part is there, in seconds. */
  readonly ready: number;
  /** Of f32. */
  readonly bytes: number;
}

/**
 * When each sum of each lane has come. A lane carries out one after another; lanes share link and thread equally while
 * they use them, and wait for messages beside each other.
 */
export function playLanes(
  lanes: readonly (readonly LaneSum[])[],
  cost: (bytes: number) => Pick<CollectiveCost, "seconds" | "latencySeconds">,
): { ends: number[][]; busy: number } {
  const ends = lanes.map((): number[] => []);
  /** Of each lane: when what it does may use the link, and seconds of the whole link that it then takes. */
  const state = lanes.map(() => ({ from: 0, work: 0, under: false }));
  let [now, busy] = [0, 0];
  for (;;) {
    lanes.forEach((sums, i) => {
      const next = sums[ends[i].length];
      const lane = state[i];
      if (!next || lane.under || next.ready > now) return;
      const { seconds, latencySeconds } = cost(next.bytes);
      state[i] = { from: now + latencySeconds, work: seconds - latencySeconds, under: true };
    });
    const sharing = state.filter(({ under, from, work }) => under && from <= now && work > 0);
    const waiting = lanes.flatMap((sums, i) => state[i].under ? [] : sums.slice(ends[i].length, ends[i].length + 1));
    const events = [
      ...waiting.map(({ ready }) => ready),
      ...state.filter(({ under, from }) => under && from > now).map(({ from }) => from),
      ...sharing.map(({ work }) => now + work * sharing.length),
      // What takes no bandwidth, or has had it all.
      ...state.filter(({ under, from, work }) => under && from <= now && work <= 0).map(() => now),
    ];
    if (events.length === 0) return { ends, busy };
    const then = Math.min(...events);
    if (state.some(({ under }) => under)) busy += then - now;
    for (const lane of sharing) {
      const left = lane.work - (then - now) / sharing.length;
      // Rounding must not leave a rest that takes no time.
      lane.work = left <= 1e-9 * lane.work || then + left === then ? 0 : left;
    }
    now = then;
    state.forEach((lane, i) => {
      if (!lane.under || lane.from > now || lane.work > 0) return;
      ends[i].push(now);
      lane.under = false;
    });
  }
}

const rateUnits: Readonly<Record<string, number>> = {
  kbit: 1e3 / 8,
  mbit: 1e6 / 8,
  gbit: 1e9 / 8,
  tbit: 1e12 / 8,
  kbps: 1e3 / 8,
  mbps: 1e6 / 8,
  gbps: 1e9 / 8,
  tbps: 1e12 / 8,
  "kb/s": 1e3,
  "mb/s": 1e6,
  "gb/s": 1e9,
  "kbit/s": 1e3 / 8,
  "mbit/s": 1e6 / 8,
  "gbit/s": 1e9 / 8,
};
const timeUnits: Readonly<Record<string, number>> = { ns: 1e-9, us: 1e-6, "µs": 1e-6, "μs": 1e-6, ms: 1e-3, s: 1 };

/** A link as it is written: `25Gbit,30us`, or with what a network thread moves, `25Gbit,30us,1.2GB/s`. */
export function parseLink(text: string): LinkModel {
  const [rate, latency, thread, ...rest] = text.split(",").map((part) => part.trim());
  const wrong = (what: string): never => {
    throw new UserError(
      `--link is ${
        JSON.stringify(text)
      }, ${what}: write a line's rate and its latency, like 25Gbit,30us or 1.2GB/s,1ms`,
    );
  };
  const read = (part: string, units: Readonly<Record<string, number>>, what: string): number => {
    const [, number, unit] = /^(\d+(?:\.\d+)?)\s*([a-zµμ/]+)$/i.exec(part) ?? [];
    const value = Number(number) * (units[unit?.toLowerCase()] ?? NaN);
    return Number.isFinite(value) ? value : wrong(`of which ${JSON.stringify(part)} is no ${what}`);
  };
  if (latency === undefined) return wrong("which has no latency");
  if (rest.length > 0) return wrong("which has more than three parts");
  const bytesPerSecond = read(rate, rateUnits, "rate");
  const latencySeconds = read(latency, timeUnits, "time");
  const threadBytesPerSecond = thread === undefined
    ? assumedLink.threadBytesPerSecond
    : read(thread, rateUnits, "rate");
  if (bytesPerSecond === 0 || threadBytesPerSecond === 0) return wrong("over which nothing could be sent");
  if (latencySeconds > 10) return wrong("a latency of more than ten seconds");
  return { bytesPerSecond, latencySeconds, stepSeconds: assumedLink.stepSeconds, threadBytesPerSecond };
}
