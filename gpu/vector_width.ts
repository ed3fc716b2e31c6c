/**
 * How wide Mesa's software driver (lavapipe) computes. It takes 256 bits even where the CPU has 512, which doubles the rate of
 * multiply-adds on some and makes subgroups of 16 lanes. It reads the width once, when it first lists its device: what can be
 * known of it before is what its manifest tells.
 * @module
 */

import { driverManifests } from "./manifests.ts";

/** Mesa's own variable; what the user has set stays. */
const variable = "LP_NATIVE_VECTOR_WIDTH";
/** Mesa's folder of compiled kernels. Its entries do not tell the width: code for another one would be run, at its speed. */
const folderVariable = "MESA_SHADER_CACHE_DIR";

/**
 * Mesa 22.3 by the third number of the version in its manifests, which is that of Vulkan's headers and grows with each Mesa. There
 * a training step takes 62 ms with 512 bits and 101 with 256. Mesa 25.0, for which it takes 283 and 98, shuffles 16 lanes in a
 * loop, as later ones will.
 */
const measuredHeader = 230;

/** True if these manifests of drivers tell of lavapipe, and of none for which 512 bits were not measured to be faster. */
export function lavapipeGains(manifests: readonly string[]): boolean {
  const headers = manifests.flatMap((text) =>
    /libvulkan_lvp/.test(text) ? [Number(/"api_version"\s*:\s*"\d+\.\d+\.(\d+)"/.exec(text)?.[1])] : []
  );
  return headers.length > 0 && headers.every((header) => header === measuredHeader);
}

/** The texts of the manifests that can be read; the loader leaves the others out too. */
function readManifests(): string[] {
  return driverManifests().flatMap((path) => {
    try {
      return [Deno.readTextFileSync(path)];
    } catch {
      return [];
    }
  });
}

/** Parts of AVX-512 that compilers use together. */
const needed = ["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"];

/**
 * True if 512 bits at a time are taken to be faster than 256 on the CPU that `/proc/cpuinfo` tells of: AMD from family 26 (Zen 5:
 * 155 and 270 GFLOP/s of multiply-adds measured, one CPU), Intel with half precision (from Sapphire Rapids: expected, none was
 * measured). Others stay as they are: older AMD is expected to take two turns for 512 bits, and one older Xeon gained nothing.
 */
export function wideVectorsPay(cpuinfo: string): boolean {
  const field = (name: string) => new RegExp(`^${name}\\s*:\\s*(.*)$`, "m").exec(cpuinfo)?.[1] ?? "";
  const flags = new Set(field("flags").split(" "));
  if (!needed.every((flag) => flags.has(flag))) return false;
  if (field("vendor_id") === "AuthenticAMD") return Number(field("cpu family")) >= 26;
  return field("vendor_id") === "GenuineIntel" && flags.has("avx512_fp16");
}

/** The file, by the C library: Deno lets only programs with all permissions read it. Empty if it cannot be had. */
function readCpuinfo(): string {
  if (Deno.build.os !== "linux" || Deno.build.arch !== "x86_64") return "";
  try {
    const library = Deno.dlopen("libc.so.6", {
      open: { parameters: ["buffer", "i32"], result: "i32" },
      read: { parameters: ["i32", "buffer", "usize"], result: "isize" },
      close: { parameters: ["i32"], result: "i32" },
    });
    const { open, read, close } = library.symbols;
    const file = open(new TextEncoder().encode("/proc/cpuinfo\0"), 0);
    // Cores are alike, and the first is told of in less.
    const bytes = new Uint8Array(8192);
    const count = file < 0 ? 0 : Number(read(file, bytes, BigInt(bytes.length)));
    close(file);
    library.close();
    return new TextDecoder().decode(bytes.subarray(0, Math.max(0, count)));
  } catch {
    return ""; // Another C library, or FFI is not allowed.
  }
}

/** The user's cache, where Mesa's own folder lies too; without a home, the folder that is gone with the session. */
function cacheFolder(get: (name: string) => string | undefined): string | undefined {
  const home = get("HOME");
  return get("XDG_CACHE_HOME") || (home ? `${home}/.cache` : get("XDG_RUNTIME_DIR"));
}

/** What to set in an environment for a width: the width, and a folder that only this width has. */
export function widthEnvironment(
  environment: { get(name: string): string | undefined },
  pays: () => boolean,
): Record<string, string> {
  const width = environment.get(variable) || (pays() ? "512" : "");
  if (!width) return {};
  const name = `muster-mesa-${width.replaceAll(/\W/g, "_")}-bit`;
  const given = environment.get(folderVariable) || cacheFolder((name) => environment.get(name));
  // Rather no cache than a common one.
  if (!given) return { [variable]: width, MESA_SHADER_CACHE_DISABLE: "true" };
  // A process that this one starts finds it done.
  const folder = given.endsWith(`/${name}`) ? given : `${given}/${name}`;
  return { [variable]: width, [folderVariable]: folder };
}

let prepared = false;

/**
 * Has lavapipe take the width that is fastest here; other drivers do not know the variable. Before anything lists or opens a
 * device, and before the first Worker: new names in the environment while other threads compute have crashed the C library.
 */
export function prepareVectorWidth(): void {
  if (prepared) return;
  prepared = true;
  const wanted = widthEnvironment(Deno.env, () => wideVectorsPay(readCpuinfo()) && lavapipeGains(readManifests()));
  try {
    // Mesa makes none but the last.
    if (wanted[folderVariable]) Deno.mkdirSync(wanted[folderVariable], { recursive: true });
  } catch {
    // It cannot be made: Mesa says so, and does without.
  }
  for (const [name, value] of Object.entries(wanted)) if (Deno.env.get(name) !== value) Deno.env.set(name, value);
}
