/**
 * Opening one GPU among several. WebGPU takes the first device that the Vulkan loader lists, so the environment is set such
 * that the loader lists only the wanted one: by its driver's manifest, by Mesa's device-select layer, or by the loader's
 * settings file, whichever works. What works is not believed but listed again: exactly the wanted device must be left.
 *
 * The environment belongs to the process: devices are listed once, then opened one after another. New names in it while
 * other threads compute have crashed the C library, so all names are set with that list, and later only changed.
 * @module
 */

import type { ProductVariants } from "./capabilities.ts";
import { MachineError } from "../errors.ts";
import { driverManifests, manifestNames, separator } from "./manifests.ts";
import { prepareVectorWidth } from "./vector_width.ts";
import { listVulkanDevices, type VulkanDevice } from "./vulkan.ts";

/** One way to have the loader list a device alone. */
export interface Way {
  readonly description: string;
  readonly environment: Readonly<Record<string, string>>;
}

/** A device to open. Plain data for a Worker. */
export interface Selection {
  /** Absent where no list could be had: then the only adapter is taken. */
  readonly device: VulkanDevice | undefined;
  /** To be tried in this order; none where the device is alone, or like another in everything that drivers tell. */
  readonly ways: readonly Way[];
  /** The environment in which ways are tried; each changes some of it. */
  readonly base?: Readonly<Record<string, string>>;
  /** What the tuner chose for it; the built-in choice if left out. */
  readonly products?: ProductVariants;
  /** True if the run opens no other: where no way works, a card of the same kind will do. */
  readonly sole?: boolean;
}

/** Selections of these indices, in their order: one for each rank. */
export function selectionsFor(indices: readonly number[], selections: readonly Selection[]): Selection[] {
  const sole = new Set(indices).size === 1;
  return indices.map((index) => ({ ...selections[index], sole }));
}

/** True if both are cards of one kind. */
function sameKind(a: VulkanDevice, b: VulkanDevice): boolean {
  return a.name === b.name && a.vendorId === b.vendorId && a.deviceId === b.deviceId;
}

/** True if both are the same device, as far as drivers tell. */
function sameDevice(a: VulkanDevice, b: VulkanDevice): boolean {
  return sameKind(a, b) && a.uuid === b.uuid && a.pci === b.pci;
}

/** Runs `body` with other values in the environment. */
function withEnvironment<T>(values: Readonly<Record<string, string>>, body: () => T): T {
  const before = Object.keys(values).map((name) => [name, Deno.env.get(name)] as const);
  for (const [name, value] of Object.entries(values)) Deno.env.set(name, value);
  try {
    return body();
  } finally {
    for (const [name, value] of before) {
      if (value === undefined) Deno.env.delete(name);
      else Deno.env.set(name, value);
    }
  }
}

const byManifest = (path: string) => Object.fromEntries(manifestNames.map((name) => [name, path]));

/** The ways to a device of a list; `manifest` is its driver's, if no other device has that. Pure. */
export function waysTo(device: VulkanDevice, all: readonly VulkanDevice[], manifest: string | undefined): Way[] {
  const ways: Way[] = [];
  const hex = (id: number) => id.toString(16).padStart(4, "0");
  const ids = `${hex(device.vendorId)}:${hex(device.deviceId)}`;
  if (manifest) ways.push({ description: `its driver alone (${manifest})`, environment: byManifest(manifest) });
  const alike = all.filter((other) => other.vendorId === device.vendorId && other.deviceId === device.deviceId);
  if (alike.length === 1) {
    ways.push({ description: `Mesa's device-select layer, by ${ids}`, environment: { DRI_PRIME: `${ids}!` } });
  }
  if (device.pci) {
    ways.push({
      description: `Mesa's device-select layer, by PCI address`,
      // Only 16 bits of the domain count.
      environment: { DRI_PRIME: `pci-${device.pci.slice(-12)}!` },
    });
  }
  if (all.filter(({ uuid }) => uuid === device.uuid).length === 1) {
    ways.push({
      description: "the loader's settings file, by UUID",
      environment: { XDG_CONFIG_HOME: settingsFolder(device) },
    });
  }
  return ways;
}

/** Folder for the loader's settings file of a device, inside the cache of this machine. */
function settingsFolder({ uuid }: VulkanDevice): string {
  const base = Deno.env.get("XDG_RUNTIME_DIR") ?? Deno.env.get("TMPDIR") ?? "/tmp";
  return `${base}/muster-vulkan-${uuid}`;
}

