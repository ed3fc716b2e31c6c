/**
 * Collectives among processes, over links: all-reduce, reduce-scatter, all-gather, broadcast, barrier.
 *
 * All members must call the same collectives with the same lengths in the same order; each stream begins with what its
 * sender calls, so that a difference is told instead of mixing numbers up. Whatever fails ends the group on all members.
 * @module
 */

import { UserError } from "../errors.ts";
import { CompressedSum, exchange } from "./compressed_sum.ts";
import {
  type AlgorithmBounds,
  type AlgorithmChoice,
  algorithmFor,
  type AllReduceAlgorithm,
  allReduceAlgorithms,
  chooseBounds,
  type CollectiveAlgorithm,
  measureAlgorithms,
} from "./algorithms.ts";
import { doubling } from "./doubling.ts";
import { ExchangeMemory } from "./exchange_memory.ts";
import { type Compression, formats } from "./gradient_codecs.ts";
import { GroupMemory, scratchBytes } from "./group_memory.ts";
import { GuardedLinks } from "./guarded_links.ts";
import { halving } from "./halving.ts";
import { type Member, ring } from "./ring.ts";
import { type ProcessGroupOptions, settled } from "./process_group_options.ts";
import { binomialTree, chain, spread } from "./spread.ts";

export type {
  AlgorithmBounds,
  AlgorithmChoice,
  AlgorithmTimes,
  AllReduceAlgorithm,
  CollectiveAlgorithm,
} from "./algorithms.ts";

const kinds = ["all-reduce", "reduce-scatter", "all-gather", "broadcast", "barrier", "compressed all-reduce"] as const;

/** Up to so many bytes are broadcast down a binomial tree, more along a chain. */
const treeBytes = 64 * 1024;

export type { ProcessGroupOptions };

/** A member's view of processes that carry out collectives together. Calls wait for each other, in order. */
export class ProcessGroup {
  /** Bytes that the group needs in a memory that is given to it. */
  static readonly scratchBytes: number = scratchBytes;
  /** This member's number. */
  readonly rank: number;
  /** Number of members. */
  readonly size: number;
  readonly #member: Member;
  readonly #algorithm: CollectiveAlgorithm;
  /** Memory of compressed sums, by format. */
  readonly #exchanges = new Map<Compression, ExchangeMemory>();
  #bounds: AlgorithmBounds;
  #last: Promise<void> = Promise.resolve();
  #calls = 0;

