import assert from "node:assert/strict";
import type { Finding } from "../../train/finding.ts";
import { withFolder } from "../folder.ts";
import { denoArguments, runMuster, runProgram } from "./program.ts";

/** Names by state. */
function names(checks: readonly Finding[], wanted: Finding["state"]): string[] {
  return checks.filter(({ state }) => state === wanted).map(({ name }) => name);
}

Deno.test("doctor finds a machine fit that trains: code 0, a line for each check, the same as JSON", () =>
  withFolder({}, async (folder) => {
    const options = { cwd: folder, env: { MUSTER_CACHE: `${folder}/cache` } };
    const page = await runMuster(["doctor"], options);
    assert.equal(page.code, 0, page.stdout + page.stderr);
    assert.match(page.stdout, /^ok +muster +\d+\.\d+\.\d+/);
    assert.match(
      page.stdout,
      /^ok +GPU 0 trains +3 steps in a process of [\d.]+ s, losses as they must be: 5\.5516, 5\.0/m,
    );
    assert.match(page.stdout, /\n\d+ ok, \d+ warnings?, 0 failed\n$/);
    for (const line of page.stdout.split("\n")) assert.ok(line.length <= 120 || !line.includes(" ", 30), line);

    const told = await runMuster(["doctor", "--rendezvous", "127.0.0.1:29555", "--json"], options);
    assert.equal(told.code, 0, told.stderr);
    const { checks, ok, warnings, failed } = JSON.parse(told.stdout);
    assert.equal(checks.length, ok + warnings + failed);
    assert.deepEqual(names(checks, "failed"), []);
    const good = names(checks, "ok");
    for (const name of ["permissions", "cache", "runs", "loopback", "rendezvous", "GPU 0 offers", "GPU 0 trains"]) {
      assert.ok(good.includes(name), `${name}: ${told.stdout}`);
    }
    assert.deepEqual([...Deno.readDirSync(folder)], [], "nothing is left behind");
  }));

Deno.test("doctor names a device that is lost in training, and mistakes in what is asked", () =>
  withFolder({}, async (folder) => {
    const env = { MUSTER_CACHE: `${folder}/cache`, MUSTER_FAULT: "rank=0,step=2,kind=lose" };
    const { code, stdout } = await runMuster(["doctor", "--json"], { cwd: folder, env });
    assert.equal(code, 1);
    const { checks } = JSON.parse(stdout);
    assert.deepEqual(names(checks, "failed"), ["GPU 0 trains"]);
    assert.ok(names(checks, "warning").includes("environment"));
    assert.match(checks.at(-1).found, /the device was lost/);

    for (const args of [["--rendezvous", "here"], ["--nodes", "0"], ["extra"]]) {
      const { code, stdout, stderr } = await runMuster(["doctor", ...args], { cwd: folder });
      assert.deepEqual([code, stdout], [2, ""], args.join(" "));
      assert.match(stderr, /^muster: [^\n]+\n$/);
    }
  }));

Deno.test("doctor works with the permissions of an executable, warns without FFI, and fails without leave to start itself", () =>
  withFolder({}, async (folder) => {
    const look = async (...flags: string[]) => {
      const args = denoArguments(["doctor", "--json"]).flatMap((arg) => arg === "-A" ? flags : [arg]);
      const options = { cwd: folder, env: { MUSTER_CACHE: `${folder}/cache` } };
      const { code, stdout } = await runProgram(Deno.execPath(), args, options);
      return { code, checks: JSON.parse(stdout).checks as Finding[] };
    };
    const without = await look("-A", "--deny-ffi");
    assert.equal(without.code, 0);
    const warnings = names(without.checks, "warning");
    assert.ok(warnings.includes("permissions"), warnings.join());
    if (Deno.build.os === "linux") assert.ok(warnings.includes("Vulkan loader"));
    // An executable asks for no more than this.
    const granted = ["read", "write", "net", "env", "ffi", "run"].map((name) => `--allow-${name}`);
    const facts = "hostname,networkInterfaces,statfs,systemMemoryInfo";
    const least = await look(...granted, `--allow-sys=${facts}`, "--no-prompt");
    assert.deepEqual([least.code, names(least.checks, "failed")], [0, []]);
    const fewer = await look(...granted, "--allow-sys=hostname,networkInterfaces,systemMemoryInfo", "--no-prompt");
    assert.deepEqual(names(fewer.checks, "failed").slice(0, 2), ["permissions", "cache"]);
    const alone = await look("-A", "--deny-run");
    assert.equal(alone.code, 1);
    assert.deepEqual(names(alone.checks, "failed"), ["permissions", "GPUs"]);
  }));

/** Deno in namespaces of its own: no network but a loopback that is down, and `{folder}/full` and `{folder}/fixed` mounted. */
const isolated = [
  "-rmn",
  "sh",
  "-c",
  'mount -t tmpfs -o ro none fixed && mount -t tmpfs -o size=4k none full && exec "$@"',
  "sh",
];

async function whyNotIsolated(): Promise<string | undefined> {
  if (Deno.build.os !== "linux") return "namespaces are Linux's";
  try {
    const { code, stderr } = await runProgram("unshare", ["-rmn", "mount", "-t", "tmpfs", "none", "/mnt"]);
    return code === 0 ? undefined : stderr.trim();
  } catch {
    return "there is no unshare";
  }
}

const why = await whyNotIsolated();

Deno.test({
  name: "doctor tells a read-only cache, a full disk, no driver, no network: code 1, a remedy for each" +
    (why ? ` (skipped: ${why})` : ""),
  ignore: why !== undefined,
  fn: () =>
    withFolder({}, async (folder) => {
      for (const name of ["fixed", "full"]) Deno.mkdirSync(`${folder}/${name}`);
      // The folder of runs is on the full disk.
      Deno.symlinkSync("full", `${folder}/runs`);
      const env = { MUSTER_CACHE: `${folder}/fixed/cache`, VK_DRIVER_FILES: "/nonexistent" };
      const args = [...denoArguments(["doctor", "--json", "--rendezvous", "192.0.2.77:29500"])];
      const { code, stdout, stderr } = await runProgram("unshare", [...isolated, Deno.execPath(), ...args], {
        cwd: folder,
        env,
      });
      assert.equal(code, 1, stderr);
      const { checks } = JSON.parse(stdout) as { checks: Finding[] };
      assert.deepEqual(names(checks, "failed"), [
        "cache",
        "runs",
        "loopback",
        "rendezvous",
        "Vulkan drivers",
        "GPUs",
      ]);
      assert.ok(names(checks, "warning").includes("network"));
      const found = Object.fromEntries(checks.map(({ name, found }) => [name, found]));
      assert.match(found.cache, /fixed\/cache cannot be written \(Read-only file system/);
      assert.match(found["Vulkan drivers"], /^\/nonexistent: no such file/);
      for (const { state, remedy } of checks) assert.equal(remedy !== undefined, state !== "ok");
    }),
});
