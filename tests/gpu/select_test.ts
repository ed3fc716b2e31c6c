/** Several GPUs in one process: lists, ways to each, and that each rank really opens its own. */

import assert from "node:assert/strict";
import { distinctDevices, selectionsFor, waysTo } from "../../gpu/select.ts";
import { listVulkanDevices, type VulkanDevice } from "../../gpu/vulkan.ts";

const entry = new URL("../../cli.ts", import.meta.url).pathname;

const card = (index: number, more: Partial<VulkanDevice> = {}): VulkanDevice => ({
  index,
  name: "A card",
  vendorId: 0x10de,
  deviceId: 0x2684,
  type: "discrete",
  driver: "",
  uuid: `0${index}`.repeat(16),
  driverUuid: "00".repeat(16),
  driverVersion: -1,
  pci: `0000_${(0x41 + index).toString(16)}_00_0`,
  memoryBytes: 2 ** 34,
  freeBytes: 2 ** 33,
  ...more,
});

Deno.test("identical cards are told apart by PCI address, then by UUID; different ones by their ids", () => {
  const eight = Array.from({ length: 8 }, (_, i) => card(i));
  assert.deepEqual(waysTo(eight[3], eight, undefined).map(({ environment }) => Object.entries(environment)[0]), [
    ["DRI_PRIME", "pci-0000_44_00_0!"],
    ["XDG_CONFIG_HOME", waysTo(eight[3], eight, undefined)[1].environment.XDG_CONFIG_HOME],
  ]);
  const mixed = [card(0), card(1, { vendorId: 0x1002, deviceId: 0x744c, pci: "10000_03_00_0" })];
  const ways = waysTo(mixed[1], mixed, "/etc/amd.json").map(({ environment }) => Object.values(environment)[0]);
  assert.deepEqual(ways.slice(0, 3), ["/etc/amd.json", "1002:744c!", "pci-0000_03_00_0!"]);
});

Deno.test("cards that cannot be told apart have no way; a card that two drivers show is listed once", () => {
  const twins = [0, 1].map((i) => card(i, { uuid: "ab".repeat(16), pci: undefined }));
  assert.deepEqual(waysTo(twins[0], twins, undefined), []);
  const shown = [card(0), card(0, { name: "The same by another driver", index: 1 }), card(1, { index: 2 })];
  assert.deepEqual(distinctDevices(shown).map(({ index, pci }) => [index, pci]), [
    [0, "0000_41_00_0"],
    [1, "0000_42_00_0"],
  ]);
  const software = [0, 1].map((i) => card(i, { type: "software", uuid: "cd".repeat(16), pci: undefined }));
  assert.equal(distinctDevices(software).length, 2);
});

Deno.test("a run's only card may be any of its kind; of several each must be the very one", () => {
  const cards = [0, 1, 2].map((i) => ({
    device: card(i),
    ways: waysTo(card(i), [0, 1, 2].map((j) => card(j)), undefined),
  }));
  assert.deepEqual(selectionsFor([2, 2], cards).map(({ device, sole }) => [device?.index, sole]), [[2, true], [
    2,
    true,
  ]]);
  assert.deepEqual(selectionsFor([0, 2], cards).map(({ device, sole }) => [device?.index, sole]), [[0, false], [
    2,
    false,
  ]]);
});

/** Says in a test's name why it is skipped. */
const unless = (reason: string | false) => reason ? ` (skipped: ${reason})` : "";
const noLavapipe = findLavapipe() === undefined && "there is no lavapipe";
const noSwiftShader = findSwiftShader() === undefined && "there is no SwiftShader, which Debian's package chromium has";

/** The lavapipe library of this system; `LAVAPIPE_LIBRARY` names one elsewhere. */
function findLavapipe(): string | undefined {
  const given = Deno.env.get("LAVAPIPE_LIBRARY");
  if (given) return given;
  for (const folder of ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"]) {
    try {
      Deno.statSync(`${folder}/libvulkan_lvp.so`);
      return `${folder}/libvulkan_lvp.so`;
    } catch {
      // Not there.
    }
  }
  return undefined;
}

