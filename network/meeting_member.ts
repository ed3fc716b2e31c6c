/**
 * Coming to another node's door to meet.
 * @module
 */

import { MachineError, messageOf } from "../errors.ts";
import { before, type Deadline, inSeconds, silentTicks, ticking, tickMilliseconds } from "./deadline.ts";
import {
  type Address,
  errorOf,
  type Hello,
  hostSchema,
  type Join,
  type NodeOptions,
  type Outcome,
  type Place,
} from "./gathering.ts";
import { connect } from "./listener.ts";
import { Linking } from "./linking.ts";
import { receiveMessage, sendMessage } from "./messages.ts";
import { Outbox } from "./outbox.ts";
import type { NamedLink } from "./plain_link.ts";

/** How long members try to link to each other, in seconds. */
export function linkSeconds({ peerTimeoutSeconds }: NodeOptions): number {
  return 2 * peerTimeoutSeconds;
}

/** What came of a visit: links to all, another door to go to, or that there is no host here any more. */
export type Visit =
  /** It was refused, or time is over. */
  | { readonly kind: "failed"; readonly why: Error }
  | { readonly kind: "linked"; readonly linking: Linking }
  | { readonly kind: "elsewhere"; readonly place: Place }
  | { readonly kind: "lost"; readonly why: Error };

/** What a visitor needs. */
export interface VisitOptions {
  readonly node: NodeOptions;
  /** Ends it. */
  readonly signal: AbortSignal;
  /** Whose door it is, for messages. */
  readonly who: string;
  readonly address: Address;
  /** How long to try to reach it. */
  readonly reached: Deadline;
  /** By when the meeting must have been; a running world puts it off. */
  readonly deadline: Deadline;
  /** Given the interface that leads to the host, what to say there. */
  readonly join: (near: string) => Promise<Join>;
  /** Called whenever the host says that this node is to wait, for a running world or a meeting. */
  readonly accepted: (running: boolean) => void;
  /** Where links that come in belong. */
  readonly register: (linking: Linking) => void;
}

/** Comes to a door; what fails on the way there or later counts as the host being lost. */
export async function visit(options: VisitOptions): Promise<Visit> {
  const { node, signal, who, address, reached, join } = options;
  const { secret, group, tls, peerTimeoutSeconds } = node;
  let link: NamedLink | undefined;
  let stop = () => {};
  const abort = () => link?.close();
  signal.addEventListener("abort", abort, { once: true });
  try {
    const opened = await connect(who, address, { secret, group, tls, deadline: reached, signal });
    link = opened.link;
    const { peer } = link;
    const silence = Promise.withResolvers<never>();
    let ticks = 0;
    stop = ticking(tickMilliseconds(peerTimeoutSeconds), () => {
      if (++ticks <= silentTicks(peerTimeoutSeconds)) return;
      silence.reject(new MachineError(`${peer} was silent for ${peerTimeoutSeconds} s`, { restartable: true }));
    });
    const hello: Hello = { kind: "join", join: await join(opened.hostname) };
    await sendMessage(link, hello);
    const attending = attend(link, options, () => ticks = 0);
    attending.catch(() => {});
    return await Promise.race([attending, silence.promise]);
  } catch (error) {
    return { kind: "lost", why: error instanceof Error ? error : new Error(messageOf(error)) };
  } finally {
    stop();
    signal.removeEventListener("abort", abort);
    link?.close();
  }
}

/** Does what the host says until the world begins or something else is to be done. */
async function attend(link: NamedLink, options: VisitOptions, heard: () => void): Promise<Visit> {
  const { node, accepted, register } = options;
  const { timeoutSeconds, report = () => {} } = node;
  const outbox = new Outbox(link);
  const { peer } = link;
  const late = new MachineError(`The group was not complete at ${peer} within ${timeoutSeconds} s`, {
    restartable: true,
  });
  let { deadline } = options;
  let linking: Linking | undefined;
  let begun = false;
  try {
    for (;;) {
      const word = await before(deadline, receiveMessage(link, hostSchema), () => late);
      heard();
      if (word.kind === "refused") return { kind: "failed", why: errorOf(word) };
      if (word.kind === "elsewhere") return word;
      if (word.kind === "wait") {
        accepted(word.running);
        if (word.running) deadline = inSeconds(timeoutSeconds);
      }
      if (word.kind === "invited") {
        await linking?.close();
        const own = linking = new Linking(word.membership, node, inSeconds(linkSeconds(node)), report);
        register(own);
        // Once invited, the host decides how long it takes.
        deadline = Math.max(deadline, inSeconds(3 * linkSeconds(node)));
        own.open();
        const tell = () => {
          const outcome: Outcome = { world: own.membership.world, missing: own.missing() };
          if (linking === own) outbox.send(outcome);
        };
        before(own.deadline, own.complete, () => new MachineError("late")).then(tell, tell);
      }
      if (word.kind === "begin" && word.world === linking?.membership.world) {
        begun = true;
        return { kind: "linked", linking };
      }
    }
  } catch (error) {
    if (error === late) return { kind: "failed", why: late };
    throw error;
  } finally {
    if (!begun) await linking?.close();
  }
}
