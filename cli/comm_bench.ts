/** `muster comm-bench`. */

import { UserError } from "../errors.ts";
import { Node, type World } from "../network/node.ts";
import { readSecret } from "../network/secret.ts";
import { readTlsIdentity } from "../network/tls_identity.ts";
import { allReduceAlgorithms, readAlgorithm } from "../parallel/algorithms.ts";
import { defaultSizes, type LinkMeasurements, measureLinks } from "../parallel/measure_links.ts";
import { slowLinks } from "../parallel/slow_links.ts";
import { type NodeFlags, type NodePlace, readNodePlace } from "../train/node_place.ts";
import { flagName } from "../train/settings.ts";
import { ownCommand } from "../train/supervisor.ts";
import { version } from "../train/version.ts";
import { nodeFlags } from "./nodes.ts";
import { print, printError, printJson } from "./output.ts";
import { bytesOption, numberOption, optionalNumber, type Options } from "./values.ts";

/** Most bytes of an all-reduce. */
const bytesMost = 2 ** 30;

/** Least limit of waits, in seconds: the others wait while two measure a link, which takes a few seconds if it is slow. */
const leastSilence = 10;

/** How long a process may be silent, in seconds. */
const peerTimeoutSeconds = 15;

/** The command. */
export async function commBenchCommand(options: Options): Promise<number> {
  const json = options.json === true;
  const sizes = readSizes(options);
  const timeoutSeconds = numberOption(options, "timeout", { least: 1, most: 1e6 });
  const tune = options.commTune === true;
  const algorithm = readAlgorithm(options.algorithm === undefined ? "auto" : String(options.algorithm));
  if (tune && algorithm !== "auto") throw new UserError("--comm-tune chooses by size: leave it or --algorithm out");
  const flags = nodeFlags(options);
  const local = optionalNumber(options, "local", { least: 2, most: 64, whole: true });
  const { nodes, rendezvous, nodeRank, listen } = flags;
  if (local !== undefined && [nodes, rendezvous, nodeRank, listen].some((flag) => flag !== undefined)) {
    throw new UserError("--local is for one machine: leave it out, or --nodes and what goes with it");
  }
  // Who asks for --local wants it under a launcher too.
  const given = await readNodePlace(local === undefined ? flags : { ...flags, nodes: 1 });
  const children: Deno.ChildProcess[] = [];
  const place = given ?? startLocal(local ?? 2, flags, options, children);
  let node: Node | undefined;
  let world: World | undefined;
  try {
    node = await Node.open({
      size: place.nodes,
      rank: place.nodeRank,
      rendezvous: place.rendezvous,
      listen: place.listen,
      secret: place.secret,
      tls: place.tls,
      group: "comm-bench",
      timeoutSeconds,
      peerTimeoutSeconds,
      report: (sentence) => printError(`${sentence}\n`),
    });
    const description = { version, sizes: sizes.map(formatSize).join(","), algorithm: tune ? "tuned" : algorithm };
    world = await node.meet({ description, facts: {}, lanes: 1 });
    const { rank: own, machines, lanes: [links] } = world;
    const first = own === 0;
    const progress = (what: string) => first && printError(`${what}\n`);
    const silence = Math.max(timeoutSeconds, leastSilence);
    const size = place.nodes;
    const terms = { timeoutSeconds: silence, sizes, algorithm, tune, progress };
    const measured = await measureLinks({ rank: own, size, links, ...terms });
    if (first) show(measured, machines, json);
    else if (json) printJson({ rank: own, nodes: size });
    else print(`node ${own} of ${size} has measured; node 0 prints the tables\n`);
    return 0;
  } catch (error) {
    for (const child of children) end(child);
    throw await world?.cause(error) ?? error;
  } finally {
    await node?.close();
    await Promise.all(children.map((child) => child.status));
  }
}

function end(child: Deno.ChildProcess): void {
  try {
    child.kill();
  } catch {
    // It has ended already.
  }
}

