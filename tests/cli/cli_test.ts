import assert from "node:assert/strict";

const entry = new URL("../../cli.ts", import.meta.url).pathname;
const text = Array.from({ length: 300 }, (_, i) => `${i}. the whale swam for ${i % 7} days\n`).join("");
const small = [
  "--layers",
  "1",
  "--heads",
  "2",
  "--width",
  "32",
  "--sequence-length",
  "16",
  "--batch-size",
  "4",
  "--eval-batches",
  "2",
];

interface Ended {
  readonly code: number;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = Deno.makeTempDirSync();
  Deno.writeTextFileSync(`${folder}/text.txt`, text);
  try {
    await body(folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

function command(folder: string, args: string[], env: Record<string, string> = {}): Deno.Command {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", entry, ...args],
    cwd: folder,
    env: { MUSTER_CACHE: `${folder}/cache`, NO_COLOR: "1", ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

async function muster(folder: string, ...args: string[]): Promise<Ended> {
  const { code, signal, stdout, stderr } = await command(folder, args).output();
  const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, signal, stdout: decode(stdout), stderr: decode(stderr) };
}

const events = (stdout: string) => stdout.trim().split("\n").map((line) => JSON.parse(line));

Deno.test("mistakes end with one sentence on standard error, exit code 2, no stack", () =>
  inFolder(async (folder) => {
    Deno.writeTextFileSync(`${folder}/bad.toml`, "stepz = 3\n");
    const cases: [string[], RegExp][] = [
      [["trian"], /There is no command trian; did you mean train\?/],
      [["train", "--lerning-rate", "1"], /Unknown option '--lerning-rate'; did you mean --learning-rate\?/],
      [["generate", "--chekpoint", "x"], /Unknown option '--chekpoint'; did you mean --checkpoint\?/],
      [["train", "--steps", "many"], /--steps is "many", but must be a whole number, at least 1/],
      [["train", "--data", "nowhere.txt"], /There is no data nowhere\.txt/],
      [["train", "--config", "bad.toml"], /unknown setting stepz; did you mean steps\?/],
      [["train", "--data", "text.txt", "--width", "30", "--heads", "4"], /4 heads do not divide a width of 30/],
      [["train", "extra"], /too many arguments/i],
      [["train", "--resume", "a", "--init", "b"], /give one of them/],
      [["train", "--resume", "auto"], /goes on with the run in --out/],
      [["prepare", "text.txt"], /--out/],
      [["prepare", "text.txt", "--out", "x", "--vocab-size", "300"], /give --train-tokenizer too/],
      [["prepare", "text.txt", "--out", "x", "--train-tokenizer", "--tokenizer", "gpt2"], /give one of them/],
      [["prepare", "nothing.txt", "--out", "x"], /no such file/],
      [["generate", "--checkpoint", "nowhere"], /There is no folder nowhere/],
      [
        ["generate", "--checkpoint", ".", "--temperature", "-1"],
        /--temperature is "-1", but must be a number, at least 0/,
      ],
      [["eval", "--checkpoint", ".", "--data", "text.txt"], /holds no checkpoint/],
      [["plot", "."], /no metrics\.jsonl/],
      [["plan", "--memory", "24GiB"], /say with --ranks how many/],
      [["plan", "--ranks", "2", "--memory", "24"], /--memory is "24", but must be a size with its unit, like 24GiB/],
      [["plan", "--ranks", "6", "--tp", "4"], /--tp 4 does not make up 6 ranks: choose --dp 6/],
    ];
    for (const [args, message] of cases) {
      const { code, stderr, stdout } = await muster(folder, ...args);
      assert.equal(code, 2, `${args}: ${stderr}`);
      assert.match(stderr, message);
      assert.match(stderr.replace(/^tokenizing .*\n/, ""), /^muster: [^\n]+\n$/, `one line: ${stderr}`);
      assert.equal(stdout, "");
    }
    const { code, stdout } = await muster(folder, "train", "--json", "--data", "nowhere.txt");
    assert.equal(code, 2);
    const [event] = events(stdout);
    assert.deepEqual([event.event, event.exitCode], ["error", 2]);
    assert.match((await muster(folder, "train", "--data", "nowhere.txt", "--verbose")).stderr, /\n +at /);
  }));

Deno.test("offline before the npm packages were fetched, one sentence says so, exit code 1", () =>
  inFolder(async (folder) => {
    const env = { DENO_DIR: `${folder}/deno`, NPM_CONFIG_REGISTRY: "http://127.0.0.1:9" };
    const { code, stderr } = await command(folder, ["devices"], env).output();
    assert.equal(code, 1);
    const text = new TextDecoder().decode(stderr);
    assert.match(text, /^muster: The npm package \S+ could not be fetched \(.*\): go online once[^\n]*\n$/);
  }));

Deno.test("train --json, resume, eval, generate, plot and prepare work together as processes", () =>
  inFolder(async (folder) => {
    const prepared = await muster(
      folder,
      "prepare",
      "text.txt",
      "--out",
      "tokens",
      "--train-tokenizer",
      "--vocab-size",
      "300",
      "--json",
    );
    assert.equal(prepared.code, 0, prepared.stderr);
    assert.ok(JSON.parse(prepared.stdout).vocabularySize <= 300);
    Deno.writeTextFileSync(
      `${folder}/run.toml`,
      'data = "tokens"\nsteps = 4\neval-interval = 2\ncheckpoint-interval = 3\nseed = 5\n',
    );

    const trained = await muster(folder, "train", "--config", "run.toml", "--out", "run", "--json", ...small);
    assert.equal(trained.code, 0, trained.stderr);
    const told = events(trained.stdout);
    const names = told.map(({ event, step }) => `${event} ${step ?? ""}`.trim());
    assert.equal(names[1], "compile");
    // A checkpoint is written while the next step runs.
    assert.ok(names.indexOf("checkpoint 3") > names.indexOf("step 3"));
    assert.deepEqual(names.filter((name) => name !== "checkpoint 3" && name !== "compile"), [
      "start",
      "step 1",
      "step 2",
      "evaluation 2",
      "step 3",
      "step 4",
      "evaluation 4",
      "checkpoint 4",
      "done 4",
    ]);
    assert.equal(told[0].config.seed, 5);
    for (
      const key of [
        "step",
        "loss",
        "gradNorm",
        "learningRate",
        "tokens",
        "tokensPerSecond",
        "milliseconds",
        "modelFlopsUtilization",
      ]
    ) {
      assert.equal(typeof told.find(({ event }) => event === "step")![key], "number", key);
    }
    for (const key of ["step", "loss", "validationLoss", "seconds"]) {
      assert.equal(typeof told[told.length - 1][key], "number", key);
    }
    assert.equal(told[told.length - 1].checkpoint, "run/checkpoints/step-00000004");

    const done = await muster(folder, "train", "--resume", "auto", "--out", "run", "--quiet");
    assert.deepEqual([done.code, done.stderr], [0, "run has taken all its steps: there is nothing to go on with\n"]);
    const resumed = await muster(folder, "train", "--resume", "auto", "--out", "run", "--steps", "6", "--quiet");
    assert.equal(resumed.code, 0, resumed.stderr);
    assert.match(resumed.stderr, /^done at step 6/m);
    const evaluated = await muster(folder, "eval", "--checkpoint", "run", "--data", "tokens", "--json");
    assert.ok(JSON.parse(evaluated.stdout).bitsPerByte > 0, evaluated.stderr);
    const generated = await muster(
      folder,
      "generate",
      "--checkpoint",
      "run",
      "--prompt",
      "the whale",
      "--tokens",
      "12",
      "--json",
    );
    assert.equal(JSON.parse(generated.stdout).tokens, 12, generated.stderr);
    const plotted = await muster(folder, "plot", "run");
    assert.match(plotted.stdout, /step 6/);
    assert.match(Deno.readTextFileSync(`${folder}/run/loss.svg`), /^<svg [\s\S]*<\/svg>\n$/);
  }));

Deno.test("plan compares layouts and draws schedules, verify tells layouts that train differently", () =>
  inFolder(async (folder) => {
    const drawn = await muster(folder, "plan", "--pp", "4", "--micro-batches", "8", "--draw");
    assert.match(drawn.stdout, /^stage 0 1 2 3 4 .*\n(stage \d .*\n){3}1f1b, 8 micro-batches: idle 27\.3%\n/);
    const gpus = ["--ranks", "4", "--memory", "16GiB", "--tflops", "20"];
    const told = await muster(folder, "plan", ...gpus, "--model", "gpt2-124m", "--vocab-size", "50257", "--json");
    const { meshes, refused, pick, ranks } = JSON.parse(told.stdout);
    assert.equal(meshes.length + refused.length, 6);
    assert.equal(ranks[0].usableBytes, Math.floor(0.9 * 16 * 2 ** 30));
    assert.deepEqual([pick.dp, pick.pp, pick.tp], [meshes[0].dp, meshes[0].pp, meshes[0].tp]);
    const { total, communication: _, ...parts } = meshes[0].bytes;
    // Activations, gradients and so on are packed into whole buffers, which their sum nearly fills.
    const sum = (Object.values(parts) as number[]).reduce((a, b) => a + b);
    assert.ok(Math.abs(sum / total - 1) < 0.01, `${sum} of ${total}`);
    const page = await muster(folder, "plan", ...gpus, "--layers", "2", "--batch-size", "3");
    assert.match(
      page.stdout,
      /^\* +\d+ +\d+ +\d+ .*$[\s\S]*not possible\n +dp 4 .*\n[\s\S]*^\* .*: predicted .*\n +train with --dp/m,
    );
    for (const line of page.stdout.split("\n")) assert.ok(line.length <= 120, line);

    const layouts = "tp 2, dp 2 seed 3";
    const { code, stdout } = await muster(folder, "verify", "--layouts", layouts, "--steps", "2", "--layers", "2");
    assert.match(stdout, /^tp 2 .* 0\.0001 +ok\ndp 2 seed 3 .* 0\.0001 +FAILED\n1 passed, 1 failed\n$/m);
    assert.equal(code, 1);
  }));

Deno.test("an interrupt finishes the step, saves and exits with 0; what was saved resumes", () =>
  inFolder(async (folder) => {
    const child = command(folder, [
      "train",
      "--data",
      "text.txt",
      "--steps",
      "100000",
      "--out",
      "run",
      "--json",
      ...small,
    ]).spawn();
    const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    let output = "";
    let interrupted = false;
    for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
      output += chunk.value;
      if (!interrupted && output.includes('"step":5,')) {
        interrupted = true;
        child.kill("SIGINT");
      }
    }
    const { code } = await child.status;
    await child.stderr.cancel();
    assert.equal(code, 0);
    const last = events(output).pop();
    assert.equal(last.event, "done");
    assert.equal(last.stopped, true);
    const resumed = await muster(folder, "train", "--resume", "run", "--steps", String(last.step + 1), "--quiet");
    assert.equal(resumed.code, 0, resumed.stderr);
  }));

Deno.test("a second interrupt stops at once, exit code 130", () =>
  inFolder(async (folder) => {
    const slow = ["--layers", "4", "--heads", "4", "--width", "256", "--sequence-length", "128", "--batch-size", "64"];
    const args = ["train", "--data", "text.txt", "--steps", "100000", "--out", "run", "--json", ...slow];
    const child = command(folder, args).spawn();
    const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    let interrupted = 0;
    for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
      if (interrupted || !chunk.value.includes('"event":"start"')) continue;
      child.kill("SIGINT");
      await new Promise((resolve) => setTimeout(resolve, 300));
      interrupted = performance.now();
      child.kill("SIGINT");
    }
    await child.stderr.cancel();
    assert.equal((await child.status).code, 130);
    // The step that was going takes longer than this.
    assert.ok(performance.now() - interrupted < 2000);
  }));

/** The one child of a process. */
function childOf(pid: number): number {
  return Number(Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`).trim().split(" ")[0]);
}

Deno.test({
  name: "SIGTERM to both of its processes, as Slurm and mpirun send it, is one request: what was trained is saved",
  ignore: Deno.build.os !== "linux",
  fn: () =>
    inFolder(async (folder) => {
      const args = ["train", "--data", "text.txt", "--steps", "100000", "--out", "run", "--json", ...small];
      const child = command(folder, args).spawn();
      const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
      let output = "";
      let asked = false;
      for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
        output += chunk.value;
        if (asked || !output.includes('"step":5,')) continue;
        asked = true;
        Deno.kill(childOf(child.pid), "SIGTERM");
        await new Promise((resolve) => setTimeout(resolve, 100));
        child.kill("SIGTERM");
      }
      await child.stderr.cancel();
      assert.equal((await child.status).code, 0);
      const last = events(output).pop();
      assert.deepEqual([last.event, last.stopped], ["done", true]);
    }),
});

Deno.test({
  name: "a training process that is killed is reported in plain words, and with --restarts goes on from its checkpoint",
  ignore: Deno.build.os !== "linux",
  fn: () =>
    inFolder(async (folder) => {
      const crash = async (run: string, ...more: string[]) => {
        const args = [
          "train",
          "--data",
          "text.txt",
          "--steps",
          "60",
          "--checkpoint-interval",
          "5",
          "--out",
          run,
          "--json",
          ...small,
          ...more,
        ];
        const child = command(folder, args).spawn();
        const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
        let output = "";
        let killed = false;
        for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
          output += chunk.value;
          if (!killed && output.includes('"event":"checkpoint","step":10')) {
            killed = true;
            Deno.kill(childOf(child.pid), "SIGKILL");
          }
        }
        const stderr = await new Response(child.stderr).text();
        return { code: (await child.status).code, output, stderr };
      };
      const once = await crash("once");
      assert.equal(once.code, 1);
      assert.match(
        once.stderr,
        /muster: The training process was killed \(SIGKILL\).*the last checkpoint is once\/checkpoints\/step-000000\d\d.*--resume once/,
      );
      const again = await crash("again", "--restarts", "1");
      assert.equal(again.code, 0, again.stderr);
      assert.match(again.stderr, /starting again \(1 of 1\)/);
      const lines = again.output.trim().split("\n").flatMap((line) => {
        try {
          return [JSON.parse(line)];
        } catch {
          return []; // The line that the kill cut off.
        }
      });
      assert.equal(lines.filter(({ event }) => event === "start").length, 2);
      assert.equal(lines.pop().step, 60);
    }),
});

Deno.test("without any driver, train and devices say how to get one, exit code 1", () =>
  inFolder(async (folder) => {
    for (const args of [["devices"], ["train", "--data", "text.txt", ...small]]) {
      const env = {
        VK_DRIVER_FILES: `${folder}/none.json`,
        VK_ICD_FILENAMES: `${folder}/none.json`,
        DENO_WEBGPU_BACKEND: "vulkan",
      };
      const { code, stderr } = await command(folder, args, env).output();
      const message = new TextDecoder().decode(stderr).split("\n").filter((line) => line.startsWith("muster:")).join(
        "\n",
      );
      assert.equal(code, 1, message);
      assert.match(message, /No GPU or software Vulkan driver was found: .*mesa-vulkan-drivers/);
    }
  }));

Deno.test("the one-file bundle trains and writes from an empty folder, with no more than its permissions", () =>
  inFolder(async (folder) => {
    const bundle = `${folder}/muster.js`;
    const { bundle: make } = await import("../../tools/bundle.ts");
    const { permissionFlags } = await import("../../tools/permissions.ts");
    await make(bundle);
    Deno.mkdirSync(`${folder}/empty`);
    const run = async (...args: string[]) => {
      const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
        args: ["run", ...permissionFlags, "--quiet", "--no-npm", "--no-config", bundle, ...args],
        cwd: `${folder}/empty`,
        env: { MUSTER_CACHE: `${folder}/cache` },
        stdin: "null",
      }).output();
      assert.equal(code, 0, new TextDecoder().decode(stderr));
      return new TextDecoder().decode(stdout);
    };
    const told = events(
      await run("train", "--data", `${folder}/text.txt`, "--tokenizer", "gpt2", "--steps", "2", "--json", ...small),
    );
    assert.equal(told.pop().event, "done");
    assert.match(await run("generate", "--checkpoint", "runs/1", "--tokens", "3", "--json"), /"tokens":3/);
  }));
