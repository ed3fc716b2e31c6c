/**
 * The physical devices that the Vulkan loader lists, asked through FFI: WebGPU itself shows one adapter only and tells
 * neither its address nor its memory. Offsets are those of 64-bit Vulkan 1.1 structures.
 * @module
 */

/** A physical device. */
export interface VulkanDevice {
  /** Place in the loader's list. */
  readonly index: number;
  readonly name: string;
  readonly vendorId: number;
  readonly deviceId: number;
  readonly type: "discrete" | "integrated" | "virtual" | "software" | "other";
  /** Name and version of the driver, as it tells them. */
  readonly driver: string;
  /** 32 hexadecimal digits each. */
  readonly uuid: string;
  readonly driverUuid: string;
  /** As a C int, which is how the loader's settings file takes it. */
  readonly driverVersion: number;
  /** `dddd_bb_dd_f`, where the driver tells it. */
  readonly pci: string | undefined;
  /** Bytes of the largest heap that is the device's own; free bytes where the driver tells them. */
  readonly memoryBytes: number;
  readonly freeBytes: number | undefined;
}

const symbols = {
  vkCreateInstance: { parameters: ["buffer", "pointer", "buffer"], result: "i32" },
  vkDestroyInstance: { parameters: ["pointer", "pointer"], result: "void" },
  vkEnumeratePhysicalDevices: { parameters: ["pointer", "buffer", "buffer"], result: "i32" },
  vkGetPhysicalDeviceProperties2: { parameters: ["pointer", "buffer"], result: "void" },
  vkGetPhysicalDeviceMemoryProperties2: { parameters: ["pointer", "buffer"], result: "void" },
  vkEnumerateDeviceExtensionProperties: { parameters: ["pointer", "pointer", "buffer", "buffer"], result: "i32" },
} as const;

type Bytes = Uint8Array<ArrayBuffer>;
type Loader = Deno.DynamicLibrary<typeof symbols>;

const decoder = new TextDecoder();
const viewOf = (bytes: Bytes) => new DataView(bytes.buffer);
const addressOf = (bytes: Bytes) => Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes));
const textOf = (bytes: Uint8Array) => decoder.decode(bytes.subarray(0, Math.max(0, bytes.indexOf(0))));

/** A Vulkan structure: its type, and the one chained to it. */
function structure(size: number, type: number, next?: Bytes): Bytes {
  const bytes = new Uint8Array(size);
  viewOf(bytes).setUint32(0, type, true);
  if (next) viewOf(bytes).setBigUint64(8, addressOf(next), true);
  return bytes;
}

/** Opens the loader with some of its functions. */
function openWith<S extends Deno.ForeignLibraryInterface>(wanted: S): Deno.DynamicLibrary<S> | undefined {
  const names = Deno.build.os === "windows"
    ? ["vulkan-1.dll"]
    : Deno.build.os === "darwin"
    ? ["libvulkan.1.dylib"]
    : ["libvulkan.so.1", "libvulkan.so"];
  for (const name of names) {
    try {
      return Deno.dlopen(name, wanted);
    } catch {
      // Not there, or FFI is not allowed.
    }
  }
  return undefined;
}

/** Version of the Vulkan loader, like `1.3.239`; undefined where there is none (or one of Vulkan 1.0), or no FFI. */
export function loaderVersion(): string | undefined {
  const loader = openWith({ vkEnumerateInstanceVersion: { parameters: ["buffer"], result: "i32" } });
  if (!loader) return undefined;
  const packed = new Uint32Array(1);
  loader.symbols.vkEnumerateInstanceVersion(packed);
  loader.close();
  return [packed[0] >>> 22 & 0x7f, packed[0] >>> 12 & 0x3ff, packed[0] & 0xfff].join(".");
}

const types = ["other", "integrated", "discrete", "virtual", "software"] as const;