/** Chromium's software driver; `SWIFTSHADER_LIBRARY` names one elsewhere. */
function findSwiftShader(): string | undefined {
  for (
    const path of [
      Deno.env.get("SWIFTSHADER_LIBRARY") ?? "",
      "/usr/lib/chromium/libvk_swiftshader.so",
      "/usr/lib/chromium-browser/libvk_swiftshader.so",
    ]
  ) {
    try {
      Deno.statSync(path);
      return path;
    } catch {
      // Not there.
    }
  }
  return undefined;
}

function writeManifest(path: string, library: string): string {
  const manifest = { file_format_version: "1.0.0", ICD: { library_path: library, api_version: "1.1.0" } };
  Deno.writeTextFileSync(path, JSON.stringify(manifest));
  return path;
}

/** Where a text stands in a library. */
function placesOf(library: Uint8Array, text: string): number[] {
  const pattern = new TextEncoder().encode(text);
  const at: number[] = [];
  for (let i = library.indexOf(pattern[0]); i >= 0; i = library.indexOf(pattern[0], i + 1)) {
    if (pattern.every((byte, j) => library[i + j] === byte)) at.push(i);
  }
  return at;
}

/** Copies of lavapipe whose devices have names and UUIDs of their own, as so many drivers. */
function lavapipes(folder: string, count: number): string[] {
  const library = Deno.readFileSync(findLavapipe()!);
  const names = placesOf(library, "llvmpipe (LLVM").map((i) => i + 7);
  // The UUID begins with "mesa" and the version.
  const versions = [2, 3].flatMap((digit) => placesOf(library, `mesa${digit}`).map((i) => i + 3));
  return Array.from({ length: count }, (_, n) => {
    for (const i of [...names, ...versions]) library[i] = 0x30 + n;
    Deno.writeFileSync(`${folder}/liblavapipe${n}.so`, library);
    return writeManifest(`${folder}/lavapipe${n}.json`, `${folder}/liblavapipe${n}.so`);
  });
}

function muster(folder: string, manifests: string[], args: string[], env: Record<string, string> = {}) {
  return deno(folder, manifests, [entry, ...args], env);
}

const driverNames = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"];

async function deno(folder: string, manifests: string[], args: string[], env: Record<string, string>) {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", ...args],
    cwd: folder,
    env: {
      ...Object.fromEntries(Object.entries(Deno.env.toObject()).filter(([name]) => !driverNames.includes(name))),
      ...(manifests.length > 0 ? Object.fromEntries(driverNames.map((name) => [name, manifests.join(":")])) : {}),
      DENO_WEBGPU_BACKEND: "vulkan",
      MUSTER_CACHE: `${folder}/cache`,
      ...env,
    },
    clearEnv: true,
    stdin: "null",
  }).output();
  const text = new TextDecoder();
  return { code, stdout: text.decode(stdout), stderr: text.decode(stderr) };
}