function writeSettings(device: VulkanDevice): void {
  const numbers = (hex: string) => [...Uint8Array.fromHex(hex)];
  const folder = `${settingsFolder(device)}/vulkan/loader_settings.d`;
  const settings = {
    file_format_version: "1.0.0",
    settings: {
      device_configurations: [{
        deviceUUID: numbers(device.uuid),
        driverUUID: numbers(device.driverUuid),
        driverVersion: device.driverVersion,
      }],
    },
  };
  try {
    Deno.mkdirSync(folder, { recursive: true });
    Deno.writeTextFileSync(`${folder}/vk_loader_settings.json`, JSON.stringify(settings));
  } catch {
    // Then this way does not work, and the list says so.
  }
}

/** Every physical device, each once: real cards that two drivers show are told by their UUID or address. */
export function distinctDevices(listed: readonly VulkanDevice[]): VulkanDevice[] {
  return listed.filter((device, i) =>
    device.type === "software" ||
    !listed.slice(0, i).some((other) =>
      other.type !== "software" && (device.pci ? other.pci === device.pci : other.uuid === device.uuid)
    )
  ).map((device, index) => ({ ...device, index }));
}

let known: readonly Selection[] | undefined;

/**
 * All GPUs with the ways to open each; one entry without a device where only WebGPU can tell. Listed once in a process: as
 * soon as one has been opened, the loader lists no other.
 */
export function listSelections(): readonly Selection[] {
  if (!known) {
    prepareVectorWidth();
    const found = findSelections();
    const base = prepareEnvironment(found);
    known = found.map((selection) => ({ ...selection, base }));
  }
  return known;
}

function findSelections(): Selection[] {
  const listed = listVulkanDevices();
  if (!listed) return [{ device: undefined, ways: [] }];
  const devices = distinctDevices(listed);
  if (listed.length <= 1) return devices.map((device) => ({ device, ways: [] }));
  // Which manifest shows which device.
  const shown = driverManifests().map((path) => ({
    path,
    devices: withEnvironment(byManifest(path), () => listVulkanDevices() ?? []),
  }));
  const taken = new Set<string>();
  return devices.map((device) => {
    const found = shown.find(({ path, devices }) =>
      !taken.has(path) && devices.length === 1 && sameDevice(devices[0], device)
    );
    if (found) taken.add(found.path);
    return { device, ways: waysTo(device, listed, found?.path) };
  });
}

/**
 * Sets every name that a selection may change, before the first Worker is started, and returns what it has set. The
 * drivers stay those that the loader found, wherever it looked for them.
 */
export function prepareEnvironment(selections: readonly Selection[]): Record<string, string> {
  if (selections.every(({ ways }) => ways.length === 0)) return {};
  const harmless: Record<string, string> = {
    ...Object.fromEntries(manifestNames.map((name) => [name, driverManifests().join(separator)])),
    DRI_PRIME: "0",
    XDG_CONFIG_HOME: `${Deno.env.get("HOME") ?? ""}/.config`,
  };
  for (const [name, value] of Object.entries(harmless)) {
    // An empty list of drivers would mean none.
    if (value || Deno.env.get(name)) Deno.env.set(name, Deno.env.get(name) || value);
    else delete harmless[name];
  }
  for (const name of ["NODEVICE_SELECT", "MESA_VK_DEVICE_SELECT"]) Deno.env.delete(name);
  return Object.fromEntries(Object.keys(harmless).map((name) => [name, Deno.env.get(name)!]));
}

/**
 * Sets the environment such that the loader lists the selected device alone, and proves it; for a Worker, just before its
 * one `requestAdapter`. `MachineError` if no way works: better none than one card that is taken for two.
 */
export function applySelection({ device, ways, base = {}, sole }: Selection): void {
  if (!device) return;
  const listWith = (environment: Readonly<Record<string, string>>) => {
    for (const [name, value] of Object.entries({ ...base, ...environment })) Deno.env.set(name, value);
    return listVulkanDevices() ?? [];
  };
  for (const { environment } of ways) {
    if (environment.XDG_CONFIG_HOME) writeSettings(device);
    const left = listWith(environment);
    if (left.length === 1 && sameDevice(left[0], device)) return;
  }
  const listed = listWith({});
  if (listed.length === 1 && sameDevice(listed[0], device)) return;
  if (sole && listed.length > 0 && listed.every((other) => sameKind(other, device))) return;
  const tried = ways.length > 0
    ? `tried ${ways.map(({ description }) => description).join("; ")}`
    : "another has the same UUID, and their driver tells no PCI address";
  throw new MachineError(
    `GPU ${device.index} (${device.name}) cannot be told from the others: ${tried}. Install Mesa's device-select ` +
      `layer 23.3 or newer (Debian and Ubuntu: mesa-vulkan-drivers, Arch: vulkan-mesa-device-select) or a Vulkan loader ` +
      `of 1.4.323 or newer; or use one GPU, --devices ${device.index}`,
  );
}
