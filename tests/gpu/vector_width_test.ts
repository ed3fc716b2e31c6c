/** The width of lavapipe's vectors: on which CPUs it is raised, and that compiled kernels of widths are kept apart. */

import assert from "node:assert/strict";
import { driverManifests } from "../../gpu/manifests.ts";
import { lavapipeGains, wideVectorsPay, widthEnvironment } from "../../gpu/vector_width.ts";

const avx512 = "avx512f avx512dq avx512cd avx512bw avx512vl";
/** As Linux writes it, a second core behind the first. */
const cpuinfo = (vendor: string, family: number, flags: string) =>
  [0, 1].map((core) =>
    `processor\t: ${core}\nvendor_id\t: ${vendor}\ncpu family\t: ${family}\nmodel name\t: x\nflags\t\t: fpu ${flags} sse2\nbugs\t\t:\n`
  ).join("\n");

Deno.test("512 bits are taken on AMD from Zen 5 and on Intel with half precision, and nowhere else", () => {
  const cases: [string, boolean][] = [
    [cpuinfo("AuthenticAMD", 26, avx512), true],
    [cpuinfo("AuthenticAMD", 26, "avx2"), false],
    [cpuinfo("AuthenticAMD", 25, avx512), false],
    [cpuinfo("GenuineIntel", 6, `${avx512} avx512_fp16`), true],
    [cpuinfo("GenuineIntel", 6, avx512), false],
    [cpuinfo("GenuineIntel", 6, "avx512f avx512_fp16"), false],
    ["processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd sve\n", false],
    ["", false],
  ];
  assert.deepEqual(cases.map(([text]) => wideVectorsPay(text)), cases.map(([, pays]) => pays));
});

const manifest = (library: string, version?: string) =>
  JSON.stringify({ ICD: { library_path: library, api_version: version }, file_format_version: "1.0.0" }, null, 4);

Deno.test("512 bits are taken for lavapipe of Mesa 22.3, and where there is no other", () => {
  const [old, next, unknown] = ["1.1.230", "1.4.305", undefined].map((version) =>
    manifest("/usr/lib/libvulkan_lvp.so", version)
  );
  const radeon = manifest("libvulkan_radeon.so", "1.4.305");
  const cases: [string[], boolean][] = [
    [[old], true],
    [[radeon, old], true],
    [[next], false],
    [[old, next], false],
    [[unknown], false],
    [[radeon], false],
    [["", "{"], false],
    [[], false],
  ];
  assert.deepEqual(cases.map(([manifests]) => lavapipeGains(manifests)), cases.map(([, gains]) => gains));
});

Deno.test("a user's width stays, and each width has a folder of compiled kernels", () => {
  const at = (values: Record<string, string>, pays: boolean) =>
    widthEnvironment(new Map(Object.entries(values)), () => pays);
  assert.deepEqual(at({ MESA_SHADER_CACHE_DIR: "/own" }, false), {});
  const wide = at({ MESA_SHADER_CACHE_DIR: "/own" }, true);
  assert.deepEqual(wide, { LP_NATIVE_VECTOR_WIDTH: "512", MESA_SHADER_CACHE_DIR: "/own/muster-mesa-512-bit" });
  assert.deepEqual(at(wide, true), wide, "a process started by this one changes nothing");
  const narrow = { LP_NATIVE_VECTOR_WIDTH: "256", MESA_SHADER_CACHE_DIR: "/own" };
  assert.deepEqual(at(narrow, true), { ...narrow, MESA_SHADER_CACHE_DIR: "/own/muster-mesa-256-bit" });
  assert.equal(at({ HOME: "/home/a" }, true).MESA_SHADER_CACHE_DIR, "/home/a/.cache/muster-mesa-512-bit");
  assert.equal(at({}, true).MESA_SHADER_CACHE_DISABLE, "true");
});

/** Opens the device in a process of its own; tells its lanes and what was set. */
async function open(environment: Record<string, string>) {
  const module = new URL("../../gpu/open.ts", import.meta.url).href;
  const program = `const device = await (await import(${JSON.stringify(module)})).openDevice();
    const { name, subgroupSize } = device.capabilities;
    console.log(JSON.stringify({ name, subgroupSize, folder: Deno.env.get("MESA_SHADER_CACHE_DIR") }));
    await device.destroy();`;
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["eval", program],
    env: { LP_NATIVE_VECTOR_WIDTH: "", ...environment },
  }).output();
  assert.ok(stdout.length > 0, new TextDecoder().decode(stderr));
  return JSON.parse(new TextDecoder().decode(stdout)) as { name: string; subgroupSize: number; folder?: string };
}

Deno.test("lavapipe computes with the width that is asked for, from a folder of its own", async () => {
  const folder = Deno.makeTempDirSync();
  try {
    for (const width of [128, 256]) {
      const opened = await open({ LP_NATIVE_VECTOR_WIDTH: String(width), MESA_SHADER_CACHE_DIR: folder });
      assert.equal(opened.folder, `${folder}/muster-mesa-${width}-bit`);
      if (!opened.name.startsWith("llvmpipe")) continue;
      assert.match(opened.name, new RegExp(`${width} bits`));
      assert.equal(opened.subgroupSize, width / 32);
      assert.ok([...Deno.readDirSync(opened.folder!)].length > 0, "nothing was kept");
    }
    // By itself: as CPU and driver have it.
    const { name, folder: own } = await open({ MESA_SHADER_CACHE_DIR: folder });
    if (name.startsWith("llvmpipe")) assert.equal(/512 bits/.test(name), own === `${folder}/muster-mesa-512-bit`);
    // The same driver, if its manifest says that it is another; the loader takes a folder of manifests too.
    const lavapipe = driverManifests().find((path) => path.includes("lvp"));
    if (!lavapipe) {
      assert.doesNotMatch(name, /llvmpipe/);
      return;
    }
    const { ICD: { library_path: library } } = JSON.parse(Deno.readTextFileSync(lavapipe));
    Deno.mkdirSync(`${folder}/drivers`);
    Deno.writeTextFileSync(`${folder}/drivers/lvp.json`, manifest(library, "1.4.305"));
    const other = await open({ MESA_SHADER_CACHE_DIR: folder, VK_DRIVER_FILES: `${folder}/drivers` });
    assert.match(other.name, /llvmpipe.*(128|256) bits/);
    assert.equal(other.folder, folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});
