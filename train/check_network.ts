/**
 * Looks at what several machines need: ports to listen on, the rendezvous, and what a launcher says.
 * @module
 */

import { lookup } from "node:dns/promises";
import { hasCode, messageOf, UserError } from "../errors.ts";
import type { Address } from "../network/gathering.ts";
import type { Environment } from "../network/launcher.ts";
import { parseAddress } from "../network/rendezvous.ts";
import { isLoopback, isUnknownName, resolve } from "../network/secret.ts";
import { failed, type Finding, fine, warning } from "./finding.ts";
import { type NodeFlags, readNodePlace } from "./node_place.ts";

/** Time for a connection, in ms. */
const connectMilliseconds = 5000;

/** Addresses of this machine that others may reach, IPv4 first. */
function ownAddresses(): string[] {
  return Deno.networkInterfaces()
    .filter(({ address }) => !isLoopback(address) && !address.toLowerCase().startsWith("fe80:"))
    .sort((a, b) => a.family.localeCompare(b.family)).map(({ address }) => address);
}

/** Connects, or throws; the address on this side is told. */
async function connect({ hostname, port }: Address, milliseconds: number): Promise<string> {
  const connection = await Deno.connect({ hostname, port, signal: AbortSignal.timeout(milliseconds) });
  const { localAddr } = connection;
  connection.close();
  return localAddr.hostname;
}

/** Listens on any port of an address and connects to it. */
async function listenOn(name: string, hostname: string): Promise<Finding> {
  let listener: Deno.TcpListener | undefined;
  try {
    listener = Deno.listen({ hostname, port: 0 });
    const { port } = listener.addr;
    await connect({ hostname, port }, connectMilliseconds);
    (await listener.accept()).close();
    return fine(name, `${hostname}: port ${port} was opened and reached`);
  } catch (error) {
    return failed(name, `${hostname}: ${messageOf(error)}`, "allow programs to listen: look at the firewall's rules");
  } finally {
    listener?.close();
  }
}

/** Whether this machine can listen, on loopback and where others may reach it. */
export async function checkListening(addresses = ownAddresses()): Promise<Finding[]> {
  const loopback = await listenOn("loopback", "127.0.0.1");
  const name = "network";
  if (addresses.length > 0) return [loopback, await listenOn(name, addresses[0])];
  const found = "there is no interface but loopback";
  return [loopback, warning(name, found, "for several machines, connect this one to their network")];
}

/** True for addresses of this machine. */
const isOwnAddress = (address: string) => isLoopback(address) || ownAddresses().includes(address);

/** Whether the place where the machines meet can be reached from here, or be hosted here. */
export async function checkRendezvous(
  rendezvous: string,
  milliseconds = connectMilliseconds,
  isOwn = isOwnAddress,
): Promise<Finding> {
  const name = "rendezvous";
  const { hostname, port } = parseAddress(rendezvous);
  const where = `${hostname}:${port}`;
  let address: string;
  try {
    ({ address } = await lookup(hostname));
  } catch (error) {
    return failed(
      name,
      `${hostname} is unknown (${messageOf(error)})`,
      "give an IP address, or add it to DNS or /etc/hosts",
    );
  }
  if (isOwn(address)) return hostRendezvous(where, { hostname: address, port });
  const started = performance.now();
  try {
    const own = await connect({ hostname: address, port }, milliseconds);
    return fine(name, `${where} answers in ${(performance.now() - started).toFixed(1)} ms, by the interface ${own}`);
  } catch (error) {
    if (error instanceof Deno.errors.ConnectionRefused || hasCode(error, "ECONNREFUSED")) {
      return warning(name, `${where} is reached, but nothing listens there`, "start node 0, which hosts the meeting");
    }
    const late = error instanceof DOMException;
    return failed(
      name,
      late ? `${where} does not answer` : `${where}: ${messageOf(error)}`,
      `look at the address, the route, and the firewalls of both machines`,
    );
  }
}

/** Whether this machine, whose address it is, can host the meeting. */
function hostRendezvous(where: string, { hostname, port }: Address): Finding {
  const name = "rendezvous";
  try {
    Deno.listen({ hostname, port }).close();
    return fine(name, `${where} is this machine, which can listen there`);
  } catch (error) {
    if (error instanceof Deno.errors.AddrInUse) {
      return warning(
        name,
        `${where} is this machine, where a program listens already`,
        "if it is no run, choose another port",
      );
    }
    return failed(name, `${where} is this machine: ${messageOf(error)}`, "choose a port from 1024 on");
  }
}

/**
 * What the flags, MUSTER_*, Slurm, MPI or Kubernetes say of this process among others, secret and certificates included;
 * and where they are to meet, if that is known.
 */
export async function checkPlace(
  flags: NodeFlags,
  environment: Environment,
): Promise<{ finding: Finding; rendezvous: string | undefined }> {
  const name = "several machines";
  let rendezvous: string | undefined;
  try {
    const place = await readNodePlace(flags, environment);
    if (!place) {
      const launched = environment.get("SLURM_JOB_ID") !== undefined;
      const why = launched ? "Slurm has started this process alone; srun starts several" : "this process is alone";
      return { finding: fine(name, `no: ${why}`), rendezvous };
    }
    const { hostname } = parseAddress(place.rendezvous);
    ({ rendezvous } = place);
    const { launcher = "flags and MUSTER_*", nodes, nodeRank, secret, tls } = place;
    await resolve(hostname, secret !== undefined || tls !== undefined);
    const which = nodeRank === undefined ? "a process" : `process ${nodeRank}`;
    const guards = [secret && "a secret", tls && "certificates"].filter(Boolean).join(" and ") || "no secret";
    return { finding: fine(name, `${launcher}: ${which} of ${nodes}, at ${rendezvous}, with ${guards}`), rendezvous };
  } catch (error) {
    // The rendezvous is looked at by itself.
    if (!(error instanceof UserError) && !isUnknownName(error)) throw error;
    const finding = failed(
      name,
      messageOf(error),
      "see `muster train --help` for --nodes, --rendezvous, --secret-file",
    );
    return { finding, rendezvous };
  }
}
