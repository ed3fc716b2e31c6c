import assert from "node:assert/strict";
import { gunzipSync } from "node:zlib";
import { bundle } from "../../tools/bundle.ts";
import { permissionFlags, permissions } from "../../tools/permissions.ts";

const top = new URL("../..", import.meta.url).pathname;

async function withBundles(body: (text: string, other: string) => void): Promise<void> {
  const folder = Deno.makeTempDirSync();
  try {
    const made: string[] = [];
    for (const name of ["one", "another"]) {
      Deno.mkdirSync(`${folder}/${name}`);
      await bundle(`${folder}/${name}/muster.js`);
      made.push(Deno.readTextFileSync(`${folder}/${name}/muster.js`));
    }
    body(made[0], made[1]);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

Deno.test("bundle() holds all kernels, GPT-2's table and the default dataset, and is the same twice", () =>
  withBundles((text, other) => {
    assert.ok(text === other, "two bundles of one commit differ");
    // Texts are string literals: their line ends, and what is not ASCII, are written otherwise.
    const literal = text.replaceAll("\\n", "\n").replaceAll(
      /\\u([0-9A-F]{4})|\\x([0-9A-F]{2})/gi,
      (_, long, short) => String.fromCharCode(parseInt(long ?? short, 16)),
    );
    const kernels = [...Deno.readDirSync(`${top}/kernels`)].map(({ name }) => name).filter((name) =>
      name.endsWith(".wgsl")
    );
    assert.ok(kernels.length >= 30);
    const missing = kernels.filter((name) => !literal.includes(Deno.readTextFileSync(`${top}/kernels/${name}`)));
    // No model uses all of them, but `muster bench` measures each.
    assert.deepEqual(missing, []);
    // The first and the last of 50,256 tokens.
    for (const line of ["IQ== 0\n", "IGdhemVk 50255\n"]) assert.ok(literal.includes(line), line);
    const data = /"data\.txt": ?"([A-Za-z0-9+/=]+)"/.exec(text);
    const dataset = gunzipSync(Uint8Array.fromBase64(data![1]));
    assert.equal(dataset.length, 1_204_997);
    assert.match(dataset.toString(), /Call me Ishmael\./);
  }));

Deno.test("bundle() names no place of this machine and starts with its permissions", () =>
  withBundles((text) => {
    assert.equal(text.split("\n", 1)[0], `#!/usr/bin/env -S deno run ${permissionFlags.join(" ")}`);
    // Linux cuts longer first lines off.
    assert.ok(text.indexOf("\n") < 255);
    const home = Deno.env.get("HOME") ?? Deno.env.get("USERPROFILE")!;
    for (const place of [top, `${home.slice(1)}/`]) {
      const at = text.indexOf(place);
      assert.equal(at, -1, text.slice(Math.max(0, at - 80), at + 80));
    }
  }));

Deno.test("permissions state a reason each, and none of them is all or to import", () => {
  for (const { flag, reason } of permissions) {
    assert.match(flag, /^--allow-(read|write|net|env|sys=[\w,]+|ffi|run)$/);
    assert.ok(reason.length > 20, flag);
  }
  assert.equal(permissionFlags.at(-1), "--no-prompt");
});
