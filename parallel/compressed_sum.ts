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
import { Frontier } from "./frontier.ts";
import { blockLength, type Codec, codecOf, type Compression, formats } from "./gradient_codecs.ts";
import { greetingBytes } from "./guarded_links.ts";
import type { Member } from "./ring.ts";

/**
 * Elements of a slice of all chunks together. On loopback among 2 and 4 members 128 Ki to 512 Ki with a lag of 2 to 5 do not
 * differ by more than the noise of a busy machine.
 */
const sliceLength = 128 * 1024;
/** Messages to or from a member that may be under way: a slice's sum follows so many messages after the slice. */
const lag = 3;
/** Bytes of a block in f32. */
const valueBytes = 4 * blockLength;

/** Blocks of the data. */
interface Blocks {
  readonly from: number;
  readonly count: number;
}

/** Another member, and where messages to it and from it lie, `lag` each way, in bytes of the memory. */
interface Peer {
  readonly rank: number;
  readonly outgoing: readonly number[];
  readonly incoming: readonly number[];
}

/** Where things lie in the memory, in bytes: what was lost at its beginning, each block as in the data. */
interface Layout {
  /** A slice in f32. */
  readonly values: number;
  readonly peers: readonly Peer[];
  readonly pages: number;
}

/** Sums buffers of one length one after another; `ProcessGroup.compressed` makes it. */
export class CompressedSum {
  readonly #member: Member;
  readonly #call: (work: () => Promise<void>) => Promise<void>;
  /** Blocks of the data, and of a slice. */
  readonly #blocks: number;
  readonly #sliceBlocks: number;
  readonly #blockBytes: number;
  readonly #peers: readonly Peer[];
  readonly #values: Float32Array;
  readonly #bytes: Uint8Array;
  readonly #codec: Codec;

  /**
   * Takes its memory; nothing is sent yet.
   *
   * @param member whose sum it is
   * @param length elements of each buffer
   * @param compression how numbers travel
   * @param call has the member's group carry out a collective
   */
  constructor(
    member: Member,
    readonly length: number,
    readonly compression: Compression,
    call: (work: () => Promise<void>) => Promise<void>,
  ) {
    this.#member = member;
    this.#call = call;
    this.#blocks = Math.ceil(length / blockLength);
    this.#sliceBlocks = Math.ceil(sliceLength / blockLength / member.size);
    this.#blockBytes = formats[compression].blockBytes;
    const { values, peers, pages } = this.#layOut();
    if (!Number.isInteger(length) || length < 0 || pages > 65536) {
      throw new UserError(`Cannot sum ${length} elements as ${compression} at once: take several buffers`);
    }
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    this.#peers = peers;
    this.#values = new Float32Array(memory.buffer, values, this.#sliceBlocks * blockLength);
    this.#bytes = new Uint8Array(memory.buffer);
    this.#codec = codecOf(memory, compression);
  }

  /**
   * Sums `data` over all members, in place; all get the same bits. Where a member's numbers are not finite, the sum is not
   * either, on all members; nothing of it is kept for later calls.
   *
   * @param data `length` elements; not to be touched before the promise is settled
   * @throws as `ProcessGroup.allReduce`
   */
  async allReduce(data: Float32Array): Promise<void> {
    if (data.length !== this.length) {
      throw new UserError(`Cannot sum ${data.length} elements: this sum was made for ${this.length}`);
    }
    await this.#call(() => this.#exchange(data));
  }

  async #exchange(data: Float32Array): Promise<void> {
    const { rank, size, links } = this.#member;
    const messages = Math.ceil(Math.ceil(this.#blocks / size) / this.#sliceBlocks) + lag;
    /** Messages that may go out, and those that have been dealt with. */
    const [ready, done] = [new Frontier(0), new Frontier(0)];
    const lanes = this.#peers.map((peer) => ({ ...peer, sent: new Frontier(0), received: new Frontier(0) }));
    const enter = (t: number) => links.phase = `message ${t + 1} of ${messages}`;

    const sendAll = async ({ rank: to, outgoing, sent }: typeof lanes[number]) => {
      for (let t = 0; t < messages; t++) {
        while (ready.value <= t) await ready.moved();
        const head = t === 0 ? greetingBytes : 0;
        const message = this.#message(outgoing[t % lag] - head, head + this.#messageBytes(t, rank, to));
        if (t === 0) links.writeGreeting(message);
        enter(t);
        if (message.length > 0) await links.send(to, message);
        sent.advance(t + 1);
      }
    };
    const receiveAll = async ({ rank: from, incoming, received }: typeof lanes[number]) => {
      const greeting = new Uint8Array(greetingBytes);
      await links.receive(from, greeting);
      links.checkGreeting(from, greeting);
      for (let t = 0; t < messages; t++) {
        while (done.value + lag <= t) await done.moved();
        const message = this.#message(incoming[t % lag], this.#messageBytes(t, from, rank));
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
          this.#takeSums(data, t - lag);
          this.#sumOwn(data, t - lag);
          done.advance(t - lag + 1);
        }
        this.#encodeOthers(data, t);
        ready.advance(t + 1);
      }
    };
    await Promise.all([...lanes.map(sendAll), ...lanes.map(receiveAll), computeAll()]);
  }

