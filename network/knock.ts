/**
 * How two who may both host the next meeting of a run find out: one knocks at the other's door, both say how far they
 * know the run to be, and whoever is behind goes to the other. So a host that comes back at the rendezvous is told where
 * the run goes on without it, and one that was only stopped does not begin a run of its own.
 * @module
 */

import { before, inSeconds } from "./deadline.ts";
import { type Hello, type Whereabouts, whereaboutsSchema } from "./gathering.ts";
import type { Credentials } from "./handshake.ts";
import { connect } from "./listener.ts";
import { receiveMessage, sendMessage } from "./messages.ts";

/** Time for an answer, in seconds. */
const knockSeconds = 2;

/** What the node behind a door says, "gone" if nothing listens there any more, "silent" if nobody answers. */
export async function knock(
  address: { readonly hostname: string; readonly port: number },
  where: Whereabouts,
  { secret, group, tls }: Credentials,
  signal: AbortSignal,
): Promise<Whereabouts | "gone" | "silent"> {
  if (await isGone(address, signal)) return "gone";
  const deadline = inSeconds(knockSeconds);
  try {
    const { link } = await connect("a door", address, { secret, group, tls, deadline, signal });
    try {
      const hello: Hello = { kind: "knock", where };
      const ask = sendMessage(link, hello).then(() => receiveMessage(link, whereaboutsSchema));
      return await before(deadline, ask, () => new Error("no answer"));
    } finally {
      link.close();
    }
  } catch {
    return "silent";
  }
}

/** True if the system behind an address says that nothing listens there. */
async function isGone(address: { readonly hostname: string; readonly port: number }, ended: AbortSignal) {
  const abort = new AbortController();
  const stop = () => abort.abort();
  ended.addEventListener("abort", stop, { once: true });
  const timer = setTimeout(stop, knockSeconds * 1000);
  try {
    const { hostname, port } = address;
    (await Deno.connect({ hostname, port, signal: abort.signal })).close();
    return false;
  } catch (error) {
    return error instanceof Deno.errors.ConnectionRefused;
  } finally {
    clearTimeout(timer);
    ended.removeEventListener("abort", stop);
  }
}
