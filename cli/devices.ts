/** `muster devices`. */

import type { DeviceDescription } from "../gpu/list.ts";
import { noDeviceError } from "../gpu/open.ts";
import { formatBytes } from "../graph/plan.ts";
import { listDevices } from "../train/devices.ts";
import { print, printJson } from "./output.ts";
import type { Options } from "./values.ts";

/** The command. */
export async function devicesCommand(options: Options): Promise<number> {
  const devices = await listDevices();
  if (options.json === true) printJson(devices);
  else devices.forEach(show);
  if (devices.length === 0) throw noDeviceError();
  return 0;
}

function show(description: DeviceDescription): void {
  const { index, name, vendor, type, driver, memoryBytes, freeBytes, pci, facts, reason } = description;
  const rows: [string, string][] = [
    ["type", `${type === "software" ? "software (computes on the CPU)" : type}, ${vendor}`],
  ];
  if (driver) rows.push(["driver", driver]);
  if (memoryBytes) {
    rows.push([
      "memory",
      formatBytes(memoryBytes) + (freeBytes === undefined ? "" : `, ${formatBytes(freeBytes)} free`),
    ]);
  }
  if (pci) rows.push(["PCI address", pci]);
  if (facts) {
    const has = (feature: string) => facts.features.includes(feature) ? "yes" : "no";
    const [least, most] = facts.subgroupSizes;
    const lanes = least ? ` (${least === most ? least : `${least} to ${most}`} lanes)` : "";
    const { limits } = facts;
    rows.push(
      ["subgroups", has("subgroups") + lanes],
      ["f16", has("shader-f16")],
      ["timestamps", has("timestamp-query")],
      ["largest binding", formatBytes(limits.maxStorageBufferBindingSize)],
      ["largest buffer", formatBytes(limits.maxBufferSize)],
      [
        "workgroup",
        `${limits.maxComputeInvocationsPerWorkgroup} invocations, ${
          formatBytes(limits.maxComputeWorkgroupStorageSize)
        }`,
      ],
    );
  } else rows.push(["cannot be used", reason ?? "unknown"]);
  print(`${index}  ${name}\n${rows.map(([label, text]) => `   ${label.padEnd(16)} ${text}\n`).join("")}`);
}
