/**
 * `deno task bench:prefill [--json] [MODEL …]`: time to the first token, prefill and decode of models with random weights on the
 * first device, and how much of the device's memory bandwidth decode takes. `gpt2-124m` only if it is named.
 */

import { writeSafetensors } from "../data/safetensors.ts";
import { memoryTraffic } from "../gpu/loads.ts";
import { openDevice } from "../gpu/open.ts";
import { type ModelConfiguration, modelConfiguration, presets } from "../model/configuration.ts";
import { initialValues, partParameters } from "../model/model.ts";
import { wholeModel } from "../model/part.ts";
import { generateTokens } from "../train/generate_tokens.ts";
import type { TokenRequest } from "../train/generation_job.ts";
import { timeAll, usualTiming } from "./timing.ts";

/** What is measured: a model, the length of its prompt, and new tokens. */
interface Case {
  readonly configuration: ModelConfiguration;
  readonly prompt: number;
  readonly tokens: number;
}

const cases: Readonly<Record<string, Case>> = {
  small: { configuration: modelConfiguration({}), prompt: 100, tokens: 28 },
  "llama-1m": {
    configuration: modelConfiguration({ ...presets["llama-1m"], maximumSequenceLength: 1024 }),
    prompt: 512,
    tokens: 40,
  },
  "gpt2-124m": {
    configuration: modelConfiguration({ ...presets["gpt2-124m"], vocabularySize: 50257 }),
    prompt: 512,
    tokens: 24,
  },
};

/** What was measured. */
export interface PrefillResult {
  readonly model: string;
  readonly promptTokens: number;
  readonly firstTokenMilliseconds: number;
  readonly prefillTokensPerSecond: number;
  readonly decodeTokensPerSecond: number;
  /** Of the weights that a new token needs, in bytes per second. */
  readonly decodeBytesPerSecond: number;
  /** Bytes per second of a kernel that only reads, in the same run. */
  readonly readBytesPerSecond: number;
}

/** Random weights in a folder. */
async function writeModel(folder: string, configuration: ModelConfiguration): Promise<void> {
  const parameters = partParameters(configuration, wholeModel(configuration));
  const tensors = parameters.flatMap((parameter) => {
    const values = initialValues(parameter, 1);
    const columns = parameter.shape[1] ?? 1;
    return parameter.sources.map(({ name, shape, row }) => ({
      name,
      shape,
      data: values.subarray(row * columns, row * columns + shape.reduce((a, b) => a * b, 1)),
    }));
  });
  await writeSafetensors(`${folder}/model.safetensors`, tensors);
}

/** Bytes of the weights that go through for a token: all but tables of which one row is looked up. */
function readBytes(configuration: ModelConfiguration): number {
  return partParameters(configuration, { ...wholeModel(configuration), embedding: false })
    .reduce((sum, { shape }) => sum + 4 * shape.reduce((a, b) => a * b, 1), 0);
}

async function readRate(): Promise<number> {
  const device = await openDevice();
  try {
    const load = await memoryTraffic(device, "read", 64 * 2 ** 20);
    const [milliseconds] = await timeAll(device, [{ name: "read", run: load.run }], usualTiming);
    load.destroy();
    return load.amount / milliseconds * 1e3;
  } finally {
    await device.destroy();
  }
}

async function measure(model: string, { configuration, prompt, tokens }: Case): Promise<PrefillResult> {
  const folder = Deno.makeTempDirSync();
  try {
    await writeModel(folder, configuration);
    const request: TokenRequest = {
      folder,
      configuration,
      // The first of three texts compiles and is timed dispatch by dispatch; the last counts.
      prompts: new Array(3).fill(Array.from({ length: prompt }, (_, i) => (i * 7919) % configuration.vocabularySize)),
      tokens,
      endOfText: undefined,
      choices: configuration.vocabularySize,
      sampling: { temperature: 0, topK: 0, topP: 1 },
      seed: 1,
    };
    let begun = 0;
    let times: number[] = [];
    await generateTokens(request, {
      onBegin(_, at) {
        begun = at;
        times = [];
      },
      onToken: (_text, _token, _last, at) => times.push(at),
    });
    const first = times[0] - begun;
    const decodeTokensPerSecond = (times.length - 1) / (times[times.length - 1] - times[0]) * 1e3;
    return {
      model,
      promptTokens: prompt,
      firstTokenMilliseconds: first,
      prefillTokensPerSecond: prompt / first * 1e3,
      decodeTokensPerSecond,
      decodeBytesPerSecond: readBytes(configuration) * decodeTokensPerSecond,
      readBytesPerSecond: await readRate(),
    };
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

const wanted = Deno.args.filter((arg) => !arg.startsWith("-"));
const names = wanted.length > 0 ? wanted : ["small", "llama-1m"];
for (const name of names) {
  const result = await measure(name, cases[name]);
  if (Deno.args.includes("--json")) {
    console.log(JSON.stringify({ deno: Deno.version.deno, ...result }));
    continue;
  }
  const { promptTokens, firstTokenMilliseconds, prefillTokensPerSecond, decodeTokensPerSecond } = result;
  const { decodeBytesPerSecond, readBytesPerSecond } = result;
  console.log(
    `${name}: first token after a prompt of ${promptTokens} tokens ${firstTokenMilliseconds.toFixed(1)} ms, ` +
      `prefill ${prefillTokensPerSecond.toFixed(0)} tokens/s, decode ${decodeTokensPerSecond.toFixed(1)} tokens/s, ` +
      `${(decodeBytesPerSecond / 1e9).toFixed(1)} GB/s of weights ` +
      `(${(decodeBytesPerSecond / readBytesPerSecond).toFixed(2)} of plain reading)`,
  );
}
Deno.exit(0);
