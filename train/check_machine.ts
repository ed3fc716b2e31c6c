/**
 * Looks at what a run needs of its machine besides GPUs: permissions, folders, memory, open files, clock, environment.
 * @module
 */

import { statfsSync } from "node:fs";
import { nearest } from "../data/nearest.ts";
import { messageOf } from "../errors.ts";
import { formatBytes } from "../graph/plan.ts";
import { failed, type Finding, fine, warning } from "./finding.ts";

/** What the program must be allowed to do, and for what. */
const permissions = {
  read: "data and checkpoints",
  write: "checkpoints and the cache",
  env: "MUSTER_* and the driver's settings",
  sys: "memory and the network's interfaces",
  net: "other machines, and fetching data",
  run: "watching the process that trains",
  ffi: "asking the Vulkan loader for all GPUs",
} as const;

type Permission = keyof typeof permissions;

/** Of facts about the system, those that are asked for. */
const facts = ["hostname", "networkInterfaces", "statfs", "systemMemoryInfo"] as const;

/** Whether Deno grants one, as far as it is needed: of programs only this one is started. */
function isGranted(name: Permission): boolean {
  const wanted: Deno.PermissionDescriptor[] = name === "run"
    ? [{ name, command: Deno.execPath() }]
    : name === "sys"
    ? facts.map((kind) => ({ name, kind }))
    : [{ name }];
  return wanted.every((permission) => Deno.permissions.querySync(permission).state === "granted");
}

/** Whether Deno allows what is needed; in an executable this was settled when it was built. */
export function checkPermissions(granted: (name: Permission) => boolean = isGranted): Finding {
  const names = Object.keys(permissions) as Permission[];
  const missing = names.filter((name) => !granted(name));
  if (missing.length === 0) return fine("permissions", names.join(", "));
  const found = missing.map((name) => `no --allow-${name} (${permissions[name]})`).join("; ");
  // Without FFI there is still the first GPU.
  return (missing.join() === "ffi" ? warning : failed)("permissions", found, "run it by `deno run -A`");
}

/** Less free disk than this is too little for a checkpoint of any size, or for most. */
const diskLeast = { failed: 64 * 2 ** 20, warning: 2 ** 30 };

/**
 * Whether a folder can be made and written, and how much is free there. What was not there before is gone afterwards.
 *
 * @param other what to do to use another folder
 */
export function checkFolder(name: string, path: string, other: string, least = diskLeast): Finding {
  let made: string | undefined;
  try {
    made = makeFolder(path);
    const probe = `${path}/.${crypto.randomUUID()}.tmp`;
    Deno.writeTextFileSync(probe, "muster");
    Deno.renameSync(probe, `${probe}.moved`);
    Deno.removeSync(`${probe}.moved`);
    const { bavail, bsize } = statfsSync(path);
    const free = bavail * bsize;
    const found = `${path}, ${formatBytes(free)} free`;
    const remedy = `make room, or ${other}`;
    if (free < least.failed) return failed(name, found, remedy);
    return free < least.warning ? warning(name, found, remedy) : fine(name, found);
  } catch (error) {
    return failed(name, `${path} cannot be written (${messageOf(error)})`, other);
  } finally {
    if (made !== undefined) Deno.removeSync(made, { recursive: true });
  }
}

