/**
 * Real separate hosts on one machine, for tests: network namespaces joined by a bridge, each with an address and a machine
 * name of its own, and links that can be slowed down, made to lose frames, cut and restored. Needs root.
 */

import { type Running, startRunning } from "./running.ts";

/** What hosts are wanted. */
export interface HostsOptions {
  readonly count: number;
  /** What each host may send, as `tc` writes it: `1gbit` (default: no limit). */
  readonly rate?: string;
  /** One way between two hosts, in ms (default: none). Frames then pass through a process: up to some 100 Mbit/s. */
  readonly latency?: number;
  /** Part of the frames to each host that are lost (default: none). */
  readonly loss?: number;
  /** Bytes of a frame's payload (default: 1500). */
  readonly mtu?: number;
}

/** How a command runs on a host. */
export interface RunOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** Begins the name of every namespace; the process that made it comes next. */
const prefix = "muster-test";
/** Bytes that a shaped host may send at once after a silence. */
export const burstBytes = 70_000;
/**
 * What Linux has by default. With BBR, which a machine may be set to, partners that take turns, as in recursive doubling, lose
 * 20 to 30% at 100 Mbit/s among 8 hosts; a ring loses nothing.
 */
const congestionControl = "cubic";
const entry = new URL("../../cli.ts", import.meta.url).pathname;
let made = 0;

/** Runs a command to its end; throws what it says if it fails. */
function system(command: string, ...args: string[]): string {
  const { success, stdout, stderr } = new Deno.Command(command, { args, stdin: "null" }).outputSync();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  if (!success) throw new Error(`${command} ${args.join(" ")}: ${text(stderr).trim()}`);
  return text(stdout);
}

/** Why there can be no such hosts here, for the name of a test that is skipped; undefined if there can. */
export function whyNoHosts({ latency, loss }: Partial<HostsOptions> = {}): string | undefined {
  if (Deno.build.os !== "linux") return "needs Linux";
  if (Deno.uid() !== 0) return "needs root";
  const tools = [["ip", "-V"], ["tc", "-V"], ["unshare", "-V"], ...(loss ? [["iptables", "-V"]] : [])];
  for (const [tool, ...args] of tools) {
    try {
      system(tool, ...args);
    } catch {
      return `needs ${tool}`;
    }
  }
  if (latency) {
    try {
      Deno.openSync("/dev/net/tun", { read: true, write: true }).close();
    } catch {
      return "needs /dev/net/tun";
    }
  }
  const name = `${prefix}-${Deno.pid}-trial`;
  try {
    system("ip", "netns", "add", name);
    system("ip", "-n", name, "link", "add", "br0", "type", "bridge");
    system("ip", "-n", name, "link", "add", "end0", "type", "veth", "peer", "name", "end1");
  } catch {
    return "needs network namespaces, a bridge and veth";
  } finally {
    removeNamespace(name);
  }
}

/** A test on hosts of its own; skipped, and its name says why, where there can be none. */
export function testHosts(name: string, options: HostsOptions, body: (hosts: readonly Host[]) => Promise<void>): void {
  const why = whyNoHosts(options);
  Deno.test({
    name: why ? `${name} (skipped: ${why})` : name,
    ignore: why !== undefined,
    fn: () => withHosts(options, body),
  });
}

/** Calls `body` with new hosts, which are taken away afterwards with all that runs on them. */
export async function withHosts(
  options: HostsOptions,
  body: (hosts: readonly Host[]) => Promise<void>,
): Promise<void> {
  removeStale();
  const name = `${prefix}-${Deno.pid}-${made++}`;
  const hosts = Array.from({ length: options.count }, (_, i) => new Host(`${name}-${i}`, `${name}-switch`, i));
  let relay: Running | undefined;
  try {
    system("ip", "netns", "add", `${name}-switch`);
    system("ip", "-n", `${name}-switch`, "link", "add", "br0", "type", "bridge");
    system("ip", "-n", `${name}-switch`, "link", "set", "br0", "up");
    for (const host of hosts) system("ip", "netns", "add", host.namespace);
    if (options.latency) relay = await startRelay(`${name}-switch`, options.count, options.latency);
    for (const host of hosts) host.bringUp(options);
    await body(hosts);
  } finally {
    await Promise.all(hosts.map((host) => host.close()));
    relay?.signal("SIGKILL");
    await relay?.ended;
    removeNamespace(`${name}-switch`);
  }
}

/** A host. */
export class Host {
  /** What it calls itself. */
  readonly name: string;
  readonly address: string;
  readonly #port: string;
  readonly #running: Running[] = [];

  constructor(readonly namespace: string, readonly switchNamespace: string, index: number) {
    this.name = `host${index}`;
    this.address = `10.77.0.${index + 1}`;
    this.#port = `p${index}`;
  }