async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = Deno.makeTempDirSync();
  const line = (i: number) => `${i}. the whale swam for ${i % 7} days\n`;
  Deno.writeTextFileSync(`${folder}/text.txt`, Array.from({ length: 300 }, (_, i) => line(i)).join(""));
  try {
    await body(folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

const small = ["--data", "text.txt", "--layers", "1", "--heads", "2", "--width", "32", "--sequence-length", "16"];
const run = [...small, "--batch-size", "6", "--steps", "3", "--eval-batches", "1", "--json"];

Deno.test({
  name: `several drivers are several GPUs, and each rank opens its own${unless(noLavapipe)}`,
  ignore: noLavapipe !== false,
  fn: () =>
    inFolder(async (folder) => {
      const manifests = lavapipes(folder, 3);
      const listed = await muster(folder, manifests, ["devices", "--json"]);
      assert.equal(listed.code, 0, listed.stderr);
      const devices = JSON.parse(listed.stdout);
      assert.equal(devices.length, 3);
      assert.equal(new Set(devices.map(({ name }: { name: string }) => name)).size, 3);
      for (const { name, facts, reason } of devices) assert.equal(facts?.name, name, reason);

      const trained = await muster(folder, manifests, ["train", ...run, "--devices", "0,1,2", "--out", "three"]);
      assert.equal(trained.code, 0, trained.stderr);
      const [start] = trained.stdout.split("\n").map((line) => JSON.parse(line || "{}"));
      for (const { name } of devices) assert.ok(start.device.includes(name), `${start.device} lacks ${name}`);
      // One training after another in a process, each on other GPUs.
      const layouts = ["--layouts", "dp 2, pp 2", "--devices", "1,0", "--steps", "1"];
      const verified = await muster(folder, manifests, ["verify", ...layouts, "--json"]);
      assert.equal(verified.code, 0, verified.stderr + verified.stdout);
      assert.equal(JSON.parse(verified.stdout).passed, 2);
      const wrong = await muster(folder, manifests, ["train", ...run, "--devices", "0,3", "--out", "none"]);
      assert.equal(wrong.code, 2);
      assert.match(wrong.stderr, /there is no GPU 3, only 0 to 2/);
    }),
});

Deno.test({
  name: `drivers of two makers train together${unless(noLavapipe || noSwiftShader)}`,
  ignore: (noLavapipe || noSwiftShader) !== false,
  fn: () =>
    inFolder(async (folder) => {
      const manifests = [writeManifest(`${folder}/swiftshader.json`, findSwiftShader()!), ...lavapipes(folder, 1)];
      const trained = await muster(folder, manifests, ["train", ...run, "--devices", "0,1", "--out", "two"]);
      assert.equal(trained.code, 0, trained.stderr);
      assert.match(trained.stdout, /SwiftShader/);
      assert.match(trained.stdout, /llvmpip/);
    }),
});

Deno.test({
  name: `the slower of unequal GPUs is given less of a batch, which changes no loss${unless(noLavapipe)}`,
  ignore: noLavapipe !== false,
  fn: () =>
    inFolder(async (folder) => {
      const manifests = lavapipes(folder, 2);
      const args = ["train", ...small, "--batch-size", "12", "--steps", "8", "--eval-batches", "1", "--json"];
      const losses = async (devices: string, out: string, env: Record<string, string> = {}) => {
        const { code, stdout, stderr } = await muster(
          folder,
          manifests,
          [...args, "--dp", String(devices.split(",").length), "--devices", devices, "--out", out],
          env,
        );
        assert.equal(code, 0, stderr);
        const events = stdout.split("\n").map((line) => JSON.parse(line || "{}"));
        const found = (name: string) => events.filter(({ event }) => event === name);
        return { balance: found("balance"), losses: found("step").map(({ loss }) => loss) };
      };
      const alone = await losses("0", "alone");
      // The first look at the speeds is behind the fourth step.
      const both = await losses("0,1", "both", { MUSTER_FAULT: "rank=1,step=4,kind=slow:8" });
      assert.deepEqual(both.balance, [{ event: "balance", step: 4, shares: [11, 1] }]);
      assert.equal(both.losses.length, 8);
      both.losses.forEach((loss, i) => assert.ok(Math.abs(loss / alone.losses[i] - 1) < 1e-4, `${i}: ${loss}`));
    }),
});

/** What the layer of fake addresses lacks to be built. */
function noFakeLayer(): string | false {
  if (noLavapipe) return noLavapipe;
  if (Deno.build.os !== "linux") return "it is for Linux";
  const has = (command: string) =>
    new Deno.Command("sh", { args: ["-c", command], stdout: "null" }).outputSync().success;
  if (!has("command -v gcc")) return "there is no gcc";
  return !has("test -e /usr/include/vulkan/vk_layer.h") && "there are no Vulkan headers (libvulkan-dev)";
}
const fakeLayer = noFakeLayer();

/** Mesa's device-select layer is right from 23.3 on; Debian 12's 22.3 picks the wrong card. */
function oldMesa(): string | false {
  const lavapipe = listVulkanDevices()?.find(({ driver }) => /Mesa \d/.test(driver));
  const [major, minor] = /Mesa (\d+)\.(\d+)/.exec(lavapipe?.driver ?? "")?.slice(1).map(Number) ?? [0, 0];
  return major * 100 + minor < 2303 && `Mesa ${major}.${minor}'s device-select layer is older than 23.3`;
}
const fakeCards = fakeLayer || oldMesa();

/** Builds the layer of fake addresses and returns the environment that turns it on. */
function buildFakeLayer(folder: string): Record<string, string> {
  const source = new URL("fake_pci_layer.c", import.meta.url).pathname;
  const library = `${folder}/libfake_pci.so`;
  const args = ["-std=gnu11", "-O1", "-fPIC", "-shared", "-pthread", "-fvisibility=hidden", "-o", library, source];
  assert.ok(new Deno.Command("gcc", { args }).outputSync().success);
  const layer = {
    name: "VK_LAYER_TEST_fake_pci",
    type: "GLOBAL",
    library_path: library,
    api_version: "1.3.239",
    implementation_version: "1",
    description: "fake PCI addresses",
  };
  Deno.writeTextFileSync(`${folder}/fake_pci.json`, JSON.stringify({ file_format_version: "1.2.0", layer }));
  return { VK_LAYER_PATH: folder, VK_INSTANCE_LAYERS: "VK_LAYER_TEST_fake_pci" };
}

async function opensEachByItself(folder: string, manifests: string[], env: Record<string, string>, count: number) {
  const byAddress = new URL("open_by_address.ts", import.meta.url).pathname;
  const opened = await deno(folder, manifests, [byAddress], env);
  assert.equal(opened.code, 0, opened.stderr);
  const pairs: [string, string][] = JSON.parse(opened.stdout);
  assert.equal(new Set(pairs.map(([wanted]) => wanted)).size, count);
  for (const [wanted, found] of pairs) assert.equal(found, wanted);
}

Deno.test({
  name: `identical cards are told apart by PCI address${unless(fakeCards)}`,
  ignore: fakeCards !== false,
  fn: () =>
    inFolder(async (folder) => {
      const env = { ...buildFakeLayer(folder), FAKE_PCI_RENAME: "1" };
      const manifests = lavapipes(folder, 4);
      const listed = await muster(folder, manifests, ["devices", "--json"], env);
      assert.equal(listed.code, 0, listed.stderr);
      const devices = JSON.parse(listed.stdout) as { pci: string }[];
      assert.deepEqual(devices.map(({ pci }) => pci), ["0000:00:00.0", "0000:01:00.0", "0000:02:00.0", "0000:03:00.0"]);
      await opensEachByItself(folder, manifests, env, 4);
    }),
});

Deno.test({
  name: `cards of one kind train together where they can be told apart, else that is said, and one alone trains${
    unless(fakeLayer)
  }`,
  ignore: fakeLayer !== false,
  fn: () =>
    inFolder(async (folder) => {
      // One driver alone shows the first card only, so there is no way by manifest to the second.
      const env = { ...buildFakeLayer(folder), FAKE_PCI_DISCRETE: "1" };
      const manifests = [0, 1].map((i) => writeManifest(`${folder}/driver${i}.json`, findLavapipe()!));
      const both = await muster(folder, manifests, ["train", ...run, "--devices", "all", "--out", "both"], env);
      const listed = JSON.parse((await muster(folder, manifests, ["devices", "--json"], env)).stdout);
      assert.deepEqual(listed.map(({ type }: { type: string }) => type), ["discrete", "discrete"]);
      if (oldMesa()) {
        assert.equal(both.code, 1, both.stderr);
        const refused =
          /GPU 1 \(.*\) cannot be told from the others: tried .*PCI address.*Install Mesa's .* or use one GPU, --devices 1/;
        assert.match(both.stderr, refused);
        assert.match(listed[1].reason, refused);
      } else {
        assert.equal(both.code, 0, both.stderr);
        for (const { facts, reason } of listed) assert.ok(facts, reason);
      }
      const alone = await muster(folder, manifests, ["train", ...run, "--devices", "1,1", "--out", "alone"], env);
      assert.equal(alone.code, 0, alone.stderr);
      const planned = await muster(folder, manifests, ["plan", "--devices", "1,1", "--layers", "2", "--json"], env);
      assert.equal(planned.code, 0, planned.stderr);
    }),
});

/** The loader honours settings files from 1.4.323 on. */
function oldLoader(): string | false {
  if (noLavapipe) return noLavapipe;
  if (Deno.build.os !== "linux") return "it is for Linux";
  const [packed] = loaderVersion();
  const [major, minor, patch] = [packed >> 22, (packed >> 12) & 0x3ff, packed & 0xfff];
  const old = major * 1e6 + minor * 1e3 + patch < 1_004_323;
  return old && `the Vulkan loader ${major}.${minor}.${patch} is older than 1.4.323`;
}

function loaderVersion(): Uint32Array {
  const packed = new Uint32Array(1);
  const symbols = { vkEnumerateInstanceVersion: { parameters: ["buffer"], result: "i32" } } as const;
  try {
    const loader = Deno.dlopen("libvulkan.so.1", symbols);
    loader.symbols.vkEnumerateInstanceVersion(packed);
    loader.close();
  } catch {
    // There is none.
  }
  return packed;
}
const settingsFiles = oldLoader();

Deno.test({
  name: `identical cards are told apart by the loader's settings file, without Mesa's layer${unless(settingsFiles)}`,
  ignore: settingsFiles !== false,
  fn: () =>
    inFolder(async (folder) => {
      // While a settings file is there the loader reads no VK_DRIVER_FILES: the drivers must lie where it looks.
      Deno.mkdirSync(`${folder}/data/vulkan/icd.d`, { recursive: true });
      for (const [i, manifest] of lavapipes(folder, 3).entries()) {
        Deno.copyFileSync(manifest, `${folder}/data/vulkan/icd.d/${i}.json`);
      }
      const env = { XDG_DATA_HOME: `${folder}/data`, XDG_DATA_DIRS: folder, XDG_RUNTIME_DIR: folder };
      await opensEachByItself(folder, [], env, 3);
    }),
});

Deno.test("listVulkanDevices() tells name, type and memory where there is a loader", () => {
  const devices = listVulkanDevices();
  if (!devices) return;
  for (const { name, type, memoryBytes, uuid } of devices) {
    assert.ok(name.length > 0);
    assert.ok(["discrete", "integrated", "virtual", "software", "other"].includes(type));
    assert.ok(memoryBytes > 2 ** 20);
    assert.match(uuid, /^[0-9a-f]{32}$/);
  }
});

Deno.test({
  name: `a driver that is too old, or offers less than WebGPU promises, is named with the remedy${unless(fakeLayer)}`,
  ignore: fakeLayer !== false,
  fn: () =>
    inFolder(async (folder) => {
      const manifests = [writeManifest(`${folder}/driver.json`, findLavapipe()!)];
      const layer = buildFakeLayer(folder);
      const cases: [string, RegExp][] = [
        ["FAKE_PCI_OLD", /GPU 0 \(llvmpipe[^:]*\) is there, but its driver offers too little of Vulkan.*update it/],
        ["FAKE_PCI_SMALL", /llvmpipe.* cannot be opened: Limit .* allowed 64; an update of its driver may help/],
      ];
      for (const [name, expected] of cases) {
        const env = { ...layer, [name]: "1" };
        const { code, stderr } = await muster(folder, manifests, ["train", ...run], env);
        assert.equal(code, 1, stderr);
        assert.match(stderr, expected);
        assert.doesNotMatch(stderr, /No GPU or software|fault of Muster/);
      }
      const listed = await muster(folder, manifests, ["devices", "--json"], { ...layer, FAKE_PCI_OLD: "1" });
      assert.match(JSON.parse(listed.stdout)[0].reason, cases[0][1]);
    }),
});
