/** `muster generate`. */

import { readPrompts } from "../data/prompts.ts";
import { UserError } from "../errors.ts";
import { generateAll, type Generated, type GeneratedTexts } from "../train/generate.ts";
import { progressReporter } from "../train/progress.ts";
import { interruptedExitCode } from "./exit_codes.ts";
import { print, printError, printJson, terminalColumns } from "./output.ts";
import { numberOption, optionalNumber, type Options, precisionOption } from "./values.ts";

/** What the options ask for. */
function readOptions(options: Options) {
  if (options.prompt !== undefined && options.prompts !== undefined) {
    throw new UserError("Give --prompt or --prompts, not both");
  }
  return {
    checkpoint: String(options.checkpoint),
    tokens: numberOption(options, "tokens", { least: 1, whole: true }),
    temperature: numberOption(options, "temperature", { least: 0 }),
    topK: numberOption(options, "topK", { least: 0, whole: true }),
    topP: numberOption(options, "topP", { least: 0, most: 1 }),
    seed: numberOption(options, "seed", { least: 0, most: 2 ** 32 - 1, whole: true }),
    pp: numberOption(options, "pp", { least: 1, whole: true }),
    tp: numberOption(options, "tp", { least: 1, whole: true }),
    devices: options.devices === undefined ? undefined : String(options.devices),
    ...precisionOption(options),
    stallTimeout: optionalNumber(options, "stallTimeout", { least: 1 }),
    prompts: options.prompts === undefined ? [String(options.prompt ?? "\n")] : readPrompts(String(options.prompts)),
  };
}

/** Where texts go. */
interface Writer {
  readonly onText: (piece: string, index: number) => void;
  readonly onFinished: (generated: Generated, index: number) => void;
  /** Nothing follows; what was generated, unless that failed. */
  end(texts: readonly Generated[]): void;
}

/** Prints the texts in the order of their prompts: the first that is not finished as it comes, those behind it later. */
function textWriter(prompts: readonly string[]): Writer {
  const pending = prompts.map((prompt) => prompt.trimStart());
  const begun = prompts.map(() => false);
  const finished = prompts.map(() => false);
  let shown = -1;
  const flush = () => {
    print(pending[shown]);
    pending[shown] = "";
  };
  const next = () => {
    if (shown >= 0) print("\n");
    shown++;
    if (prompts.length > 1) print(`${shown === 0 ? "" : "\n"}[${shown + 1}]\n`);
    flush();
  };
  return {
    onText(piece, index) {
      pending[index] += piece;
      begun[index] = true;
      if (shown < 0) next();
      else if (index === shown) flush();
    },
    onFinished(_, index) {
      finished[index] = true;
      if (shown < 0) next();
      while (finished[shown] && shown + 1 < prompts.length) next();
    },
    end() {
      // Where all ended early, what there is of texts behind.
      while (begun.includes(true, shown + 1)) next();
      if (shown >= 0) print("\n");
    },
  };
}

/** Prints an object for each text when it is finished, or all has ended. */
function jsonWriter(prompts: readonly string[]): Writer {
  const onFinished = (generated: Generated, index: number) =>
    printJson({ index, prompt: prompts[index], ...generated });
  return {
    onText: () => {},
    onFinished,
    end: (texts) => texts.forEach((text, index) => !text.finished && text.tokens > 0 && onFinished(text, index)),
  };
}

type Figure = "firstTokenMilliseconds" | "prefillTokensPerSecond" | "decodeTokensPerSecond";

function summary({ texts, seconds }: GeneratedTexts): string {
  const tokens = texts.reduce((sum, text) => sum + text.tokens, 0);
  if (tokens === 0) return "0 tokens\n";
  /** The median of the texts that have it. */
  const show = (figure: Figure, digits: number, before: string, unit: string) => {
    const values = texts.flatMap((text) => text[figure] ?? []).sort((a, b) => a - b);
    return values.length === 0 ? [] : [`${before} ${values[values.length >> 1].toFixed(digits)} ${unit}`];
  };
  const figures = [
    ...show("firstTokenMilliseconds", 0, "first token after", "ms"),
    ...show("prefillTokensPerSecond", 1, "prefill", "tokens/s"),
    ...show("decodeTokensPerSecond", 1, "decode", "tokens/s"),
  ];
  const perText = texts.length > 1 ? " (medians of the texts)" : "";
  return `${tokens} tokens, ${(tokens / seconds).toFixed(1)} tokens/s: ${figures.join(", ")}${perText}\n`;
}

/** The command. */
export async function generateCommand(options: Options): Promise<number> {
  const json = options.json === true;
  const asked = readOptions(options);
  const { prompts } = asked;
  const writer = (json ? jsonWriter : textWriter)(prompts);
  const terminal = { isTerminal: Deno.stderr.isTerminal(), width: terminalColumns, write: printError };
  const report = progressReporter(terminal, { quiet: false });
  // On a terminal to which no text goes, texts are counted.
  const counting = Deno.stderr.isTerminal() && !Deno.stdout.isTerminal() && prompts.length > 1;
  let finished = 0;
  const controller = new AbortController();
  let requests = 0;
  const stop = () => {
    if (++requests > 1) Deno.exit(interruptedExitCode);
    controller.abort();
  };
  Deno.addSignalListener("SIGINT", stop);
  try {
    const generated = await generateAll({
      ...asked,
      onText: writer.onText,
      onFinished(text, index) {
        writer.onFinished(text, index);
        if (counting) printError(`\r${++finished} of ${prompts.length} texts`);
      },
      onCompile: (progress) => report({ event: "compile", ...progress }),
      onMessage: (message) => printError(`${message}\n`),
      signal: controller.signal,
    });
    if (counting) printError("\n");
    writer.end(generated.texts);
    printError(summary(generated));
    return 0;
  } catch (error) {
    writer.end([]);
    throw error;
  } finally {
    Deno.removeSignalListener("SIGINT", stop);
  }
}