  /** Connects it to the switch. */
  bringUp({ rate, latency, loss, mtu = 1500 }: HostsOptions): void {
    const [at, port] = [this.switchNamespace, this.#port];
    if (latency) {
      // The relay has made both ends; its own keep what goes into the one here.
      system("ip", "-n", at, "link", "set", `t${port}`, "netns", this.namespace, "name", "eth0");
    } else {
      system("ip", "-n", at, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", this.namespace);
    }
    system("ip", "-n", at, "link", "set", port, "mtu", String(mtu), "master", "br0", "up");
    system("ip", "-n", this.namespace, "addr", "add", `${this.address}/24`, "dev", "eth0");
    system("ip", "-n", this.namespace, "link", "set", "eth0", "mtu", String(mtu), "up");
    system("ip", "-n", this.namespace, "link", "set", "lo", "up");
    const route = ["10.77.0.0/24", "dev", "eth0", "src", this.address, "congctl", congestionControl];
    system("ip", "-n", this.namespace, "route", "replace", ...route);
    if (rate) this.shape({ rate });
    if (loss) {
      // Else what the kernel keeps together, up to 64 KiB, is lost together.
      system("ip", "-n", this.namespace, "link", "set", "eth0", "gso_max_segs", "1");
      this.lose(loss);
    }
  }

  /** Starts a command on it. */
  run(args: readonly string[], { cwd, env = {} }: RunOptions = {}): Running {
    const { MUSTER_SECRET: _, ...inherited } = Deno.env.toObject();
    // One process all the way: each of these becomes the next.
    const named = ["unshare", "--uts", "sh", "-c", 'echo "$0" > /proc/sys/kernel/hostname && exec "$@"', this.name];
    const running = startRunning("ip", ["netns", "exec", this.namespace, ...named, ...args], {
      ...(cwd === undefined ? {} : { cwd }),
      env: { ...inherited, NO_COLOR: "1", ...env },
      clearEnv: true,
    });
    this.#running.push(running);
    return running;
  }

  /** Starts `muster` on it; `flags` are Deno's. */
  muster(args: readonly string[], options: RunOptions = {}, flags: readonly string[] = []): Running {
    return this.run([Deno.execPath(), "run", "-A", "--quiet", ...flags, entry, ...args], options);
  }

  /** Limits what it may send, as by a slow line; without a rate no longer. Frames are counted with their Ethernet header. */
  shape({ rate }: { readonly rate?: string | undefined }): void {
    if (rate === undefined) return void trySystem("tc", "-n", this.namespace, "qdisc", "del", "dev", "eth0", "root");
    const limits = ["rate", rate, "burst", String(burstBytes), "latency", "20ms"];
    system("tc", "-n", this.namespace, "qdisc", "replace", "dev", "eth0", "root", "tbf", ...limits);
  }

  /** Loses this part of the frames that come to it; 0: none. */
  lose(part: number): void {
    const tables = (...args: string[]) => system("ip", "netns", "exec", this.namespace, "iptables", "-w", ...args);
    tables("-F", "INPUT");
    if (part === 0) return;
    tables(
      "-A",
      "INPUT",
      "-i",
      "eth0",
      "-m",
      "statistic",
      "--mode",
      "random",
      "--probability",
      String(part),
      "-j",
      "DROP",
    );
  }

  /** Pulls its cable. */
  cut(): void {
    system("ip", "-n", this.switchNamespace, "link", "set", this.#port, "down");
  }

  /** Puts its cable back. */
  restore(): void {
    system("ip", "-n", this.switchNamespace, "link", "set", this.#port, "up");
  }

  /** All processes on it. */
  processes(): number[] {
    return system("ip", "netns", "pids", this.namespace).split("\n").filter(Boolean).map(Number);
  }

  /** Sends a signal to all processes on it. */
  signal(signal: Deno.Signal): void {
    // Those that were started just now may not be on it yet.
    for (const running of this.#running) running.signal(signal);
    signalAll(this.processes(), signal);
  }

  /** Where something listens for TCP on it: `address:port`. */
  listening(): string[] {
    const lines = system("ip", "netns", "exec", this.namespace, "ss", "-Hltn").split("\n").filter(Boolean);
    return lines.map((line) => line.trim().split(/\s+/)[3]);
  }

  /** Ends all that runs on it, and takes it away. */
  async close(): Promise<void> {
    for (const running of this.#running) running.signal("SIGKILL");
    await endAll(this.namespace);
    await Promise.all(this.#running.map(({ ended }) => ended));
    removeNamespace(this.namespace);
  }
}

function signalAll(processes: readonly number[], signal: Deno.Signal): void {
  for (const pid of processes) {
    try {
      Deno.kill(pid, signal);
    } catch {
      // It has ended meanwhile.
    }
  }
}

/** Kills what runs in a namespace, and what that has started meanwhile. */
async function endAll(namespace: string): Promise<void> {
  for (let tries = 0; tries < 100; tries++) {
    let processes: number[] = [];
    try {
      processes = system("ip", "netns", "pids", namespace).split("\n").filter(Boolean).map(Number);
    } catch {
      return; // There is no such namespace.
    }
    if (processes.length === 0) return;
    signalAll(processes, "SIGKILL");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`Processes in ${namespace} do not end`);
}

/** Undoes what may not have been done. */
function trySystem(command: string, ...args: string[]): void {
  try {
    system(command, ...args);
  } catch {
    // There was nothing to undo.
  }
}

const removeNamespace = (name: string) => trySystem("ip", "netns", "del", name);

/** Takes away what test processes have left behind that were killed. */
function removeStale(): void {
  for (const line of system("ip", "netns", "list").split("\n")) {
    const [name] = line.split(" ");
    const owner = new RegExp(`^${prefix}-(\\d+)-`).exec(name)?.[1];
    if (owner === undefined || runs(Number(owner))) continue;
    try {
      signalAll(system("ip", "netns", "pids", name).split("\n").filter(Boolean).map(Number), "SIGKILL");
    } catch {
      // Another suite was faster.
    }
    removeNamespace(name);
  }
}

function runs(pid: number): boolean {
  try {
    Deno.statSync(`/proc/${pid}`);
    return true;
  } catch {
    return false;
  }
}

/** Starts the process through which frames pass that take time on their way; resolves when its devices are there. */
async function startRelay(namespace: string, count: number, latency: number): Promise<Running> {
  const script = new URL("relay.ts", import.meta.url).pathname;
  // Frames pass two of its cables.
  const args = ["netns", "exec", namespace, Deno.execPath(), "run", "-A", "--quiet", script, String(count)];
  const relay = startRunning("ip", [...args, String(latency / 2)], { env: {} });
  await relay.until(/ready/, 20);
  return relay;
}