  /**
   * Makes the group; nothing is sent yet.
   *
   * @throws UserError if the options contradict each other
   */
  constructor(options: ProcessGroupOptions) {
    const { rank, size, links, timeoutSeconds, algorithm, bounds, memory, scratchOffset } = settled(options);
    this.rank = rank;
    this.size = size;
    this.#algorithm = algorithm;
    this.#bounds = bounds;
    this.#member = {
      rank,
      size,
      links: new GuardedLinks(links, timeoutSeconds, kinds, options.onPhase),
      memory: new GroupMemory(memory, scratchOffset),
    };
  }

  /**
   * Sums `data` over all members, element by element, in place. All members get the same bits: each sum is made by one
   * member, or by all in one order. The order depends on rank, length and algorithm, not on time.
   *
   * A ring moves the least bytes (Patarasuk and Yuan, 2009), recursive doubling takes the fewest steps (Thakur,
   * Rabenseifner and Gropp, 2005), recursive halving as few bytes in few more steps (Rabenseifner, 2004).
   *
   * @param data as many f32 as on all others; not to be touched before the promise is settled
   * @throws MachineError (restartable) when a member is lost or silent, UserError when members call different things
   */
  allReduce(data: Float32Array): Promise<void> {
    return this.#allReduce(data, algorithmFor(this.#algorithm, this.#bounds, data.byteLength));
  }

  /** Up to how many bytes which way is taken; the same on all members. */
  set bounds(bounds: AlgorithmBounds) {
    this.#bounds = bounds;
  }

  /**
   * Measures on these links which way is the fastest for which size, and has `auto` choose by that from then on. It takes
   * 1 to 2 s. All members call it at the same place; what it gives is the same on all.
   *
   * @throws as `allReduce`
   */
  async tune(): Promise<AlgorithmChoice> {
    const { rank, size } = this;
    const allReduce = (data: Float32Array, algorithm: AllReduceAlgorithm) => this.#allReduce(data, algorithm);
    const times = size > 1 ? await measureAlgorithms({ rank, size, allReduce, barrier: () => this.barrier() }) : [];
    // All have the same times, so all come to the same bounds.
    if (size > 1) this.#bounds = chooseBounds(times);
    return { bounds: this.#bounds, times };
  }

  /**
   * Makes an all-reduce for buffers of one length whose numbers travel in fewer bytes: about 1/2 of f32's with `f16` and
   * `bf16`, 1/4 with `int8`. All members get the same bits. For each buffer of a step one of its own: with `int8` it keeps
   * what rounding has lost, to add it to the same elements of the next call.
   *
   * With `int8` it takes 4 bytes an element, in which that is kept; the sums of a format share some 4 MB. It is not carried
   * over to another group. A group of one member changes nothing.
   *
   * @param length elements of a buffer; the same on all others
   * @param compression how numbers travel; the same on all others
   */
  compressed(length: number, compression: Compression): CompressedSum {
    const memory = this.#exchanges.get(compression) ?? new ExchangeMemory(this.rank, this.size, compression);
    this.#exchanges.set(compression, memory);
    const detail = Object.keys(formats).indexOf(compression);
    return new CompressedSum(
      length,
      compression,
      (data, residual) =>
        this.#call("compressed all-reduce", length, detail, () => exchange(this.#member, memory, data, residual())),
    );
  }

  /**
   * Sums `data` over all members and leaves to each its own part: elements `bounds[rank]` to `bounds[rank + 1]`. The rest
   * of `data` holds partial sums then.
   *
   * @param data as many f32 as on all others
   * @param bounds where parts begin, and the end of the last: `size + 1` numbers; parts as equal as can be if not given
   * @returns the own part, a view of `data`
   * @throws as `allReduce`
   */
  async reduceScatter(data: Float32Array, bounds?: readonly number[]): Promise<Float32Array> {
    const settled = this.#checkedBounds(data.length, bounds);
    await this.#call(
      "reduce-scatter",
      data.length,
      fingerprint(settled),
      () => ring(this.#member, data, settled, "reduce-scatter"),
    );
    return data.subarray(settled[this.rank], settled[this.rank + 1]);
  }

  /**
   * Gives each member's part of `data`, elements `bounds[rank]` to `bounds[rank + 1]`, to all others, in the same place.
   *
   * @param data as many f32 as on all others
   * @param bounds as of `reduceScatter`
   * @throws as `allReduce`
   */
  async allGather(data: Float32Array, bounds?: readonly number[]): Promise<void> {
    const settled = this.#checkedBounds(data.length, bounds);
    await this.#call(
      "all-gather",
      data.length,
      fingerprint(settled),
      () => ring(this.#member, data, settled, "all-gather"),
    );
  }

  /**
   * Gives `data` of member `root` to all.
   *
   * @param data as many f32 as on all others; overwritten on all but the root
   * @param root the member that gives
   * @throws as `allReduce`
   */
  async broadcast(data: Float32Array, root: number): Promise<void> {
    if (!Number.isInteger(root) || root < 0 || root >= this.size) {
      throw new UserError(`Cannot broadcast from member ${root} of a process group of ${this.size}`);
    }
    await this.#call(
      "broadcast",
      data.length,
      root,
      () => spread(this.#member, data, root, data.byteLength <= treeBytes ? binomialTree : chain),
    );
  }

  /**
   * Resolves when all members have called it.
   *
   * @throws as `allReduce`
   */
  barrier(): Promise<void> {
    return this.#call("barrier", 0, 0, () => doubling(this.#member, new Float32Array(0)));
  }

  /** Closes the links; what is under way or called later fails. */
  close(): void {
    const { links } = this.#member;
    if (links.failure === undefined) links.fail(new UserError("The process group has been closed"));
  }

  #allReduce(data: Float32Array, algorithm: AllReduceAlgorithm): Promise<void> {
    const member = this.#member;
    return this.#call("all-reduce", data.length, allReduceAlgorithms.indexOf(algorithm), () => {
      if (algorithm === "doubling" || data.length === 0) return doubling(member, data);
      if (algorithm === "halving") return halving(member, data);
      return ring(member, data, this.#equalBounds(data.length), "both");
    });
  }

  /** One after another: collectives share links and scratch memory. */
  #call(kind: typeof kinds[number], length: number, detail: number, work: () => Promise<void>): Promise<void> {
    const { links } = this.#member;
    const sequence = ++this.#calls;
    const result = this.#last.then(() => {
      if (links.failure !== undefined) throw links.failure;
      if (this.size > 1) return links.run([kinds.indexOf(kind), sequence, length, detail], work);
    });
    this.#last = result.catch(() => {});
    return result;
  }

  #checkedBounds(length: number, bounds: readonly number[] = this.#equalBounds(length)): readonly number[] {
    const ordered = bounds.every((bound, i) => Number.isInteger(bound) && bound >= (i === 0 ? 0 : bounds[i - 1]));
    if (bounds.length === this.size + 1 && ordered && bounds[0] === 0 && bounds[this.size] === length) return bounds;
    throw new UserError(
      `Bounds of ${this.size} parts of ${length} elements must be ${this.size + 1} whole numbers that rise from 0 to ` +
        `${length}: they are ${bounds.join(", ")}`,
    );
  }

  /** Parts as equal as can be, at multiples of 16 elements. */
  #equalBounds(length: number): number[] {
    const inner = Array.from({ length: this.size }, (_, i) => Math.floor(length * i / this.size / 16) * 16);
    return [...inner, length];
  }
}

/** A number by which members see that their bounds differ. */
function fingerprint(bounds: readonly number[]): number {
  return bounds.reduce((sum, bound) => (sum * 31 + bound) % 2147483647, 0);
}
