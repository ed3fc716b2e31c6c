import assert from "node:assert/strict";
import {
  checkClock,
  checkEnvironment,
  checkFolder,
  checkHandles,
  checkMemory,
  checkPermissions,
} from "../../train/check_machine.ts";
import { withFolder } from "../folder.ts";

const mebibyte = 2 ** 20;
const limits = (soft: string) =>
  `Limit                     Soft Limit           Hard Limit           Units     
Max processes             95984                95984                processes 
Max open files            ${soft.padEnd(21)}20000                files     
`;

Deno.test("checkPermissions() asks for all and names what is missing", () => {
  assert.equal(checkPermissions().state, "ok");
  const without = checkPermissions((name) => name !== "ffi" && name !== "run");
  assert.equal(without.state, "failed");
  assert.match(without.found, /^no --allow-run \(.*\); no --allow-ffi \(.*\)$/);
  assert.equal(checkPermissions((name) => name !== "ffi").state, "warning");
});

Deno.test("checkFolder() writes, leaves nothing behind, and tells what cannot be written or is too full", () =>
  withFolder({ file: "text" }, (folder) => {
    const look = (path: string, least?: { failed: number; warning: number }) =>
      checkFolder("cache", path, "name another", least);
    const found = look(`${folder}/a/b/c`);
    assert.equal(found.state, "ok");
    assert.match(found.found, /\/a\/b\/c, .* free$/);
    Deno.mkdirSync(`${folder}/a/b`, { recursive: true });
    assert.equal(look(`${folder}/a/b`).state, "ok");
    assert.equal(look(`${folder}/a/b/c/`).state, "ok");
    assert.deepEqual([...Deno.readDirSync(`${folder}/a/b`)], []);

    for (const path of [`${folder}/file`, `${folder}/file/cache`]) {
      const { state, found, remedy } = look(path);
      assert.deepEqual([state, remedy], ["failed", "name another"]);
      assert.ok(found.startsWith(`${path} cannot be written (`), found);
    }
    assert.equal(look(folder, { failed: 0, warning: Infinity }).state, "warning");
    const full = look(folder, { failed: Infinity, warning: Infinity });
    assert.deepEqual([full.state, full.remedy], ["failed", "make room, or name another"]);
    return Promise.resolve();
  }));

Deno.test("checkMemory() knows this machine's, and tells little from too little", () => {
  assert.match(checkMemory().found, /^[\d.]+ [KMGT]iB available$/);
  assert.deepEqual([4096, 1024, 100].map((size) => checkMemory(size * mebibyte).state), ["ok", "warning", "failed"]);
});

Deno.test("checkHandles() counts how many machines the limit is enough for", () => {
  assert.match(checkHandles(2, limits("1024"))!.found, /^1024, enough for 299 machines$/);
  assert.equal(checkHandles(299, limits("1024"))!.state, "ok");
  assert.equal(checkHandles(300, limits("1024"))!.state, "failed");
  assert.equal(checkHandles(undefined, limits("64"))!.state, "warning");
  assert.match(checkHandles(10000, limits("unlimited"))!.found, /any number of machines/);
  assert.equal(checkHandles(2, ""), undefined);
  if (Deno.build.os === "linux") assert.equal(checkHandles(2)!.state, "ok");
});

Deno.test("checkClock() believes the present and no time before Muster was made", () => {
  assert.equal(checkClock().state, "ok");
  assert.equal(checkClock(0).state, "failed");
});

Deno.test("checkEnvironment() shows what is set but no secret, and doubts unknown names and faults on purpose", () => {
  assert.deepEqual(checkEnvironment({ HOME: "/root" }).found, "no MUSTER_* is set");
  const set = checkEnvironment({ MUSTER_SECRET: "0123456789abcdef", MUSTER_CACHE: "/cache", VK_DRIVER_FILES: "/icd" });
  assert.deepEqual([set.state, set.found], ["ok", "MUSTER_CACHE=/cache, MUSTER_SECRET=…, VK_DRIVER_FILES=/icd"]);
  assert.match(checkEnvironment({ MUSTER_CASHE: "x" }).remedy!, /MUSTER_CASHE is unknown: did you mean MUSTER_CACHE\?/);
  assert.equal(checkEnvironment({ MUSTER_FAULT: "rank=0" }).state, "warning");
});

Deno.test("every MUSTER_ variable that the program reads is known to checkEnvironment()", () => {
  const top = new URL("../..", import.meta.url).pathname;
  const read = (folder: string): string[] =>
    [...Deno.readDirSync(folder)].flatMap(({ name, isDirectory }) =>
      isDirectory ? read(`${folder}/${name}`) : name.endsWith(".ts") ? [Deno.readTextFileSync(`${folder}/${name}`)] : []
    );
  const names = new Set(
    ["cli", "train", "parallel", "network", "graph", "gpu", "data", "kernels", "model"]
      .flatMap((room) => read(`${top}${room}`)).flatMap((text) => text.match(/(?<=")MUSTER_[A-Z_]+(?=")/g) ?? []),
  );
  // The place of the commit is no variable.
  names.delete("MUSTER_COMMIT_OF_THIS_BUILD");
  assert.ok(names.size >= 8, [...names].join());
  for (const name of names) assert.doesNotMatch(checkEnvironment({ [name]: "x" }).remedy ?? "", /unknown/, name);
});