/** Makes a folder and those above it; tells the topmost that was not there. */
function makeFolder(path: string): string | undefined {
  try {
    Deno.mkdirSync(path);
    return path;
  } catch (error) {
    if (error instanceof Deno.errors.AlreadyExists && Deno.statSync(path).isDirectory) return undefined;
    const above = path.replace(/\/*[^/\\]+[/\\]*$/, "");
    if (!(error instanceof Deno.errors.NotFound) || above === "" || above === path) throw error;
    const topmost = makeFolder(above);
    Deno.mkdirSync(path);
    return topmost ?? path;
  }
}

const memoryLeast = { failed: 256 * 2 ** 20, warning: 2 * 2 ** 30 };

/** How much memory is free, and how much of it this process's control group leaves. */
export function checkMemory(available = freeMemory(), least = memoryLeast): Finding {
  const found = `${formatBytes(available)} available`;
  const remedy = "end other programs, or raise the limit of the container or job (docker --memory, srun --mem)";
  if (available < least.failed) return failed("memory", found, remedy);
  return available < least.warning ? warning("memory", found, remedy) : fine("memory", found);
}

function freeMemory(): number {
  const read = (name: string) => {
    try {
      return Deno.readTextFileSync(`/sys/fs/cgroup/memory.${name}`);
    } catch {
      return ""; // Not Linux, or no such limit.
    }
  };
  const most = parseInt(read("max"));
  // Pages of files that were read long ago are given up when memory is needed.
  const idle = Number(/^inactive_file (\d+)/m.exec(read("stat"))?.[1] ?? 0);
  const left = most - parseInt(read("current")) + idle;
  const { available } = Deno.systemMemoryInfo();
  return left >= 0 ? Math.min(available, left) : available;
}

/** Files that a process has open anyway, and connections to each other machine: control, gradients, small sums. */
const handles = { own: 128, perMachine: 3 };

/** Whether as many files and connections may be open as `nodes` machines need. Only Linux tells. */
export function checkHandles(nodes: number | undefined, limits = readLimits()): Finding | undefined {
  const limit = /^Max open files\s+(\d+|unlimited)/m.exec(limits)?.[1];
  if (limit === undefined) return undefined;
  const most = limit === "unlimited" ? Infinity : Number(limit);
  const machines = 1 + Math.max(0, Math.floor((most - handles.own) / handles.perMachine));
  const found = `${limit}, enough for ${machines === Infinity ? "any number of" : machines} machines`;
  const remedy = "raise it by `ulimit -n 65536` (limits.conf, or LimitNOFILE of a systemd unit)";
  if (machines < (nodes ?? 2)) return (nodes === undefined ? warning : failed)("open files", found, remedy);
  return fine("open files", found);
}

function readLimits(): string {
  try {
    return Deno.readTextFileSync("/proc/self/limits");
  } catch {
    return "";
  }
}

/** No Muster is older. */
const firstDay = Date.UTC(2026, 0, 1);

/** Whether the clock can be right: certificates and names of files depend on it. */
export function checkClock(now = Date.now()): Finding {
  const found = new Date(now).toISOString();
  if (now >= firstDay) return fine("clock", found);
  return failed("clock", `${found}, which is in the past`, "set it (timedatectl set-ntp true): TLS goes by it");
}

/** Every variable of Muster's own, and a warning for those that are not for daily use. */
const variables: Readonly<Record<string, string | undefined>> = {
  MUSTER_CACHE: undefined,
  MUSTER_COMMAND: undefined,
  MUSTER_FAULT: "has a rank fail on purpose",
  MUSTER_NODES: undefined,
  MUSTER_NODE_RANK: undefined,
  MUSTER_RENDEZVOUS: undefined,
  MUSTER_SECRET: undefined,
  MUSTER_SOCKETS: undefined,
  MUSTER_SUBGROUPS: undefined,
  MUSTER_TUNE: undefined,
  MUSTER_SUPERVISED: "has a training that crashes go unreported",
};
/** Variables of others that decide which GPUs there are, and how a software driver computes. */
const others = [
  "VK_DRIVER_FILES",
  "VK_ICD_FILENAMES",
  "VK_ADD_DRIVER_FILES",
  "DENO_WEBGPU_BACKEND",
  "DRI_PRIME",
  "LP_NATIVE_VECTOR_WIDTH",
];

/** What the environment says to Muster; a secret's value is not shown. */
export function checkEnvironment(environment: Readonly<Record<string, string>>): Finding {
  const name = "environment";
  const set = Object.entries(environment).filter(([key]) => key.startsWith("MUSTER_") || others.includes(key)).sort();
  if (set.length === 0) return fine(name, "no MUSTER_* is set");
  const found = set.map(([key, value]) => `${key}=${key === "MUSTER_SECRET" ? "…" : value}`).join(", ");
  const unknown = set.find(([key]) => key.startsWith("MUSTER_") && !(key in variables));
  if (unknown) {
    const near = nearest(unknown[0], Object.keys(variables));
    return warning(name, found, `${unknown[0]} is unknown: ${near ? `did you mean ${near}?` : "unset it"}`);
  }
  const special = set.find(([key]) => variables[key] !== undefined);
  if (special) return warning(name, found, `${special[0]} ${variables[special[0]]}: unset it`);
  return fine(name, found);
}
