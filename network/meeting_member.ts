/**
 * Those who come to a rendezvous.
 * @module
 */

import { MachineError, messageOf } from "../errors.ts";
import { before, type Deadline, inSeconds } from "./deadline.ts";
import {
  helloSeconds,
  type Invitation,
  invitationSchema,
  type Join,
  type Meeting,
  type MeetOptions,
  nodeName,
  type Place,
  refusalError,
  refusalOf,
  several,
  sizeMost,
} from "./gathering.ts";
import { connect, type LinkListener, listen } from "./listener.ts";
import { object, receiveMessage, sendMessage, whole } from "./messages.ts";
import type { NamedLink } from "./plain_link.ts";

/** What two members say to each other. */
const pairSchema = object<{ from: number; to: number }>({ from: whole(1, sizeMost - 1), to: whole(1, sizeMost - 1) });

/** Comes to the rendezvous and is linked to the others. */
export async function join(
  options: MeetOptions,
  address: { hostname: string; port: number },
  deadline: Deadline,
): Promise<Meeting> {
  const { size, secret, group, tls, description, report, timeoutSeconds } = options;
  const { link: host, hostname: near } = await connect("the rendezvous", address, { secret, group, tls, deadline });
  const links = new Map<number, NamedLink>([[0, host]]);
  const invited = Promise.withResolvers<Invitation>();
  const linked = Promise.withResolvers<void>();
  invited.promise.catch(() => {});
  const failed = new AbortController();
  const { signal } = failed;
  const add = (rank: number, link: NamedLink, place: Place) => {
    link.peer = nodeName(rank, place);
    links.set(rank, link);
    if (links.size === size - 1) linked.resolve();
  };
  const closeOnFailure = (link: NamedLink) => signal.addEventListener("abort", () => link.close(), { once: true });
  const answer = async (link: NamedLink) => {
    closeOnFailure(link);
    try {
      const { rank, places } = await invited.promise;
      const late = () => new MachineError(`${link.peer} said nothing for ${helloSeconds} s`);
      const { from, to } = await before(inSeconds(helloSeconds), receiveMessage(link, pairSchema), late);
      if (to !== rank || from <= rank || from >= size || links.has(from)) {
        throw new MachineError(`${link.peer} wanted to link node ${from} to node ${to}, this being node ${rank}`);
      }
      await sendMessage(link, { from: rank, to: from });
      if (links.has(from)) throw new MachineError(`node ${from} came twice`);
      add(from, link, places[from]);
    } catch (error) {
      link.close();
      report?.(`Refused a connection: ${messageOf(error)}`);
    }
  };
  let listener: LinkListener | undefined;
  let opening: Promise<void>[] = [];
  try {
    const interfaceName = options.listen ?? near;
    listener = await listen({ hostname: interfaceName, port: 0, secret, group, tls, opened: answer, refused: report });
    const anyInterface = listener.hostname === "0.0.0.0" || listener.hostname === "::";
    const own: Join = {
      rank: options.rank ?? null,
      size,
      machine: Deno.hostname(),
      hostname: anyInterface ? near : listener.hostname,
      port: listener.port,
      description,
    };
    await sendMessage(host, own);
    const hear = async () => {
      const told = await receiveMessage(host, invitationSchema);
      if (told.refusal) throw refusalError(told.refusal);
      return told;
    };
    const { rank, places } = await before(
      deadline,
      hear(),
      () => new MachineError(`The group was not complete at ${host.peer} within ${timeoutSeconds} s`),
    );
    if (places.length !== size || rank < 1 || rank >= size) {
      throw new MachineError(`${host.peer} made this node ${rank} of ${places.length}, not one of ${size}`);
    }
    host.peer = nodeName(0, places[0]);
    invited.resolve({ rank, places, refusal: null });
    opening = places.slice(1, rank).map(async (place, i) => {
      const to = i + 1;
      const { link } = await connect(`node ${to} on ${place.machine}`, place, { secret, group, tls, deadline, signal });
      closeOnFailure(link);
      try {
        await sendMessage(link, { from: rank, to });
        await before(
          deadline,
          receiveMessage(link, pairSchema),
          () => new MachineError(`${link.peer} does not answer`),
        );
        add(to, link, place);
      } catch (error) {
        link.close();
        throw error;
      }
    });
    if (links.size === size - 1) linked.resolve();
    const late = () => {
      const others = places.map((place, i) => ({ place, i })).filter(({ i }) => i !== rank && !links.has(i));
      const names = several(others.map(({ place, i }) => nodeName(i, place)));
      return new MachineError(`Waited ${timeoutSeconds} s for ${names || host.peer}`, { restartable: true });
    };
    const ready = Promise.all([...opening, linked.promise]).then(() => sendMessage(host, { refusal: null }));
    await before(deadline, Promise.all([ready, hear()]), late);
    return { rank, size, links: new Map([...links].sort(([a], [b]) => a - b)) };
  } catch (error) {
    invited.reject(error);
    failed.abort();
    const refusal = refusalOf(error);
    await before(inSeconds(1), sendMessage(host, { refusal }), () => new MachineError("unheard")).catch(() => {});
    for (const link of links.values()) link.close();
    await Promise.allSettled(opening);
    throw error;
  } finally {
    listener?.close();
  }
}
