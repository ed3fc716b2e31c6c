/**
 * Where this process is among several machines: by its flags, else by MUSTER_* of its environment, else by its launcher.
 * @module
 */

import { lookup } from "node:dns/promises";
import { UserError } from "../errors.ts";
import { type Environment, launchedPlace } from "../network/launcher.ts";
import { parseAddress } from "../network/rendezvous.ts";
import { isLoopback, readSecret } from "../network/secret.ts";
import { readTlsIdentity, type TlsFiles, type TlsIdentity } from "../network/tls_identity.ts";

/** What the flags say; each may be left out. */
export interface NodeFlags extends TlsFiles {
  readonly nodes?: number | undefined;
  readonly rendezvous?: string | undefined;
  readonly nodeRank?: number | undefined;
  readonly listen?: string | undefined;
  readonly secretFile?: string | undefined;
}

/** The place of this process among several. */
export interface NodePlace {
  /** Who told: `"Slurm"`; undefined if flags and MUSTER_* did. */
  readonly launcher: string | undefined;
  /** Processes of the run, at least 2. */
  readonly nodes: number;
  /** This one's number; undefined if they are to agree. */
  readonly nodeRank: number | undefined;
  /** `host:port` where node 0 awaits the others. */
  readonly rendezvous: string;
  /** Address of the interface to listen on, if not the one that leads to the rendezvous. */
  readonly listen: string | undefined;
  /** Shared by all; undefined if there is none, which only loopback allows. */
  readonly secret: Uint8Array | undefined;
  /** This machine's certificate, where all have one. */
  readonly tls: TlsIdentity | undefined;
  /** This process among those that the launcher started on its machine, for `shareOfDevices`. */
  readonly localRank: number;
  readonly localSize: number;
}

/**
 * The place of this process; undefined if it is alone.
 *
 * A launcher's word counts only for as many processes as there shall be: `--nodes 1` under srun is one process by itself.
 *
 * @throws UserError if something is missing or contradicts the rest, or the secret cannot be read
 */
export async function readNodePlace(
  flags: NodeFlags,
  environment: Environment = Deno.env,
): Promise<NodePlace | undefined> {
  const launched = launchedPlace(environment);
  const own = variables(environment);
  const nodes = flags.nodes ?? own.nodes ?? launched?.nodes;
  if (nodes === undefined) {
    for (
      const [name, value] of [
        ["--rendezvous", flags.rendezvous],
        ["--node-rank", flags.nodeRank],
        ["--listen", flags.listen],
        ["MUSTER_RENDEZVOUS", own.rendezvous],
        ["MUSTER_NODE_RANK", own.nodeRank],
      ]
    ) {
      if (value === undefined) continue;
      const several = String(name).startsWith("--") ? "--nodes" : "--nodes or MUSTER_NODES";
      throw new UserError(`${name} is for several machines: say how many with ${several}`);
    }
    return undefined;
  }
  if (nodes === 1) return undefined;
  const started = launched?.nodes === nodes ? launched : undefined;
  const nodeRank = flags.nodeRank ?? own.nodeRank ?? started?.nodeRank;
  const rendezvous = flags.rendezvous ?? own.rendezvous ?? started?.rendezvous;
  if (rendezvous === undefined) {
    throw new UserError(
      started === undefined
        ? `--nodes ${nodes} needs --rendezvous host:port, where they meet`
        : `${started.launcher} does not tell where node 0 of ${nodes} is: give --rendezvous host:port ` +
          `(or MUSTER_RENDEZVOUS), an address of its machine`,
    );
  }
  const place = {
    launcher: started?.launcher,
    nodes,
    nodeRank,
    rendezvous,
    listen: flags.listen,
    secret: readSecret(flags.secretFile),
    tls: readTlsIdentity(flags),
    localRank: started?.localRank ?? 0,
    localSize: started?.localSize ?? 1,
  };
  await checkReachable(place);
  return place;
}

/** What MUSTER_* say. */
function variables(environment: Environment): NodeFlags {
  const whole = (name: string, least: number) => {
    const text = environment.get(name);
    if (text === undefined) return undefined;
    if (/^\d{1,9}$/.test(text) && Number(text) >= least) return Number(text);
    throw new UserError(`${name} is ${JSON.stringify(text)}, but must be a whole number, at least ${least}`);
  };
  return {
    nodes: whole("MUSTER_NODES", 1),
    nodeRank: whole("MUSTER_NODE_RANK", 0),
    rendezvous: environment.get("MUSTER_RENDEZVOUS"),
  };
}

/** Node 0 listens at its machine's name, which many systems take for a loopback address that no other machine reaches. */
async function checkReachable({ launcher, nodes, nodeRank, rendezvous, listen, localSize }: NodePlace): Promise<void> {
  if (launcher === undefined || nodeRank !== 0 || localSize === nodes || listen !== undefined) return;
  const { hostname } = parseAddress(rendezvous);
  const address = await lookup(hostname).then(({ address }) => address, () => undefined);
  if (address === undefined || address === hostname || !isLoopback(address)) return;
  throw new UserError(
    `${launcher} has ${nodes} processes meet at ${hostname}, which is ${address} on that machine itself (/etc/hosts?), where ` +
      `others cannot reach it: give --listen 0.0.0.0, or --rendezvous host:port with an address that all can reach`,
  );
}
