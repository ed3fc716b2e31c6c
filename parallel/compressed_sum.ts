/**
 * All-reduce of numbers that travel in fewer bytes, by direct exchange: around a ring each hop would round anew.
 *
 * Chunk c of the data belongs to member c. Each member encodes the chunks of the others and sends each straight to its owner;
 * the owner adds them in f32, in the order of ranks, to its own numbers, which need no rounding; it encodes the sum once and
 * gives it to all. All decode the same bytes, the owner too, so that all have the same bits. Each member sends
 * 2 (n - 1) / n of the encoded bytes, as around a ring.
 *
 * With error feedback (int8) what a rounding loses is added before the next: by the sender to its contribution, by the owner
 * to the sum. So losses do not pile up: all sums up to now lack no more than what is kept at this moment (Seide et al.,
 * "1-bit stochastic gradient descent", 2014; Karimireddy et al., "Error feedback fixes SignSGD", 2019; at both ends as in
 * Tang et al., "1-bit Adam", 2021). A member keeps it of others' chunks as a sender and of its own chunk as the owner.
 *
 * Message t to member p holds slice t - `lag` of the own chunk's sum, then slice t of chunk p. So slices are encoded, sent,
 * received, summed and decoded at the same time, and what is under way is bounded.
 * @module
 */

import { UserError } from "../errors.ts";
import { blocksOf, type ExchangeMemory, type Lane, messagesUnderWay } from "./exchange_memory.ts";
import { Frontier } from "./frontier.ts";
import { blockLength, type Compression, formats } from "./gradient_codecs.ts";
import { greetingBytes } from "./guarded_links.ts";
import type { Member } from "./ring.ts";

/** A slice's sum follows so many messages after the slice: then its place in the messages is free again. */
const lag = messagesUnderWay;

/** Sums buffers of one length one after another; `ProcessGroup.compressed` makes it. */
export class CompressedSum {
  /** What rounding has lost of each element, with error feedback. */
  readonly #residual: Float32Array | undefined;
  /** What the numbers were multiplied by of which it is. */
  #scale = 1;
  readonly #call: (data: Float32Array, residual: () => Float32Array | undefined) => Promise<void>;

  /**
   * Nothing is sent yet.
   *
   * @param length elements of each buffer
   * @param compression how numbers travel
   * @param call has a group carry out `exchange`, with the residual of the call before
   */
  constructor(
    readonly length: number,
    readonly compression: Compression,
    call: (data: Float32Array, residual: () => Float32Array | undefined) => Promise<void>,
  ) {
    if (formats[compression].feedback) this.#residual = new Float32Array(length);
    this.#call = call;
  }

  /**
   * Sums `data` over all members, in place; all get the same bits. Where a member's numbers are not finite, the sum is not
   * either, on all members; nothing of it is kept for later calls.
   *
   * @param data `length` elements; not to be touched before the promise is settled
   * @param scale what the numbers are multiplied by, on all members alike: what a call lost is added to the next in its scale
   * @throws as `ProcessGroup.allReduce`
   */
  async allReduce(data: Float32Array, scale = 1): Promise<void> {
    if (data.length !== this.length) {
      throw new UserError(`Cannot sum ${data.length} elements: this sum was made for ${this.length}`);
    }
    await this.#call(data, () => this.#residualAt(scale));
  }

  /** What was lost, of numbers that are multiplied by `scale`. */
  #residualAt(scale: number): Float32Array | undefined {
    const [residual, factor] = [this.#residual, scale / this.#scale];
    this.#scale = scale;
    if (residual && factor !== 1) { for (let i = 0; i < residual.length; i++) residual[i] *= factor; }
    return residual;
  }
}