/** Starts the other processes, for measurements on one machine; the place is this one's. */
function startLocal(
  nodes: number,
  flags: NodeFlags,
  options: Options,
  children: Deno.ChildProcess[],
): Pick<NodePlace, "nodes" | "nodeRank" | "rendezvous" | "listen" | "secret" | "tls"> {
  const secret = readSecret(flags.secretFile);
  const tls = readTlsIdentity(flags);
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  listener.close();
  const rendezvous = `127.0.0.1:${listener.addr.port}`;
  const passed = ["sizes", "timeout", "secretFile", "tlsCert", "tlsKey", "tlsCa", "algorithm"].flatMap((name) =>
    options[name] === undefined ? [] : [`--${flagName(name)}`, String(options[name])]
  );
  if (options.commTune === true) passed.push("--comm-tune");
  for (let rank = 1; rank < nodes; rank++) {
    const place = ["--nodes", String(nodes), "--rendezvous", rendezvous, "--node-rank", String(rank)];
    children.push(ownCommand(["comm-bench", ...place, ...passed], { stdout: "null" }).spawn());
  }
  return { nodes, nodeRank: 0, rendezvous, listen: undefined, secret, tls };
}

function readSizes(options: Options): readonly number[] {
  if (options.sizes === undefined) return defaultSizes;
  return String(options.sizes).split(",").map((size) => {
    const bytes = bytesOption({ sizes: size }, "sizes")!;
    if (bytes % 4 === 0 && bytes <= bytesMost) return bytes;
    throw new UserError(
      `--sizes has ${size.trim()}, but f32 are summed: each must be a multiple of 4 bytes, at most 1GiB`,
    );
  });
}

function formatSize(bytes: number): string {
  if (bytes % 2 ** 20 === 0) return `${bytes / 2 ** 20} MiB`;
  return bytes % 2 ** 10 === 0 ? `${bytes / 2 ** 10} KiB` : `${bytes} B`;
}

/** A number in ten columns, with as many decimals as make three digits. */
function figure(value: number): string {
  return value.toFixed(Math.max(0, Math.min(3, 2 - Math.floor(Math.log10(value))))).padStart(10);
}

function show({ links, allReduces, choice }: LinkMeasurements, nodes: readonly string[], json: boolean): void {
  const warnings = slowLinks(links, nodes);
  if (json) return printJson({ nodes, links, allReduces, choice, warnings });
  const columns = (...names: string[]) => names.map((name) => name.padStart(10)).join("");
  print(`${nodes.join("\n")}\n\n`);
  print(`${"link".padEnd(12)}${columns("latency µs", "GB/s ->", "GB/s <-", "Gbit/s ->", "Gbit/s <-")}\n`);
  for (const { between: [a, b], microseconds, gigabytesPerSecond: speeds } of links) {
    const figures = [microseconds, ...speeds, ...speeds.map((speed) => 8 * speed)];
    print(`${`${a} - ${b}`.padEnd(12)}${figures.map(figure).join("")}\n`);
  }
  if (choice) {
    print(`\n${"way, µs".padEnd(12)}${columns(...allReduceAlgorithms)}\n`);
    for (const { bytes, microseconds } of choice.times) {
      print(`${formatSize(bytes).padEnd(12)}${allReduceAlgorithms.map((way) => figure(microseconds[way])).join("")}\n`);
    }
    const { doublingBytes, halvingBytes } = choice.bounds;
    print(`doubling up to ${formatSize(doublingBytes)}, halving up to ${formatSize(halvingBytes)}, ring beyond\n`);
  }
  print(`\n${"all-reduce".padEnd(12)}${columns("time µs", "bus GB/s", "Gbit/s")}\n`);
  for (const { bytes, microseconds, gigabytesPerSecond } of allReduces) {
    const figures = [microseconds, gigabytesPerSecond, 8 * gigabytesPerSecond];
    print(`${formatSize(bytes).padEnd(12)}${figures.map(figure).join("")}\n`);
  }
  if (warnings.length > 0) print(`\n${warnings.map((warning) => `warning: ${warning}\n`).join("")}`);
}
