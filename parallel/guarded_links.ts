/**
 * The links of a process group with a limit on every wait. One fault ends all of them, so that every member learns of it
 * from its neighbours: a collective that has lost a member cannot be finished by the others.
 * @module
 */

import { MachineError, messageOf, UserError } from "../errors.ts";
import type { Link } from "../network/link.ts";

/** A call of a link that has not returned. */
interface Wait {
  readonly what: string;
  /** `performance.now()` when it began. */
  readonly since: number;
}

/** What begins every stream of a collective, so that members who call different ones learn of it: kind, number, length, detail. */
export type Greeting = readonly [kind: number, sequence: number, length: number, detail: number];

/** Bytes of a greeting: four f64. */
export const greetingBytes = 32;

/** Links to the other members of a group, by their ranks. */
export class GuardedLinks {
  #phase = "";
  #collective = "";
  #greeting: Greeting = [0, 0, 0, 0];
  #kinds: readonly string[];
  #failure: Error | undefined;
  #stop: ((reason: Error) => void) | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #waits = new Set<Wait>();

  constructor(
    readonly links: ReadonlyMap<number, Link>,
    readonly timeoutSeconds: number,
    kinds: readonly string[],
    readonly onPhase?: (phase: string) => void,
  ) {
    this.#kinds = kinds;
  }

  /** What the collective is doing, for messages and timelines; algorithms set it. */
  get phase(): string {
    return this.#phase;
  }

  set phase(phase: string) {
    if (phase === this.#phase) return;
    this.#phase = phase;
    this.onPhase?.(phase);
  }

  /** What has made the links unusable, if something has. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  /** Carries out a collective; it ends with `work`, with a link's fault, or when one wait has lasted longer than the limit. */
  run(greeting: Greeting, work: () => Promise<void>): Promise<void> {
    this.#greeting = greeting;
    this.#collective = this.#kinds[greeting[0]];
    this.phase = "negotiation";
    return new Promise((resolve, reject) => {
      this.#stop = reject;
      this.#arm(this.timeoutSeconds * 1000);
      work().then(() => {
        clearTimeout(this.#timer);
        resolve();
      }, (error) => this.fail(error));
    });
  }

  /** Makes the links unusable for this reason, and ends the collective that is under way. */
  fail(reason: Error): void {
    clearTimeout(this.#timer);
    if (this.#failure === undefined) {
      this.#failure = reason;
      for (const link of this.links.values()) link.close();
    }
    this.#stop?.(this.#failure);
  }

  /** Sends all of `source` to member `rank`. */
  send(rank: number, source: Uint8Array): Promise<void> {
    const link = this.links.get(rank)!;
    return this.#guard(link.write(source), "send to", link);
  }

  /** Fills `target` with what member `rank` sends. */
  receive(rank: number, target: Uint8Array): Promise<void> {
    const link = this.links.get(rank)!;
    return this.#guard(link.read(target), "receive from", link);
  }

  /** Puts the greeting of this collective into the beginning of `target`. */
  writeGreeting(target: Uint8Array): void {
    const view = new DataView(target.buffer, target.byteOffset, greetingBytes);
    this.#greeting.forEach((value, i) => view.setFloat64(8 * i, value, true));
  }

  /** `UserError` if what member `rank` greets with in `source` is not the collective that is carried out here. */
  checkGreeting(rank: number, source: Uint8Array): void {
    const view = new DataView(source.buffer, source.byteOffset, greetingBytes);
    if (this.#greeting.every((value, i) => view.getFloat64(8 * i, true) === value)) return;
    const theirs = this.#greeting.map((_, i) => view.getFloat64(8 * i, true));
    throw new UserError(
      `The members of a process group must call the same collectives in the same order: here it is ` +
        `${this.#describe(this.#greeting)}, on ${this.links.get(rank)!.peer} it is ${this.#describe(theirs)}`,
    );
  }

  #describe([kind, sequence, length, detail]: readonly number[]): string {
    return `call ${sequence}, ${this.#kinds[kind] ?? "unknown"} of ${length} elements (variant ${detail})`;
  }

  async #guard(call: Promise<void>, verb: string, link: Link): Promise<void> {
    const wait: Wait = {
      what: `${verb} ${link.peer} in ${this.#collective}, ${this.phase}`,
      since: performance.now(),
    };
    this.#waits.add(wait);
    try {
      await call;
    } catch (error) {
      throw this.#failure ??
        new MachineError(`Cannot ${wait.what}: ${messageOf(error)}. The process group has ended`, {
          restartable: true,
        });
    } finally {
      this.#waits.delete(wait);
    }
  }

  /** Looks after so many ms whether the longest wait has reached the limit. */
  #arm(milliseconds: number): void {
    const due = performance.now() + milliseconds;
    this.#timer = setTimeout(() => {
      const limit = this.timeoutSeconds * 1000;
      // After this thread itself was kept from working, what has come meanwhile is read first.
      if (performance.now() - due > limit / 10) return this.#arm(limit);
      // A set keeps the order in which waits began.
      const [oldest] = this.#waits;
      const left = oldest === undefined ? limit : limit - (performance.now() - oldest.since);
      if (left > 0) return this.#arm(left);
      this.fail(
        new MachineError(
          `Cannot ${oldest.what}: nothing moved for ${this.timeoutSeconds} s, so that member, or one that it ` +
            `waits for, has stopped. The process group has ended`,
          { restartable: true },
        ),
      );
    }, milliseconds);
  }
}
