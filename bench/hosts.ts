/**
 * Pretended hosts for benches: network namespaces joined by a bridge, each with a line of so many bits a second (`tc tbf`).
 * For root on Linux, with iproute2. The bridge has a namespace of its own: the network of the machine is left alone.
 */

import { messageOf, UserError } from "../errors.ts";

/** Hosts that can be used until `close`. */
export interface Hosts {
  /** The address of host `i`, from 0. */
  address(i: number): string;
  /** A command to be run on host `i`. */
  command(i: number, command: string, options: Deno.CommandOptions): Deno.Command;
  /** Gives the lines of all hosts another rate, like `100mbit`; undefined: no limit. */
  shape(rate: string | undefined): Promise<void>;
  /** Removes them. */
  close(): Promise<void>;
}

/**
 * Bytes that a line may send at once after a pause. Little, since short all-reduces would go faster than the line; but a
 * packet as the kernel makes them, of 64 KiB, should not have to be taken apart.
 */
const burst = "70000";
/**
 * What Linux has by default. With BBR, which this may be set to, partners that take turns, as in recursive doubling, lose
 * 20 to 30% at 100 Mbit/s among 8 hosts; a ring loses nothing.
 */
const congestionControl = "cubic";

async function run(...command: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(command[0], { args: command.slice(1) }).output();
  if (!success) throw new Error(`${command.join(" ")}: ${new TextDecoder().decode(stderr).trim()}`);
}

/** Makes `count` hosts. */
export async function openHosts(count: number): Promise<Hosts> {
  if (Deno.build.os !== "linux" || Deno.uid() !== 0) {
    throw new UserError("Hosts in network namespaces need Linux and root");
  }
  const name = (i: number | "switch") => `muster-${Deno.pid}-${i}`;
  const all = Array.from({ length: count }, (_, i) => i);
  const address = (i: number) => `10.78.0.${i + 1}`;
  const made: string[] = [];
  const add = async (host: string) => {
    await run("ip", "netns", "add", host);
    made.push(host);
  };
  const close = async () => {
    for (const host of made.splice(0)) await run("ip", "netns", "del", host);
  };
  try {
    const bridge = name("switch");
    await add(bridge);
    await run("ip", "-n", bridge, "link", "add", "br0", "type", "bridge");
    await run("ip", "-n", bridge, "link", "set", "br0", "up");
    for (const i of all) {
      const host = name(i);
      await add(host);
      await run("ip", "-n", bridge, "link", "add", `p${i}`, "type", "veth", "peer", "name", "eth0", "netns", host);
      await run("ip", "-n", bridge, "link", "set", `p${i}`, "master", "br0", "up");
      await run("ip", "-n", host, "addr", "add", `${address(i)}/24`, "dev", "eth0");
      for (const device of ["eth0", "lo"]) await run("ip", "-n", host, "link", "set", device, "up");
      const route = ["10.78.0.0/24", "dev", "eth0", "src", address(i), "congctl", congestionControl];
      await run("ip", "-n", host, "route", "replace", ...route);
    }
  } catch (error) {
    await close();
    throw new UserError(`Hosts in network namespaces cannot be made here: ${messageOf(error)}`);
  }
  return {
    address,
    command: (i, command, { args = [], ...options }) =>
      new Deno.Command("ip", { args: ["netns", "exec", name(i), command, ...args], ...options }),
    async shape(rate) {
      for (const i of all) {
        const where = ["netns", "exec", name(i), "tc", "qdisc"];
        if (rate === undefined) await run("ip", ...where, "del", "dev", "eth0", "root").catch(() => {});
        else {
          const limits = ["rate", rate, "burst", burst, "latency", "50ms"];
          await run("ip", ...where, "replace", "dev", "eth0", "root", "tbf", ...limits);
        }
      }
    },
    close,
  };
}
