/**
 * What GPUs this machine offers: what the Vulkan loader lists, and what WebGPU grants on each.
 * @module
 */

import { adapterName, isSoftware, requestSelected } from "./open.ts";
import { listSelections, type Selection } from "./select.ts";

/** What an adapter offers. */
export interface AdapterFacts {
  /** The adapter's own name. */
  readonly name: string;
  /** Name or PCI number of the vendor, as the adapter reports it. */
  readonly vendor: string;
  /** True for drivers that compute on the CPU. */
  readonly software: boolean;
  /** Features that the adapter lists or grants. */
  readonly features: readonly string[];
  /** Lanes of a subgroup, as stated; 0 if unknown. */
  readonly subgroupSizes: readonly [number, number];
  /** Limits that matter here, in WebGPU's names. */
  readonly limits: Readonly<Record<string, number>>;
}

/** A GPU. */
export interface DeviceDescription {
  /** Number for `--devices`. */
  readonly index: number;
  /** As its driver tells it. */
  readonly name: string;
  /** Maker of the device, or of a software driver. */
  readonly vendor: string;
  /** `software` drivers compute on the CPU. */
  readonly type: "discrete" | "integrated" | "virtual" | "software" | "other";
  /** Driver and version; empty if unknown. */
  readonly driver: string;
  /** Bytes; undefined if unknown. */
  readonly memoryBytes: number | undefined;
  /** Bytes that this process may still take; undefined if unknown. */
  readonly freeBytes: number | undefined;
  /** `dddd:bb:dd.f`. */
  readonly pci: string | undefined;
  /** What it offers; undefined if this process cannot open it. */
  readonly facts: AdapterFacts | undefined;
  /** Why it cannot be opened, and the remedy. */
  readonly reason: string | undefined;
}

const limits = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupsPerDimension",
] as const;

/** Features that are granted without being listed. */
const hidden = ["subgroups"];

const vendors: Readonly<Record<number, string>> = {
  0x1002: "AMD",
  0x10de: "NVIDIA",
  0x8086: "Intel",
  0x106b: "Apple",
  0x13b5: "Arm",
  0x5143: "Qualcomm",
  0x1414: "Microsoft",
  0x1ae0: "Google",
  0x10005: "Mesa",
};

/** Opens a device and tells what it offers; once per thread. */
export async function adapterFacts(selection: Selection): Promise<AdapterFacts> {
  const adapter = await requestSelected(selection);
  const features = new Set<string>(adapter.features);
  for (const feature of hidden) {
    try {
      const device = await adapter.requestDevice({ requiredFeatures: [feature as GPUFeatureName] });
      features.add(feature);
      device.destroy();
    } catch {
      // Refused: it has not got it.
    }
  }
  const { info } = adapter;
  return {
    name: adapterName(info),
    vendor: info.vendor,
    software: isSoftware(info),
    features: [...features].sort(),
    subgroupSizes: [info.subgroupMinSize ?? 0, info.subgroupMaxSize ?? 0],
    limits: Object.fromEntries(limits.map((name) => [name, adapter.limits[name]])),
  };
}

/** Opens a selection in a Worker of its own. */
export type Opener = (selection: Selection) => Promise<AdapterFacts | { readonly reason: string }>;

/** All GPUs, each opened once, one after another. */
export async function describeDevices(open: Opener): Promise<DeviceDescription[]> {
  const found: DeviceDescription[] = [];
  for (const [index, selection] of listSelections().entries()) {
    const opened = await open(selection);
    const facts = "reason" in opened ? undefined : opened;
    const { device } = selection;
    // Without a loader there is one entry, whether or not there is an adapter.
    if (!device && !facts) continue;
    found.push({
      index,
      name: device?.name ?? facts!.name,
      vendor: device ? vendors[device.vendorId] ?? `0x${device.vendorId.toString(16)}` : facts!.vendor,
      type: device?.type ?? (facts!.software ? "software" : "other"),
      driver: device?.driver ?? "",
      memoryBytes: device?.memoryBytes || undefined,
      freeBytes: device?.freeBytes,
      pci: device?.pci?.replace(/^(\w+)_(\w+)_(\w+)_(\w+)$/, "$1:$2:$3.$4"),
      facts,
      reason: "reason" in opened ? opened.reason : undefined,
    });
  }
  return found;
}
