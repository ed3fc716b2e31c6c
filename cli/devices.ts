/** `muster devices`. */

import { MachineError } from "../errors.ts";
import { listDevices } from "../gpu/list.ts";
import { formatBytes } from "../graph/plan.ts";
import { print, printJson } from "./output.ts";
import type { Options } from "./values.ts";

/** The command. */
export async function devicesCommand(options: Options): Promise<number> {
  const devices = await listDevices();
  if (options.json === true) printJson(devices);
  if (devices.length === 0) {
    throw new MachineError(
      "No GPU or software Vulkan driver was found: install one (Debian and Ubuntu: apt-get install mesa-vulkan-drivers " +
        "libvulkan1) and look again",
    );
  }
  if (options.json === true) return 0;
  for (const { index, name, type, vendor, features, subgroupSizes, limits } of devices) {
    const has = (feature: string) => features.includes(feature) ? "yes" : "no";
    const [least, most] = subgroupSizes;
    print(
      `${index}  ${name}\n` +
        `   type             ${type === "software" ? "software (computes on the CPU)" : "GPU"}, vendor ${vendor}\n` +
        `   subgroups        ${has("subgroups")}${
          least ? ` (${least === most ? least : `${least} to ${most}`} lanes)` : ""
        }\n` +
        `   f16              ${has("shader-f16")}\n` +
        `   timestamps       ${has("timestamp-query")}\n` +
        `   largest binding  ${formatBytes(limits.maxStorageBufferBindingSize)}\n` +
        `   largest buffer   ${formatBytes(limits.maxBufferSize)}\n` +
        `   workgroup        ${limits.maxComputeInvocationsPerWorkgroup} invocations, ${
          formatBytes(limits.maxComputeWorkgroupStorageSize)
        }\n`,
    );
  }
  return 0;
}
