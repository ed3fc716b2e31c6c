import assert from "node:assert/strict";
import { byteTokenizer } from "../../data/tokenizer.ts";
import { modelFolder } from "../fixtures.ts";

const entry = new URL("../../cli.ts", import.meta.url).pathname;

async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = Deno.makeTempDirSync();
  Deno.mkdirSync(`${folder}/model`);
  for (const file of ["config.json", "model.safetensors"]) {
    Deno.copyFileSync(new URL(file, modelFolder("gpt2_tiny")), `${folder}/model/${file}`);
  }
  for (const [name, text] of Object.entries(byteTokenizer().files())) {
    Deno.writeTextFileSync(`${folder}/model/${name}`, text);
  }
  Deno.writeTextFileSync(`${folder}/prompts.txt`, 'the whale\n\n"swam\\nnorth"\n{"prompt": "for 7"}\ndays\n');
  Deno.writeTextFileSync(`${folder}/empty.txt`, "\n");
  Deno.writeTextFileSync(`${folder}/bad.txt`, "the whale\n{whale}\n");
  try {
    await body(folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

function command(folder: string, args: string[], env: Record<string, string> = {}): Deno.Command {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", entry, "generate", "--checkpoint", "model", ...args],
    cwd: folder,
    env: { NO_COLOR: "1", ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

async function generate(folder: string, args: string, env: Record<string, string> = {}) {
  const { code, stdout, stderr } = await command(folder, args.split(" "), env).output();
  const text = new TextDecoder();
  return { code, stdout: text.decode(stdout), stderr: text.decode(stderr) };
}

/** The last line, behind one of kernels if compiling them took long. */
const summary = (tokens: number | string, end = "") =>
  new RegExp(
    `^(comp.*\\n)*${tokens} tokens, \\d+\\.\\d tokens/s: first token after \\d+ ms, ` +
      `prefill \\d+\\.\\d tokens/s, decode \\d+\\.\\d tokens/s${end}\\n$`,
  );

Deno.test("generate --prompts writes the same texts as JSON lines and as text, on one rank and on two stages", () =>
  inFolder(async (folder) => {
    const many = "--prompts prompts.txt --tokens 12";
    const staged = await generate(folder, `${many} --pp 2 --devices 0,0 --json`);
    assert.equal(staged.code, 0, staged.stderr);
    const lines = staged.stdout.trim().split("\n").map((line) => JSON.parse(line));
    assert.deepEqual(lines.map(({ index }) => index).sort(), [0, 1, 2, 3]);
    for (const line of lines) {
      assert.equal(line.tokens, 12);
      assert.ok(line.firstTokenMilliseconds > 0 && line.seconds > line.firstTokenMilliseconds / 1e3);
      assert.equal(line.promptTokens, line.prompt.length);
      const { prefillTokensPerSecond, decodeTokensPerSecond } = line;
      const seconds = line.promptTokens / prefillTokensPerSecond + 11 / decodeTokensPerSecond;
      assert.ok(Math.abs(seconds / line.seconds - 1) < 1e-6);
      assert.equal(line.finished, true);
    }
    assert.match(staged.stderr, summary(48, " \\(medians of the texts\\)"));

    const plain = await generate(folder, many);
    assert.equal(plain.code, 0, plain.stderr);
    const sorted = lines.sort((a, b) => a.index - b.index);
    assert.deepEqual(sorted.map(({ prompt }) => prompt), ["the whale", "swam\nnorth", "for 7", "days"]);
    const expected = sorted.map(({ index, prompt, text }) => `[${index + 1}]\n${prompt}${text}\n`).join("\n");
    assert.equal(plain.stdout, expected);

    const one = await generate(folder, "--prompt days --tokens 5");
    assert.match(one.stderr, summary(5));
    assert.match((await generate(folder, "--prompt days --tokens 1")).stderr, /prefill \d+\.\d tokens\/s\n$/);
    assert.ok(one.stdout.startsWith("days") && one.stdout.endsWith("\n"));
  }));

Deno.test("generate ends mistakes with one sentence, exit code 2, and a missing driver with exit code 1", () =>
  inFolder(async (folder) => {
    const cases: [string, RegExp][] = [
      ["--prompts nowhere.txt", /Cannot read the prompts in nowhere\.txt: there is no such file/],
      ["--prompts empty.txt", /empty\.txt holds no prompts: write one on each line/],
      ["--prompts bad.txt", /Line 2 of bad\.txt begins like JSON but is none/],
      ["--prompts prompts.txt --prompt a", /Give --prompt or --prompts, not both/],
      ["--pp 4 --devices 0,0,0,0", /4 pipeline stages need as many blocks, but the model has 3/],
      ["--tp 3 --devices 0,0,0", /--tp 3 does not divide the model's 4 heads/],
      ["--pp 2 --devices 0", /--pp 2 --tp 1 makes 2 ranks, but --devices 0 names 1 GPU/],
      ["--pp none", /--pp is "none", but must be a whole number, at least 1/],
      ["--devices 0,x", /--devices 0,x is no list of indices/],
    ];
    for (const [args, message] of cases) {
      const { code, stderr, stdout } = await generate(folder, args);
      assert.equal(code, 2, stderr);
      assert.match(stderr, message);
      assert.match(stderr, /^muster: [^\n]+\n$/);
      assert.equal(stdout, "");
    }
    const none = { VK_DRIVER_FILES: `${folder}/none.json`, VK_ICD_FILENAMES: `${folder}/none.json` };
    const { code, stderr } = await generate(folder, "--tokens 3", { ...none, DENO_WEBGPU_BACKEND: "vulkan" });
    assert.equal(code, 1);
    assert.match(stderr, /muster: No GPU or software Vulkan driver was found/);
  }));

Deno.test("an interrupt ends generate with what was written, exit code 0", () =>
  inFolder(async (folder) => {
    const args = ["--prompts", "prompts.txt", "--tokens", "1000000", "--pp", "2", "--devices", "0,0"];
    const child = command(folder, args).spawn();
    const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    let output = "";
    let interrupted = 0;
    for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
      output += chunk.value;
      if (interrupted || output.length < 60) continue;
      interrupted = performance.now();
      child.kill("SIGINT");
    }
    const stderr = await new Response(child.stderr).text();
    assert.equal((await child.status).code, 0, stderr);
    assert.ok(performance.now() - interrupted < 3000);
    // The texts behind the first were under way as well.
    assert.match(output, /^\[1\]\nthe whale[^]*\n\n\[2\]\nswam\nnorth[^]+\n\n\[3\]\nfor 7[^]+\n$/);
    assert.match(stderr, summary("\\d+", " \\(medians of the texts\\)"));
  }));
