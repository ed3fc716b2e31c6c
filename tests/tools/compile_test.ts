import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { bundle } from "../../tools/bundle.ts";
import { compile, CompileError, targets } from "../../tools/compile.ts";
import { denoVersion, pairedDeno } from "./denort.ts";

const found = await pairedDeno();
const reason = "reason" in found ? found.reason : undefined;
const { deno, denort } = "reason" in found ? { deno: "", denort: "" } : found;
const named = (text: string) => ({
  name: reason ? `${text} (skipped: ${reason})` : text,
  ignore: reason !== undefined,
});

async function withBundle(body: (folder: string, source: string) => Promise<void>): Promise<void> {
  const folder = Deno.makeTempDirSync();
  try {
    await bundle(`${folder}/muster.js`);
    await body(folder, `${folder}/muster.js`);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

Deno.test({
  ...named("compile() makes the same bytes twice, wherever it is, with exactly the permissions fixed"),
  fn: () =>
    withBundle(async (folder, source) => {
      const env = { DENORT_BIN: denort };
      await compile({ bundle: source, output: `${folder}/muster`, deno, env });
      Deno.mkdirSync(`${folder}/elsewhere`);
      await bundle(`${folder}/elsewhere/muster.js`);
      const output = `${folder}/elsewhere/other-name`;
      await compile({ bundle: `${folder}/elsewhere/muster.js`, output, deno, env });
      const [one, another] = [`${folder}/muster`, output].map((path) => Buffer.from(Deno.readFileSync(path).buffer));
      assert.ok(one.equals(another), "two executables of one commit differ");

      const at = one.lastIndexOf('"permissions":{');
      const metadata = one.subarray(at, one.indexOf("}", at) + 1).toString();
      const { permissions } = JSON.parse(`{${metadata}}`) as { permissions: Record<string, unknown> };
      const all: string[] = [];
      const { allow_import: _, ...rest } = permissions;
      const allowed = Object.fromEntries(Object.entries(rest).filter(([name]) => name.startsWith("allow_")));
      assert.deepEqual(allowed, {
        allow_read: all,
        allow_write: all,
        allow_net: all,
        allow_env: all,
        allow_sys: ["hostname", "networkInterfaces", "statfs", "systemMemoryInfo", "uid"],
        allow_ffi: all,
        allow_run: all,
      });
      // Deno always allows some hosts to be imported from; denying all of them is what counts.
      assert.deepEqual(permissions.deny_import, all);
      assert.equal(permissions.prompt, false);
    }),
});

Deno.test({
  ...named("compile() refuses a runtime of another version or kind, says what to do, and leaves nothing"),
  fn: () =>
    withBundle(async (folder, source) => {
      const older = Buffer.from(Deno.readFileSync(denort).buffer);
      const version = (await new Deno.Command(deno, { args: ["--version"] }).output()).stdout;
      const own = /^deno (\S+)/.exec(new TextDecoder().decode(version))![1];
      for (let at = older.indexOf(`Deno/${own}`); at >= 0; at = older.indexOf(`Deno/${own}`)) older.write("Deno/1", at);
      Deno.writeFileSync(`${folder}/older`, older, { mode: 0o755 });
      Deno.writeTextFileSync(`${folder}/text`, "no program");
      const cases: [string, RegExp][] = [
        [`${folder}/older`, /DENORT_BIN \(.*older\) is not the denort of Deno \S+ for /],
        [deno, /DENORT_BIN \(.*\) makes no program that runs here/],
        [`${folder}/text`, /DENORT_BIN \(.*text\) (cannot be used|is not the denort of Deno \S+ for )/],
        [`${folder}/none`, /DENORT_BIN \(.*none\) cannot be used\. /],
      ];
      for (const [runtime, expected] of cases) {
        const output = `${folder}/muster`;
        await assert.rejects(
          compile({ bundle: source, output, deno, env: { DENORT_BIN: runtime } }),
          (error) => {
            assert.ok(error instanceof CompileError);
            assert.match(error.message, expected);
            const zip = `release/v${own}/denort-${Deno.build.target}.zip`;
            assert.ok(error.message.includes(`put https://dl.deno.land/${zip} at `), error.message);
            assert.match(error.message, /set DENORT_BIN to .*`deno task bundle`/);
            return true;
          },
        );
        assert.ok(!exists(output));
      }
    }),
});

Deno.test("compile() builds for five targets, by names that tell them", () => {
  assert.deepEqual(Object.keys(targets), ["linux-x64", "linux-arm64", "macos-x64", "macos-arm64", "windows-x64"]);
  assert.equal(new Set(Object.values(targets)).size, 5);
  assert.match(denoVersion, /^\d+\.\d+\.\d+$/);
});
