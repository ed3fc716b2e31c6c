/** `muster generate`. */

import { generate } from "../train/generate.ts";
import { print, printError, printJson } from "./output.ts";
import { numberOption, type Options } from "./values.ts";

/** The command. */
export async function generateCommand(options: Options): Promise<number> {
  const json = options.json === true;
  const controller = new AbortController();
  const stop = () => controller.abort();
  Deno.addSignalListener("SIGINT", stop);
  try {
    const prompt = String(options.prompt);
    if (!json) print(prompt.trimStart());
    const result = await generate({
      checkpoint: String(options.checkpoint),
      prompt,
      tokens: numberOption(options, "tokens", { least: 1, whole: true }),
      temperature: numberOption(options, "temperature", { least: 0 }),
      topK: numberOption(options, "topK", { least: 0, whole: true }),
      topP: numberOption(options, "topP", { least: 0, most: 1 }),
      seed: numberOption(options, "seed", { least: 0, most: 2 ** 32 - 1, whole: true }),
      signal: controller.signal,
      ...(json ? {} : { onText: print }),
    });
    if (json) printJson({ prompt, ...result });
    else {
      print("\n");
      printError(`${result.tokens} tokens, ${(result.tokens / result.seconds).toFixed(1)} tokens/s\n`);
    }
    return 0;
  } finally {
    Deno.removeSignalListener("SIGINT", stop);
  }
}
