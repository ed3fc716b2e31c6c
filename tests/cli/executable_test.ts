/**
 * The executable itself: in an empty folder, with an empty environment and, as root on Linux, without a network. Where none
 * can be compiled, the one-file bundle is run in its place. `MUSTER_BINARY` names an executable to test instead.
 */

import assert from "node:assert/strict";
import { bundle } from "../../tools/bundle.ts";
import { compile } from "../../tools/compile.ts";
import { permissionFlags } from "../../tools/permissions.ts";
import { pairedDeno } from "../tools/denort.ts";

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

const built = Deno.makeTempDirSync();
globalThis.addEventListener("unload", () => Deno.removeSync(built, { recursive: true }));

/** The words that start the program, and what it is called in the tests' names. */
async function build(): Promise<{ words: readonly string[]; name: string }> {
  const given = Deno.env.get("MUSTER_BINARY");
  if (given) return { words: [Deno.realPathSync(given)], name: `${given}` };
  const source = `${built}/muster.js`;
  await bundle(source);
  const found = await pairedDeno();
  if ("reason" in found) {
    return {
      words: [Deno.execPath(), "run", "--quiet", "--no-config", "--no-npm", ...permissionFlags, source],
      name: `the bundle (not the executable: ${found.reason})`,
    };
  }
  await compile({ bundle: source, output: `${built}/muster`, deno: found.deno, env: { DENORT_BIN: found.denort } });
  return { words: [`${built}/muster`], name: "the executable" };
}

const { words, name } = await build();

const small = ["--layers", "1", "--heads", "2", "--width", "32", "--sequence-length", "16", "--batch-size", "4"];
const training = ["train", ...small, "--eval-batches", "2", "--json"];
const linux = Deno.build.os === "linux";
const ofRoot = linux && Deno.uid() === 0;
const rootOnly = (text: string) => ({
  name: `${text}${ofRoot ? "" : " (skipped: needs root on Linux)"}`,
  ignore: !ofRoot,
});

async function ended(command: Deno.Command): Promise<Ended> {
  const { code, stdout, stderr } = await command.output();
  const [output, errors] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  return { code, stdout: output, stderr: errors };
}

