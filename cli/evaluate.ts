/** `muster eval`. */

import { evaluate } from "../train/evaluate.ts";
import { formatCount } from "../train/progress.ts";
import { print, printError, printJson } from "./output.ts";
import { optionalNumber, type Options, precisionOption } from "./values.ts";

/** The command. */
export async function evaluateCommand(options: Options): Promise<number> {
  const json = options.json === true;
  const live = !json && Deno.stderr.isTerminal();
  const sequences = optionalNumber(options, "sequences", { least: 1, whole: true });
  const sequenceLength = optionalNumber(options, "sequenceLength", { least: 1, whole: true });
  const result = await evaluate({
    checkpoint: String(options.checkpoint),
    data: String(options.data),
    ...precisionOption(options),
    ...(sequences === undefined ? {} : { sequences }),
    ...(sequenceLength === undefined ? {} : { sequenceLength }),
    ...(live ? { onProgress: (message: string) => printError(`\r\x1b[K${message}`) } : {}),
  });
  if (live) printError("\r\x1b[K");
  if (json) printJson(result);
  else {
    print(
      `loss           ${result.loss.toFixed(4)} nats per token\nperplexity     ${result.perplexity.toFixed(3)}\n` +
        `bits per byte  ${result.bitsPerByte.toFixed(4)}\ntokens         ${formatCount(result.tokens)}\n`,
    );
  }
  return 0;
}