function describe({ symbols: vulkan }: Loader, handle: bigint, index: number): VulkanDevice {
  const device = Deno.UnsafePointer.create(handle);
  const count = new Uint32Array(1);
  vulkan.vkEnumerateDeviceExtensionProperties(device, null, count, null);
  const raw = new Uint8Array(260 * count[0]);
  vulkan.vkEnumerateDeviceExtensionProperties(device, null, count, raw);
  const extensions = new Set(
    Array.from({ length: count[0] }, (_, i) => textOf(raw.subarray(i * 260, i * 260 + 256))),
  );
  const hasPci = extensions.has("VK_EXT_pci_bus_info");
  const hasBudget = extensions.has("VK_EXT_memory_budget");
  const hasDriver = extensions.has("VK_KHR_driver_properties");

  const pci = structure(32, 1000212000);
  const driver = structure(536, 1000196000, hasPci ? pci : undefined);
  const id = structure(72, 1000071004, hasDriver ? driver : hasPci ? pci : undefined);
  const properties = structure(840, 1000059001, id);
  vulkan.vkGetPhysicalDeviceProperties2(device, properties);
  const budget = structure(272, 1000237000);
  const memory = structure(536, 1000059006, hasBudget ? budget : undefined);
  vulkan.vkGetPhysicalDeviceMemoryProperties2(device, memory);

  const view = viewOf(properties);
  const heaps = Array.from({ length: viewOf(memory).getUint32(276, true) }, (_, i) => ({
    bytes: Number(viewOf(memory).getBigUint64(280 + i * 16, true)),
    own: (viewOf(memory).getUint32(288 + i * 16, true) & 1) === 1,
    free: hasBudget ? Number(viewOf(budget).getBigUint64(16 + i * 8, true)) : undefined,
  }));
  const heap = heaps.filter(({ own }) => own).sort((a, b) => b.bytes - a.bytes)[0];
  const part = (offset: number, width: number) => viewOf(pci).getUint32(offset, true).toString(16).padStart(width, "0");
  return {
    index,
    name: textOf(properties.subarray(36, 292)),
    vendorId: view.getUint32(24, true),
    deviceId: view.getUint32(28, true),
    type: types[view.getUint32(32, true)] ?? "other",
    driver: hasDriver ? `${textOf(driver.subarray(20, 276))} ${textOf(driver.subarray(276, 532))}`.trim() : "",
    uuid: id.subarray(16, 32).toHex(),
    driverUuid: id.subarray(32, 48).toHex(),
    driverVersion: view.getInt32(20, true),
    pci: hasPci ? `${part(16, 4)}_${part(20, 2)}_${part(24, 2)}_${part(28, 1)}` : undefined,
    memoryBytes: heap?.bytes ?? 0,
    freeBytes: heap?.free,
  };
}

/** The physical devices that the loader shows in the present environment; undefined where there is no loader or no FFI. */
export function listVulkanDevices(): VulkanDevice[] | undefined {
  const loader = openWith(symbols);
  if (!loader) return undefined;
  try {
    const { symbols: vulkan } = loader;
    const application = structure(48, 0);
    const info = structure(64, 1);
    // Version 1.1.
    viewOf(application).setUint32(44, (1 << 22) | (1 << 12), true);
    viewOf(info).setBigUint64(24, addressOf(application), true);
    const created = new BigUint64Array(1);
    // An error here means that there is no driver.
    if (vulkan.vkCreateInstance(info, null, created) !== 0) return [];
    const instance = Deno.UnsafePointer.create(created[0]);
    try {
      const count = new Uint32Array(1);
      vulkan.vkEnumeratePhysicalDevices(instance, count, null);
      const handles = new BigUint64Array(Math.max(1, count[0]));
      vulkan.vkEnumeratePhysicalDevices(instance, count, handles);
      return Array.from(handles.subarray(0, count[0]), (handle, index) => describe(loader, handle, index));
    } finally {
      vulkan.vkDestroyInstance(instance, null);
    }
  } finally {
    loader.close();
  }
}