/** An empty folder to be in; the home is another one in it. */
async function inFolder(
  body: (
    run: (args: readonly string[], env?: Record<string, string>) => Promise<Ended>,
    folder: string,
  ) => Promise<void>,
): Promise<void> {
  const folder = Deno.makeTempDirSync();
  Deno.mkdirSync(`${folder}/empty`);
  const alone = ofRoot ? ["/usr/bin/unshare", "-n"] : [];
  try {
    await body((args, env) => ended(command(folder, [...alone, ...words, ...args], env)), folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

function command(
  folder: string,
  [program, ...args]: readonly string[],
  env: Record<string, string> = {},
): Deno.Command {
  // Drivers are found as this process finds them; nothing else is passed on.
  const drivers = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SystemRoot"];
  const inherited = drivers.flatMap((name) => Deno.env.has(name) ? [[name, Deno.env.get(name)!]] : []);
  // Where the bundle's Deno keeps what it compiled.
  const ofDeno = { DENO_DIR: `${folder}/deno` };
  return new Deno.Command(program, {
    args,
    cwd: `${folder}/empty`,
    clearEnv: true,
    env: {
      ...Object.fromEntries(inherited),
      HOME: `${folder}/home`,
      LOCALAPPDATA: `${folder}/home`,
      ...ofDeno,
      ...env,
    },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

const events = (stdout: string) => stdout.trim().split("\n").map((line) => JSON.parse(line));

/** The shortest time of `body` in several tries, in ms: what else the machine does only adds to it. */
async function shortest(tries: number, body: () => Promise<void>): Promise<number> {
  let best = Infinity;
  for (let i = 0; i < tries; i++) {
    const start = performance.now();
    await body();
    best = Math.min(best, performance.now() - start);
  }
  return best;
}

Deno.test(`${name} says its version within 300 ms and lists the devices within 1 s`, () =>
  inFolder(async (run) => {
    const version = await shortest(8, async () => {
      const { code, stdout, stderr } = await run(["--version"]);
      assert.equal(code, 0, stderr);
      assert.match(stdout, /\d+\.\d+\.\d+/);
    });
    assert.ok(version < 300, `--version took ${version.toFixed(0)} ms at best`);
    const devices = await shortest(4, async () => {
      const { code, stdout, stderr } = await run(["devices", "--json"]);
      assert.equal(code, 0, stderr);
      // The driver's name comes from the Vulkan loader, so it was asked and FFI is allowed.
      assert.match(JSON.parse(stdout)[0].driver, linux ? /\S/ : /^/);
      assert.equal(stderr, "");
    });
    assert.ok(devices < 1000, `devices took ${devices.toFixed(0)} ms at best`);
  }));

Deno.test(`${name} trains two ranks on the text inside it, writes, goes on and measures`, () =>
  inFolder(async (run, folder) => {
    const trained = await run([...training, "--devices", "0,0", "--steps", "3"]);
    assert.equal(trained.code, 0, trained.stderr);
    assert.doesNotMatch(trained.stderr, /fetching/);
    const told = events(trained.stdout);
    assert.equal(told[0].event, "start");
    assert.equal(told.at(-1).step, 3);
    if (linux) {
      const text = Deno.readFileSync(`${folder}/home/.cache/muster/datasets/moby-dick-0.2.3/data.txt`);
      assert.equal(text.length, 1_204_997);
    }

    const written = await run(["generate", "--checkpoint", "runs/1", "--tokens", "3", "--json"]);
    assert.equal(written.code, 0, written.stderr);
    assert.match(written.stdout, /"tokens":3/);

    const resumed = await run(["train", "--resume", "runs/1", "--steps", "5", "--json"]);
    assert.equal(resumed.code, 0, resumed.stderr);
    const steps = events(resumed.stdout).filter(({ event }) => event === "step").map(({ step }) => step);
    assert.deepEqual(steps, [4, 5]);

    const measured = await run(["eval", "--checkpoint", "runs/1", "--data", "moby-dick", "--sequences", "4", "--json"]);
    assert.equal(measured.code, 0, measured.stderr);
    // Five steps from 5.5 nats, which is chance.
    assert.ok(JSON.parse(measured.stdout).loss < 6);
  }));

Deno.test(`${name} has GPT-2's tokenizer in it`, () =>
  inFolder(async (run, folder) => {
    Deno.writeTextFileSync(`${folder}/empty/a.txt`, "Call me Ishmael. ".repeat(40));
    const { code, stdout, stderr } = await run(["prepare", "a.txt", "--out", "a", "--tokenizer", "gpt2", "--json"]);
    assert.equal(code, 0, stderr);
    const { train, validation, vocabularySize } = JSON.parse(stdout);
    // "Call", " me", " Ish", "ma", "el", "." and so on; the space at the end is one, and the document's end.
    assert.equal(train.tokens + validation.tokens, 40 * 6 + 2);
    assert.equal(vocabularySize, 50_257);
  }));

Deno.test(`${name} trains as two machines`, () =>
  inFolder(async (_, folder) => {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    listener.close();
    const at = ["--nodes", "2", "--rendezvous", `127.0.0.1:${listener.addr.port}`, "--rendezvous-timeout", "40"];
    const nodes = await Promise.all([0, 1].map((rank) => {
      const args = [
        ...training,
        ...at,
        "--node-rank",
        String(rank),
        "--devices",
        "0",
        "--steps",
        "3",
        "--out",
        `run${rank}`,
      ];
      return ended(command(folder, [...words, ...args], { MUSTER_CACHE: `${folder}/cache${rank}` }));
    }));
    for (const { code, stderr } of nodes) assert.equal(code, 0, stderr);
    const [first] = nodes.map(({ stdout }) => events(stdout));
    assert.equal(first.at(-1).step, 3);
    assert.ok(Deno.statSync(`${folder}/empty/run0/checkpoints/step-00000003/model.safetensors`).isFile);
  }));

Deno.test({
  name: `${name} without a driver, or with one that cannot be loaded, says how to get one, exit code 1`,
  ignore: !linux,
  fn: () =>
    inFolder(async (run, folder) => {
      const broken = { file_format_version: "1.0.0", ICD: { library_path: `${folder}/no.so`, api_version: "1.3.0" } };
      Deno.writeTextFileSync(`${folder}/broken.json`, JSON.stringify(broken));
      for (const file of ["none.json", "broken.json"]) {
        for (const args of [["devices"], [...training, "--steps", "1"]]) {
          const env = { VK_DRIVER_FILES: `${folder}/${file}`, VK_ICD_FILENAMES: `${folder}/${file}` };
          const { code, stderr } = await run(args, env);
          assert.equal(code, 1, stderr);
          assert.match(stderr, /muster: No GPU or software Vulkan driver was found: .*mesa-vulkan-drivers/);
        }
      }
    }),
});

/** Runs the program in a folder that a mount of these options covers, which is its home as well. */
async function onMount(folder: string, options: string, args: readonly string[], env: Record<string, string> = {}) {
  const script = 'mount -t tmpfs -o "$1" none "$2" && cd "$2" && shift 2 && exec "$@"';
  const shell = ["/usr/bin/unshare", "-m", "/bin/sh", "-c", script, "sh", options, `${folder}/empty`];
  const home = { PATH: "/usr/bin:/bin", HOME: `${folder}/empty`, ...env };
  return await ended(command(folder, [...shell, ...words, ...args], home));
}

Deno.test({
  ...rootOnly(`${name} on a read-only home names what cannot be written and what to set`),
  fn: () =>
    inFolder(async (_, folder) => {
      const train = [...training, "--steps", "1"];
      const cache = await onMount(folder, "ro", train);
      assert.equal(cache.code, 1);
      assert.match(cache.stderr, /muster: Cannot write the cache .*Read-only.*MUSTER_CACHE names another folder/);
      const run = await onMount(folder, "ro", train, { MUSTER_CACHE: `${folder}/cache` });
      assert.equal(run.code, 2);
      assert.match(run.stderr, /muster: Cannot write the output folder runs\/1 .*choose another with --out/);
      const elsewhere = ["--out", `${folder}/run`];
      const good = await onMount(folder, "ro", [...train, ...elsewhere], {
        MUSTER_CACHE: `${folder}/cache`,
        MUSTER_TUNE: "off",
      });
      assert.equal(good.code, 0, good.stderr);
    }),
});

Deno.test({
  ...rootOnly(`${name} on a full disk says what was not saved, exit code 1`),
  fn: () =>
    inFolder(async (_, folder) => {
      const train = [...training, "--steps", "1"];
      const cache = await onMount(folder, "size=200k", train);
      assert.equal(cache.code, 1);
      assert.match(cache.stderr, /muster: Cannot write the cache .*No space left.*MUSTER_CACHE names another folder/);
      // Mesa would write its own cache onto that disk, when it likes.
      const elsewhere = { MUSTER_CACHE: `${folder}/cache`, MUSTER_TUNE: "off", MESA_SHADER_CACHE_DISABLE: "true" };
      // A page holds the settings or the first events, but not both.
      const begun = await onMount(folder, "size=4k", train, elsewhere);
      assert.equal(begun.code, 1);
      assert.match(begun.stderr, /muster: Cannot write into the run's folder runs\/1: the disk is full/);
      assert.doesNotMatch(begun.stderr, /fault of Muster/);
      const saved = await onMount(folder, "size=100k", train, elsewhere);
      assert.equal(saved.code, 1, saved.stderr);
      assert.match(
        saved.stderr,
        /muster: Cannot save the checkpoint of step 1 in runs\/1\/checkpoints: the disk is full/,
      );
    }),
});
