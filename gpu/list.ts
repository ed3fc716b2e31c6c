/**
 * What GPUs this machine offers, as far as WebGPU tells.
 * @module
 */

import { adapterName, isSoftware } from "./open.ts";

/** An adapter with what it offers. */
export interface DeviceDescription {
  /** Number for `--devices`. */
  readonly index: number;
  /** The adapter's own name. */
  readonly name: string;
  /** Name or PCI number of the vendor, as the adapter reports it. */
  readonly vendor: string;
  /** `software` drivers compute on the CPU. */
  readonly type: "software" | "gpu";
  /** Features that the adapter lists or grants. */
  readonly features: readonly string[];
  /** Lanes of a subgroup, as stated; 0 if unknown. */
  readonly subgroupSizes: readonly [number, number];
  /** Limits that matter here, in WebGPU's names. */
  readonly limits: Readonly<Record<string, number>>;
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

/** The adapters. WebGPU offers one: the first that the driver's loader names. */
export async function listDevices(): Promise<DeviceDescription[]> {
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) return [];
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
  return [{
    index: 0,
    name: adapterName(info),
    vendor: info.vendor,
    type: isSoftware(info) ? "software" : "gpu",
    features: [...features].sort(),
    subgroupSizes: [info.subgroupMinSize ?? 0, info.subgroupMaxSize ?? 0],
    limits: Object.fromEntries(limits.map((name) => [name, adapter.limits[name]])),
  }];
}
