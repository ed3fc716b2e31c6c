/** `muster comm-bench`. */

import { UserError } from "../errors.ts";
import { meet, type Meeting } from "../network/rendezvous.ts";
import { readSecret } from "../network/secret.ts";
import { allReduceAlgorithms, readAlgorithm } from "../parallel/algorithms.ts";
import { defaultSizes, type LinkMeasurements, measureLinks } from "../parallel/measure_links.ts";
import { slowLinks } from "../parallel/slow_links.ts";
import { ownCommand } from "../train/supervisor.ts";
import { version } from "../train/version.ts";
import { print, printError, printJson } from "./output.ts";
import { bytesOption, numberOption, optionalNumber, type Options } from "./values.ts";

/** Most bytes of an all-reduce. */
const bytesMost = 2 ** 30;

/** Least limit of waits, in seconds: the others wait while two measure a link, which takes a few seconds if it is slow. */
const leastSilence = 10;

/** Whom this process measures with. */
interface Place {
  readonly nodes: number;
  readonly rank: number | undefined;
  readonly rendezvous: string;
  /** Other processes that this one has started. */
  readonly children: readonly Deno.ChildProcess[];
}

/** The command. */
export async function commBenchCommand(options: Options): Promise<number> {
  const json = options.json === true;
  const sizes = readSizes(options);
  const timeoutSeconds = numberOption(options, "timeout", { least: 1, most: 1e6 });
  const secretFile = optionalText(options.secretFile);
  const secret = readSecret(secretFile);
  const tune = options.commTune === true;
  const algorithm = readAlgorithm(optionalText(options.algorithm) ?? "auto");
  if (tune && algorithm !== "auto") throw new UserError("--comm-tune chooses by size: leave it or --algorithm out");
  const { nodes, rank, rendezvous, children } = readPlace(options);
  try {
    const meeting = await meet({
      size: nodes,
      rank,
      rendezvous,
      listen: optionalText(options.listen),
      secret,
      group: "comm-bench",
      description: { version, sizes: sizes.map(formatSize).join(","), algorithm: tune ? "tuned" : algorithm },
      timeoutSeconds,
      report: (sentence) => printError(`${sentence}\n`),
    });
    const first = meeting.rank === 0;
    const progress = (what: string) => first && printError(`${what}\n`);
    const silence = Math.max(timeoutSeconds, leastSilence);
    const measured = await measureLinks({ ...meeting, timeoutSeconds: silence, sizes, algorithm, tune, progress });
    const names = namesOf(meeting, rendezvous);
    if (first) show(measured, names, json);
    else if (json) printJson({ rank: meeting.rank, nodes });
    else print(`node ${meeting.rank} of ${nodes} has measured; node 0 prints the tables\n`);
    return 0;
  } catch (error) {
    for (const child of children) end(child);
    throw error;
  } finally {
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

function optionalText(value: unknown): string | undefined {
  return value === undefined ? undefined : String(value);
}

/** Who takes part; without --nodes it starts the others. */
function readPlace(options: Options): Place {
  const nodes = optionalNumber(options, "nodes", { least: 1, whole: true }) ?? 1;
  const rank = optionalNumber(options, "nodeRank", { least: 0, whole: true });
  const rendezvous = optionalText(options.rendezvous);
  if (nodes > 1) {
    if (rendezvous === undefined) throw new UserError(`--nodes ${nodes} needs --rendezvous host:port, where they meet`);
    if (options.local !== undefined) throw new UserError("--local is for one machine: leave it or --nodes out");
    return { nodes, rank, rendezvous, children: [] };
  }
  for (const [name, flag] of [["rendezvous", "--rendezvous"], ["nodeRank", "--node-rank"], ["listen", "--listen"]]) {
    if (options[name] !== undefined) throw new UserError(`${flag} is for several machines: say how many with --nodes`);
  }
  const local = optionalNumber(options, "local", { least: 2, most: 64, whole: true }) ?? 2;
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  listener.close();
  const address = `127.0.0.1:${listener.addr.port}`;
  const passed = (["sizes", "timeout", "secretFile"] as const).flatMap((name) =>
    options[name] === undefined ? [] : [name === "secretFile" ? "--secret-file" : `--${name}`, String(options[name])]
  );
  if (options.algorithm !== undefined) passed.push("--algorithm", String(options.algorithm));
  if (options.commTune === true) passed.push("--comm-tune");
  const children = Array.from({ length: local - 1 }, (_, i) => {
    const place = ["--nodes", String(local), "--rendezvous", address, "--node-rank", String(i + 1)];
    return ownCommand(["comm-bench", ...place, ...passed], { stdout: "null" }).spawn();
  });
  return { nodes: local, rank: 0, rendezvous: address, children };
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

/** The nodes in words, by rank. */
function namesOf({ rank, size, links }: Meeting, rendezvous: string): string[] {
  const own = `node ${rank} (${Deno.hostname()}, ${rendezvous})`;
  return Array.from({ length: size }, (_, other) => links.get(other)?.peer ?? own);
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