/** Sums `data` over all members, in place; `residual` is what was lost of each element last, with error feedback. */
export async function exchange(
  { rank, size, links }: Member,
  memory: ExchangeMemory,
  data: Float32Array,
  residual: Float32Array | undefined,
): Promise<void> {
  const { sliceBlocks, blockBytes } = memory;
  const total = blocksOf(data.length);
  const messages = Math.ceil(Math.ceil(total / size) / sliceBlocks) + lag;
  const bound = (chunk: number) => Math.floor(total * chunk / size);
  /** Slice t of a member's chunk, of `data` or what was lost of it; there may be none. */
  const slice = (of: Float32Array, owner: number, t: number) => {
    if (t < 0) return of.subarray(0, 0);
    const from = bound(owner) + t * sliceBlocks;
    const to = Math.min(bound(owner + 1), from + sliceBlocks);
    return of.subarray(from * blockLength, Math.max(from, to) * blockLength);
  };
  const encodedBytes = (owner: number, t: number) => blocksOf(slice(data, owner, t).length) * blockBytes;
  const messageBytes = (t: number, from: number, to: number) => encodedBytes(from, t - lag) + encodedBytes(to, t);
  /** Encodes what is loaded, slice t of a chunk. */
  const encode = (owner: number, t: number, target: number) =>
    memory.encode(target, slice(data, owner, t).length, residual && slice(residual, owner, t));

  /** Encodes slice t of the others' chunks into message t, behind the sum. */
  const encodeOthers = (t: number) => {
    for (const { rank: owner, outgoing } of memory.lanes) {
      memory.load(slice(data, owner, t));
      encode(owner, t, outgoing[t % lag] + encodedBytes(rank, t - lag));
    }
  };
  /** Sums slice t of the own chunk and encodes it into message t + `lag` to all. */
  const sumOwn = (t: number) => {
    const own = slice(data, rank, t);
    memory.load(own);
    for (const { rank: from, incoming } of memory.lanes) {
      memory.add(incoming[t % lag] + encodedBytes(from, t - lag), own.length);
    }
    const [first, ...others] = memory.lanes.map(({ outgoing }) => outgoing[t % lag]);
    encode(rank, t, first);
    for (const other of others) memory.repeat(first, other, encodedBytes(rank, t));
    memory.decode(first, own);
  };
  /** Decodes the sums of others' chunks that message t has brought. */
  const takeSums = (t: number) => {
    for (const { rank: owner, incoming } of memory.lanes) {
      memory.decode(incoming[t % lag], slice(data, owner, t - lag));
    }
  };

  /** Messages that may go out, and those that have been dealt with. */
  const [ready, done] = [new Frontier(0), new Frontier(0)];
  const lanes = memory.lanes.map((lane) => ({ ...lane, sent: new Frontier(0), received: new Frontier(0) }));
  const enter = (t: number) => links.phase = `message ${t + 1} of ${messages}`;

  const sendAll = async ({ rank: to, outgoing, sent }: Lane & { sent: Frontier }) => {
    for (let t = 0; t < messages; t++) {
      while (ready.value <= t) await ready.moved();
      const head = t === 0 ? greetingBytes : 0;
      const message = memory.message(outgoing[t % lag] - head, head + messageBytes(t, rank, to));
      if (t === 0) links.writeGreeting(message);
      enter(t);
      if (message.length > 0) await links.send(to, message);
      sent.advance(t + 1);
    }
  };
  const receiveAll = async ({ rank: from, incoming, received }: Lane & { received: Frontier }) => {
    const greeting = new Uint8Array(greetingBytes);
    await links.receive(from, greeting);
    links.checkGreeting(from, greeting);
    for (let t = 0; t < messages; t++) {
      while (done.value + lag <= t) await done.moved();
      const message = memory.message(incoming[t % lag], messageBytes(t, from, rank));
      enter(t);
      if (message.length > 0) await links.receive(from, message);
      received.advance(t + 1);
    }
  };
  const computeAll = async () => {
    // The last turns only take what the last messages have brought.
    for (let t = 0; t < messages + lag; t++) {
      if (t >= lag) {
        for (const { received } of lanes) while (received.value <= t - lag) await received.moved();
        for (const { sent } of lanes) while (sent.value <= t - lag) await sent.moved();
        takeSums(t - lag);
        sumOwn(t - lag);
        done.advance(t - lag + 1);
      }
      encodeOthers(t);
      ready.advance(t + 1);
    }
  };
  await Promise.all([...lanes.map(sendAll), ...lanes.map(receiveAll), computeAll()]);
}
