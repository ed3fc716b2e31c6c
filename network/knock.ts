/**
 * How two who may both host the next meeting of a run find out: one knocks at the other's door, both say how far they
 * know the run to be, and whoever is behind goes to the other. So a host that comes back at the rendezvous is told where
 * the run goes on without it, and one that was only stopped does not begin a run of its own.
 * @module
 */

import { hasCode, MachineError } from "../errors.ts";
import { before, inSeconds } from "./deadline.ts";
import { type Address, type Hello, type Whereabouts, whereaboutsSchema } from "./gathering.ts";
import type { Credentials } from "./handshake.ts";
import { connect } from "./listener.ts";
import { receiveMessage, sendMessage } from "./messages.ts";
import type { NamedLink } from "./plain_link.ts";

/** Time for an answer, in seconds. */
const knockSeconds = 2;

/** What the node behind a door says, "gone" if nothing listens there any more, "silent" if nobody answers. */
export async function knock(
  address: Address,
  where: Whereabouts,
  { secret, group, tls }: Credentials,
  signal: AbortSignal,
): Promise<Whereabouts | "gone" | "silent"> {
  const deadline = inSeconds(knockSeconds);
  let link: NamedLink | undefined;
  try {
    ({ link } = await connect("a door", address, { secret, group, tls, deadline, signal, once: true }));
    const hello: Hello = { kind: "knock", where };
    const answer = sendMessage(link, hello).then(() => receiveMessage(link!, whereaboutsSchema));
    return await before(deadline, answer, () => new MachineError("no answer"));
  } catch (error) {
    return error instanceof Deno.errors.ConnectionRefused || hasCode(error, "ECONNREFUSED") ? "gone" : "silent";
  } finally {
    link?.close();
  }
}
