import assert from "node:assert/strict";
import type { NamedTensor } from "../../data/safetensors.ts";
import { byteTokenizer } from "../../data/tokenizer.ts";
import { MachineError, UserError } from "../../errors.ts";
import { modelConfiguration } from "../../model/configuration.ts";
import {
  checkpointsFolder,
  latestCheckpoint,
  listCheckpoints,
  openCheckpoint,
  saveCheckpoint,
} from "../../train/checkpoint.ts";

const configuration = modelConfiguration({
  vocabularySize: 256,
  layers: 1,
  heads: 1,
  width: 8,
  maximumSequenceLength: 8,
});
const tensor = (name: string, size: number, value: number): NamedTensor => ({
  name,
  shape: [size],
  data: new Float32Array(size).fill(value),
});
const contents = (step: number, size = 1000) => ({
  step,
  configuration,
  tokenizerFiles: byteTokenizer().files(),
  weights: [tensor("a", size, step)],
  optimizer: [tensor("exp_avg.a", size, -step)],
  trainer: { seed: 1 },
});

async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = Deno.makeTempDirSync();
  try {
    await body(folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

Deno.test("saveCheckpoint() and openCheckpoint() are inverse, and `keep` holds", () =>
  inFolder(async (folder) => {
    for (const step of [1, 2, 3]) await saveCheckpoint(folder, contents(step), 2);
    assert.deepEqual(listCheckpoints(folder).map((path) => path.slice(-10)), ["p-00000002", "p-00000003"]);
    const checkpoint = await openCheckpoint(folder);
    assert.equal(checkpoint.trainer!.step, 3);
    assert.equal(checkpoint.configuration.width, 8);
    const values = new Float32Array(1000);
    checkpoint.optimizer!.readInto("exp_avg.a", values);
    assert.equal(values[999], -3);
    checkpoint.close();
    assert.deepEqual([...Deno.readDirSync(checkpoint.folder)].map(({ name }) => name).sort(), [
      "config.json",
      "model.safetensors",
      "optimizer.safetensors",
      "tokenizer.json",
      "tokenizer_config.json",
      "trainer.json",
    ]);
  }));

Deno.test("openCheckpoint() refuses a flipped byte, a missing file and a foreign folder, by name", () =>
  inFolder(async (folder) => {
    const path = await saveCheckpoint(folder, contents(1), 0);
    const bytes = Deno.readFileSync(`${path}/model.safetensors`);
    bytes[bytes.length - 7] ^= 1;
    Deno.writeFileSync(`${path}/model.safetensors`, bytes);
    await assert.rejects(openCheckpoint(folder), /model\.safetensors is damaged/);
    Deno.removeSync(`${path}/optimizer.safetensors`);
    bytes[bytes.length - 7] ^= 1;
    Deno.writeFileSync(`${path}/model.safetensors`, bytes);
    await assert.rejects(openCheckpoint(folder), /optimizer\.safetensors is missing/);
    await assert.rejects(openCheckpoint(`${folder}/nowhere`), UserError);
    Deno.writeTextFileSync(`${path}/config.json`, '{"model_type":"bert"}');
    await assert.rejects(openCheckpoint(path), /model_type is "bert"/);
  }));

Deno.test("a save killed at any moment leaves the newest whole checkpoint loadable", () =>
  inFolder(async (folder) => {
    const script = `${folder}/saver.ts`;
    const module = new URL("../../train/checkpoint.ts", import.meta.url).href;
    const models = new URL("../../model/configuration.ts", import.meta.url).href;
    Deno.writeTextFileSync(
      script,
      `import { saveCheckpoint } from "${module}";
import { modelConfiguration } from "${models}";
const configuration = modelConfiguration({ layers: 1, heads: 1, width: 8 });
const data = new Float32Array(200000);
for (let step = Number(Deno.args[1]);; step++) {
  data.fill(step);
  const weights = [{ name: "a", shape: [data.length], data }];
  await saveCheckpoint(Deno.args[0], { step, configuration, tokenizerFiles: {}, weights, optimizer: weights, trainer: {} }, 2);
  if (step % 3 === 0) console.log(step);
}`,
    );
    let newest = 0;
    const run = `${folder}/run`;
    for (let kill = 0; kill < 8; kill++) {
      const child = new Deno.Command(Deno.execPath(), {
        args: ["run", "-A", "--no-lock", script, run, String(newest + 1)],
        stdout: "piped",
        stderr: "null",
      }).spawn();
      const reader = child.stdout.getReader();
      await reader.read();
      await new Promise((resolve) => setTimeout(resolve, 5 + 37 * kill % 90));
      child.kill("SIGKILL");
      await child.status;
      await reader.cancel();
      const checkpoint = await openCheckpoint(run);
      const values = new Float32Array(200000);
      checkpoint.weights.readInto("a", values);
      checkpoint.close();
      const { step } = checkpoint.trainer!;
      assert.ok(step > newest, `${step} after ${newest}`);
      assert.ok(values.every((value) => value === step));
      newest = step;
    }
    await saveCheckpoint(run, contents(newest + 1), 2);
    assert.deepEqual([...Deno.readDirSync(checkpointsFolder(run))].filter(({ name }) => name.endsWith(".tmp")), []);
  }));

Deno.test("a disk that fills up during a save leaves the old checkpoint, and says so", () =>
  inFolder(async (folder) => {
    const old = await saveCheckpoint(folder, contents(1, 10), 0);
    const script = `${folder}/saver.ts`;
    Deno.writeTextFileSync(
      script,
      `import { saveCheckpoint } from "${new URL("../../train/checkpoint.ts", import.meta.url).href}";
import { modelConfiguration } from "${new URL("../../model/configuration.ts", import.meta.url).href}";
Deno.addSignalListener("SIGXFSZ", () => {});
const weights = [{ name: "a", shape: [8000000], data: new Float32Array(8000000) }];
const configuration = modelConfiguration({ layers: 1, heads: 1, width: 8 });
try {
  await saveCheckpoint(Deno.args[0], { step: 2, configuration, tokenizerFiles: {}, weights, optimizer: weights, trainer: {} }, 0);
} catch (error) {
  console.log(error.name + ": " + error.message);
}
Deno.exit(0);`,
    );
    // A limit on the size of files (20 MB, far above what Deno caches) stands for a full disk: it needs no root, and fails a
    // write in the same place.
    const shell = `ulimit -f 40000; exec "$0" run -A --no-lock "$1" "$2"`;
    const output = await new Deno.Command("sh", {
      args: ["-c", shell, Deno.execPath(), script, folder],
      stderr: "null",
    }).output();
    const text = new TextDecoder().decode(output.stdout);
    assert.match(text, /^MachineError: Cannot save the checkpoint of step 2/);
    assert.ok(text.includes(`the one in ${old} is whole`), text);
    assert.equal(latestCheckpoint(folder), old);
    (await openCheckpoint(folder)).close();
    assert.deepEqual([...Deno.readDirSync(checkpointsFolder(folder))].map(({ name }) => name), ["step-00000001"]);
  }));

Deno.test("machines that share a disk may save one state at once: it is whole, and nothing else is left", () =>
  inFolder(async (folder) => {
    await Promise.all(["", ".a.1", ".b.2"].map((mark) => saveCheckpoint(folder, contents(7), 2, mark)));
    (await openCheckpoint(folder)).close();
    assert.deepEqual([...Deno.readDirSync(checkpointsFolder(folder))].map(({ name }) => name), ["step-00000007"]);
  }));

Deno.test("saveCheckpoint() into a folder that cannot be made is a MachineError", () =>
  inFolder(async (folder) => {
    Deno.writeTextFileSync(`${folder}/file`, "");
    await assert.rejects(saveCheckpoint(`${folder}/file`, contents(1), 0), MachineError);
  }));