  /** Encodes slice t of the others' chunks into message t, behind the sum. */
  #encodeOthers(data: Float32Array, t: number): void {
    const behind = this.#slice(this.#member.rank, t - lag).count * this.#blockBytes;
    for (const { rank, outgoing } of this.#peers) {
      const slice = this.#slice(rank, t);
      this.#load(data, slice);
      this.#encode(slice, outgoing[t % lag] + behind);
    }
  }

  /** Adds the others' slice t of the own chunk to one's own and encodes the sum, into message t + `lag` to all. */
  #sumOwn(data: Float32Array, t: number): void {
    const slice = this.#slice(this.#member.rank, t);
    if (slice.count === 0) return;
    this.#load(data, slice);
    for (const { rank, incoming } of this.#peers) {
      const behind = this.#slice(rank, t - lag).count * this.#blockBytes;
      this.#codec.add(incoming[t % lag] + behind, this.#values.byteOffset, slice.count);
    }
    const [first, ...others] = this.#peers.map(({ outgoing }) => outgoing[t % lag]);
    this.#encode(slice, first);
    for (const other of others) this.#bytes.copyWithin(other, first, first + slice.count * this.#blockBytes);
    this.#decode(data, slice, first);
  }

  /** Decodes the sums of others' chunks that message t has brought. */
  #takeSums(data: Float32Array, t: number): void {
    for (const { rank, incoming } of this.#peers) this.#decode(data, this.#slice(rank, t - lag), incoming[t % lag]);
  }

  /** Slice t of member `owner`'s chunk; there may be none. */
  #slice(owner: number, t: number): Blocks {
    const bound = (chunk: number) => Math.floor(this.#blocks * chunk / this.#member.size);
    const from = bound(owner) + t * this.#sliceBlocks;
    return { from, count: t < 0 ? 0 : Math.max(0, Math.min(this.#sliceBlocks, bound(owner + 1) - from)) };
  }

  #messageBytes(t: number, from: number, to: number): number {
    return (this.#slice(from, t - lag).count + this.#slice(to, t).count) * this.#blockBytes;
  }

  #message(place: number, bytes: number): Uint8Array {
    return this.#bytes.subarray(place, place + bytes);
  }

  /** Puts blocks of the data into `#values`, filled up with zeros. */
  #load(data: Float32Array, blocks: Blocks): void {
    const values = elements(data, blocks);
    this.#values.set(values);
    this.#values.fill(0, values.length, blocks.count * blockLength);
  }

  /** Encodes `#values`, which are these blocks of the data. */
  #encode({ from, count }: Blocks, target: number): void {
    this.#codec.encode(this.#values.byteOffset, from * valueBytes, target, count);
  }

  /** Decodes these blocks of the data from the memory. */
  #decode(data: Float32Array, blocks: Blocks, source: number): void {
    this.#values.fill(0, 0, blocks.count * blockLength);
    this.#codec.add(source, this.#values.byteOffset, blocks.count);
    const target = elements(data, blocks);
    target.set(this.#values.subarray(0, target.length));
  }

  #layOut(): Layout {
    let end = formats[this.compression].feedback ? this.#blocks * valueBytes : 0;
    const take = (bytes: number) => {
      const start = end;
      end += Math.ceil(bytes / 64) * 64;
      return start;
    };
    const values = take(this.#sliceBlocks * valueBytes);
    // A greeting goes before the first message.
    const messages = () => Array.from({ length: lag }, () => take(64 + 2 * this.#sliceBlocks * this.#blockBytes) + 64);
    const { rank, size } = this.#member;
    const peers = Array.from({ length: size }, (_, other) => other).filter((other) => other !== rank)
      .map((other) => ({ rank: other, outgoing: messages(), incoming: messages() }));
    return { values, peers, pages: Math.ceil(end / 65536) };
  }
}

/** What these blocks hold of the data; the last one may not be full. */
function elements(data: Float32Array, { from, count }: Blocks): Float32Array {
  return data.subarray(from * blockLength, (from + count) * blockLength);
}
