/**
 * Opening the GPU: the adapter, the features and limits that are really granted, and short probes of what it does.
 * @module
 */

import { MachineError } from "../errors.ts";
import type { Capabilities } from "./capabilities.ts";
import { Device } from "./device.ts";
import { prepareThreads } from "./driver_threads.ts";
import { measureFlops } from "./peak.ts";
import { applySelection, type Selection } from "./select.ts";
import { measureSubgroupSize } from "./probe.ts";
import { prepareVectorWidth } from "./vector_width.ts";
import type { VulkanDevice } from "./vulkan.ts";

/** How to open a device. */
export interface OpenOptions {
  /** Which of several; the first if left out. */
  readonly selection?: Selection;
  /** Ask for the `subgroups` feature (default true; `MUSTER_SUBGROUPS=off` turns it off for drivers that lie). */
  readonly subgroups?: boolean;
  /** Size of the largest buffer, in bytes (default 128 MiB: several drivers refuse or mishandle larger ones). */
  readonly chunkBytes?: number;
}

/** Limits that are raised to what the adapter has; all else stays at WebGPU's minimum. */
const raisedLimits = [
  "maxStorageBufferBindingSize",
  "maxBufferSize",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
] as const;

/** Asked for where the adapter lists them. */
const optionalFeatures = ["shader-f16", "timestamp-query"] as const;

/** Software drivers, by the names their adapters bear. */
const softwareNames = /llvmpipe|lavapipe|softpipe|swiftshader|basic render|warp/i;

/** The name by which an adapter is shown. */
export function adapterName(info: GPUAdapterInfo): string {
  return info.description || info.device || info.vendor || "unnamed adapter";
}

/** True for drivers that compute on the CPU. */
export function isSoftware(info: GPUAdapterInfo): boolean {
  return softwareNames.test(`${info.description} ${info.device} ${info.vendor}`);
}

/** That there is nothing to compute on, and how to get it. */
export function noDeviceError(): MachineError {
  const remedy = Deno.build.os === "linux"
    ? "install a Vulkan driver (Debian and Ubuntu: apt-get install mesa-vulkan-drivers libvulkan1; NVIDIA: its own driver), " +
      "then look at `muster devices`"
    : "update the graphics driver, then look at `muster devices`";
  return new MachineError(`No GPU or software Vulkan driver was found: ${remedy}`);
}

/** That a device is there, but not by a driver that WebGPU takes. */
function tooOldError({ index, name, driver }: VulkanDevice): MachineError {
  return new MachineError(
    `GPU ${index} (${name}${
      driver ? `, ${driver}` : ""
    }) is there, but its driver offers too little of Vulkan for WebGPU: ` +
      "it is too old; update it, or leave this GPU out with --devices",
  );
}

/** The first adapter, which is of `device` if one was selected, or a `MachineError` that says how to get one. */
async function requestAdapter(device: VulkanDevice | undefined): Promise<GPUAdapter> {
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) throw device ? tooOldError(device) : noDeviceError();
  return adapter;
}

/** The adapter of a selected device, which must be the one that it says it is. */
export async function requestSelected(selection: Selection | undefined): Promise<GPUAdapter> {
  prepareVectorWidth();
  prepareThreads();
  if (selection) applySelection(selection);
  const { device, ways } = selection ?? { device: undefined, ways: [] };
  const adapter = await requestAdapter(device);
  const name = adapterName(adapter.info);
  if (device && ways.length > 0 && name !== device.name) {
    throw new MachineError(`GPU ${device.index} is ${device.name}, but WebGPU opened ${name}: see \`muster devices\``);
  }
  return adapter;
}

/** Memory that may be used, as the driver tells. */
export function memoryOf(selection: Selection | undefined): number | undefined {
  const device = selection?.device;
  if (!device || device.memoryBytes === 0) return undefined;
  return device.freeBytes ?? device.memoryBytes;
}

/**
 * Opens a device with all of the features, or with as many as are granted together, earlier ones first: adapters grant some that
 * they do not list, and refuse some that they do.
 */
export async function requestDevice(adapter: GPUAdapter, wanted: readonly string[]): Promise<GPUDevice> {
  const requiredLimits: Record<string, number> = {};
  for (const name of raisedLimits) requiredLimits[name] = adapter.limits[name];
  const request = (features: readonly string[]) =>
    adapter.requestDevice({ requiredFeatures: features as GPUFeatureName[], requiredLimits });
  try {
    return await request(wanted);
  } catch {
    // Which of them is refused is not told.
  }
  let granted: readonly string[] = [];
  let device: GPUDevice | undefined;
  for (const name of wanted) {
    try {
      const next = await request([...granted, name]);
      device?.destroy();
      device = next;
      granted = [...granted, name];
    } catch {
      // This one.
    }
  }
  try {
    return device ?? await request([]);
  } catch (error) {
    throw new MachineError(
      `${adapterName(adapter.info)} cannot be opened: ${(error as Error).message}; an update of its driver may help`,
    );
  }
}

/** Opens the GPU of this thread. Ask once per Worker: a later request may be answered with another GPU. */
export async function openDevice(options: OpenOptions = {}): Promise<Device> {
  const { selection } = options;
  const adapter = await requestSelected(selection);
  const { info } = adapter;
  const subgroups = options.subgroups ?? Deno.env.get("MUSTER_SUBGROUPS") !== "off";
  const listed = optionalFeatures.filter((name) => adapter.features.has(name));
  const gpu = await requestDevice(adapter, [...(subgroups ? ["subgroups"] : []), ...listed]);
  const bindingLimit = gpu.limits.maxStorageBufferBindingSize;
  const capabilities: Capabilities = {
    name: adapterName(info),
    vendor: info.vendor,
    type: isSoftware(info) ? "cpu" : "gpu",
    subgroupSize: 0,
    shaderF16: gpu.features.has("shader-f16"),
    bindingLimit,
    chunkBytes: Math.min(options.chunkBytes ?? 128 * 2 ** 20, bindingLimit, gpu.limits.maxBufferSize),
    workgroupStorage: gpu.limits.maxComputeWorkgroupStorageSize,
    workgroupInvocations: gpu.limits.maxComputeInvocationsPerWorkgroup,
    storageBuffers: gpu.limits.maxStorageBuffersPerShaderStage,
    flopsPerSecond: 1e9,
    memoryBytes: undefined,
  };
  const device = new Device(gpu, capabilities);
  await device.prepareReadBack();
  device.capabilities = {
    ...capabilities,
    subgroupSize: gpu.features.has("subgroups" as GPUFeatureName) ? await measureSubgroupSize(device) : 0,
    flopsPerSecond: await measureFlops(device),
    ...(selection?.products ? { products: selection.products } : {}),
    memoryBytes: capabilities.type === "cpu" ? Deno.systemMemoryInfo().available : memoryOf(selection),
  };
  device.check();
  return device;
}
