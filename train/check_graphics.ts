/**
 * Looks at drivers and GPUs. Whatever opens a GPU does so in a process of its own, which a driver may take down.
 * @module
 */

import type { DeviceDescription } from "../gpu/list.ts";
import { noDeviceError } from "../gpu/open.ts";
import { driverManifests } from "../gpu/manifests.ts";
import { loaderVersion } from "../gpu/vulkan.ts";
import { formatBytes } from "../graph/plan.ts";
import { failed, type Finding, fine, warning } from "./finding.ts";
import { type OwnProcess, runOwn } from "./own_process.ts";

/** Time for opening all GPUs, in seconds; each alone has a minute. */
const openSeconds = 300;

/** What to install. */
const installDriver = noDeviceError().message.replace(/^[^:]*: /, "").replace(/, then look at .*$/, "");

const ffiAllowed = () => Deno.permissions.querySync({ name: "ffi" }).state === "granted";

/** The Vulkan loader and its drivers' manifests; other systems than Linux do without. */
export function checkDrivers(
  version: string | null = loaderVersion() ?? null,
  manifests = driverManifests(),
  mayAsk = ffiAllowed(),
): Finding[] {
  if (Deno.build.os !== "linux") return [];
  const missing = manifests.filter((path) => !isFile(path));
  const there = manifests.filter((path) => isFile(path));
  const findings = [
    version !== null
      ? fine("Vulkan loader", version)
      : mayAsk
      ? failed("Vulkan loader", "libvulkan.so.1 cannot be opened", installDriver)
      : warning(
        "Vulkan loader",
        "it cannot be asked without --allow-ffi",
        "allow it: else only the first GPU is found",
      ),
  ];
  const list = there.join(", ");
  if (missing.length > 0) {
    const found = `${missing.join(", ")}: no such file${list ? `; ${list}` : ""}`;
    const remedy = "unset or correct VK_DRIVER_FILES, VK_ICD_FILENAMES, VK_ADD_DRIVER_FILES";
    findings.push((list ? warning : failed)("Vulkan drivers", found, remedy));
  } else if (list) findings.push(fine("Vulkan drivers", list));
  else findings.push(failed("Vulkan drivers", "no driver is installed", installDriver));
  return findings;
}

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

/** All GPUs, as far as they can be listed, and whether each opens. */
export async function checkDevices(
  run: () => Promise<OwnProcess> = () => runOwn(["devices", "--json"], {}, openSeconds),
): Promise<{ findings: Finding[]; usable: DeviceDescription[] }> {
  const { told, fault } = await run();
  const devices = (Array.isArray(told[0]) ? told[0] : []) as DeviceDescription[];
  if (devices.length === 0) {
    const none = fault === undefined || fault.startsWith("No GPU");
    const finding = none
      ? failed("GPUs", "none was found", installDriver)
      : failed("GPUs", `they cannot be listed: ${fault}`, "update the graphics driver, or look at the system's log");
    return { findings: [finding], usable: [] };
  }
  const onlySoftware = devices.every(({ type }) => type === "software");
  const findings = devices.flatMap((device) => [describe(device, onlySoftware), ...offers(device)]);
  return { findings, usable: devices.filter(({ facts }) => facts !== undefined) };
}

function describe(device: DeviceDescription, onlySoftware: boolean): Finding {
  const { index, name, type, driver, memoryBytes, reason, facts } = device;
  const what = [name, type, driver, memoryBytes ? formatBytes(memoryBytes) : ""].filter(Boolean).join(", ");
  if (!facts) {
    return failed(`GPU ${index} opens`, `${what}: ${reason}`, "update its driver, or leave it out with --devices");
  }
  if (!onlySoftware) return fine(`GPU ${index} opens`, what);
  return warning(
    `GPU ${index} opens`,
    `${what}: it computes on the CPU`,
    "if there is a GPU, install its Vulkan driver",
  );
}

/** Least limits, as WebGPU promises them; drivers with less are not conformant. */
const leastLimits: Readonly<Record<string, number>> = {
  maxBufferSize: 256 * 2 ** 20,
  maxStorageBufferBindingSize: 128 * 2 ** 20,
  maxStorageBuffersPerShaderStage: 8,
  maxComputeWorkgroupStorageSize: 16384,
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupsPerDimension: 65535,
};

/** What it offers of what matters. */
function offers({ index, facts }: DeviceDescription): Finding[] {
  if (!facts) return [];
  const { features, limits, subgroupSizes: [least, most] } = facts;
  const name = `GPU ${index} offers`;
  const lanes = least ? ` of ${least === most ? least : `${least} to ${most}`}` : "";
  const found = [
    features.includes("subgroups") ? `subgroups${lanes}` : "no subgroups",
    features.includes("shader-f16") ? "f16" : "no f16 (--precision bf16 works)",
    `bindings of ${formatBytes(limits.maxStorageBufferBindingSize)}`,
    `buffers of ${formatBytes(limits.maxBufferSize)}`,
    `workgroups of ${limits.maxComputeInvocationsPerWorkgroup} with ${
      formatBytes(limits.maxComputeWorkgroupStorageSize)
    }`,
  ].join(", ");
  const short = Object.keys(leastLimits).filter((limit) => limits[limit] < leastLimits[limit]);
  if (short.length === 0) return [fine(name, found)];
  const lack = short.map((limit) => `${limit} is ${limits[limit]}, not ${leastLimits[limit]}`).join("; ");
  return [warning(name, `${found}; ${lack}`, "update its driver: WebGPU asks for more")];
}
