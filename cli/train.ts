/** `muster train`. */

import { MachineError, UserError } from "../errors.ts";
import { findCheckpoint, latestCheckpoint } from "../train/checkpoint.ts";
import type { TrainEvent } from "../train/events.ts";
import { generate, type GenerateOptions } from "../train/generate.ts";
import { progressReporter } from "../train/progress.ts";
import { runOf } from "../train/prepare_run.ts";
import { nextRunFolder } from "../train/run_folder.ts";
import { completeSettings, type GivenSettings, parseSettings, readSettingsFile } from "../train/settings.ts";
import { isSupervised, restartableExitCode, stopRequest, stopSignals, supervise } from "../train/supervisor.ts";
import { train, type TrainResult } from "../train/trainer.ts";
import { interruptedExitCode } from "./exit_codes.ts";
import { print, printError, printJson, report, terminalColumns } from "./output.ts";
import type { Options } from "./values.ts";

/** Tokens of the sample at the end. */
const sampleTokens = 200;

/** What `--resume` is where a run begins, or goes on if it has begun: for whatever starts it again by itself. */
const resumeIfBegun = "auto";

/** Settings of the command line and of `--config`. */
export async function readSettings(options: Options): Promise<GivenSettings> {
  const { config, ...flags } = options;
  const fromFlags = parseSettings(flags, "flags");
  if (fromFlags.resume !== undefined && fromFlags.resume !== resumeIfBegun && fromFlags.init !== undefined) {
    throw new UserError("--resume goes on with a run's own weights, --init starts with others: give one of them");
  }
  const fromFile = config === undefined ? {} : await readSettingsFile(String(config));
  const { resume, ...given } = { ...fromFile, ...fromFlags };
  if (resume !== resumeIfBegun) return resume === undefined ? given : { ...given, resume };
  if (given.out === undefined) {
    throw new UserError(
      `--resume ${resumeIfBegun} goes on with the run in --out, if there is one: say where with --out`,
    );
  }
  return latestCheckpoint(given.out) === undefined ? given : { ...given, resume: given.out };
}

/** True if a run has taken all its steps. */
function isDone({ resume, steps }: GivenSettings): boolean {
  try {
    const trainer = JSON.parse(Deno.readTextFileSync(`${findCheckpoint(resume!)}/trainer.json`));
    return trainer.step >= (steps ?? trainer.settings.steps);
  } catch {
    return false;
  }
}

/** Where the run will be, so that the watching process knows it too. */
function runFolder(given: GivenSettings): string {
  if (given.out !== undefined) return given.out;
  return (given.resume === undefined ? undefined : runOf(findCheckpoint(given.resume))) ?? nextRunFolder();
}

/** Shows how the model writes, and what to do next. */
async function showSample(
  result: TrainResult,
  given: GivenSettings,
  hooks: Pick<GenerateOptions, "signal" | "onCompile">,
): Promise<void> {
  const { checkpoint, run } = result;
  const { data, trace } = completeSettings(given);
  // The script that started this knows how it was called.
  const muster = Deno.env.get("MUSTER_COMMAND") ?? "muster";
  print("\nsample\n");
  await generate({ checkpoint, prompt: "\n", tokens: sampleTokens, onText: print, ...hooks });
  print(
    `\n\ncheckpoint ${checkpoint}\nnext:\n` +
      `  ${muster} generate --checkpoint ${run} --prompt "Call me"\n` +
      `  ${muster} plot ${run}\n` +
      `  ${muster} eval --checkpoint ${run} --data ${data}\n` +
      `  ${muster} train --resume ${run} --steps ${2 * result.step}\n` +
      (trace === undefined ? "" : `  open ${trace} in https://ui.perfetto.dev or chrome://tracing\n`),
  );
}

/** In the process that trains. */
async function trainHere(given: GivenSettings, json: boolean, quiet: boolean): Promise<number> {
  const controller = new AbortController();
  let requests = 0;
  const stop = () => {
    if (++requests > 1) Deno.exit(interruptedExitCode);
    controller.abort();
    if (!quiet) printError("\nfinishing this step, then saving; once more stops at once\n");
  };
  const ignore = () => {};
  // What reaches this process too, the watching one turns into a request.
  for (const signal of stopSignals) Deno.addSignalListener(signal, ignore);
  Deno.addSignalListener(stopRequest, stop);
  let machines = 1;
  const watcher = Deno.ppid;
  const watching = setInterval(() => {
    if (Deno.ppid === watcher) return;
    // Nobody is left to watch. Other machines go on without this one, which they would not if it asked to stop.
    if (machines > 1) Deno.exit(1);
    // The step under way is saved, and nothing goes on by itself.
    controller.abort();
  }, 1000);
  const reporter = progressReporter({
    isTerminal: Deno.stderr.isTerminal(),
    width: terminalColumns,
    write: printError,
  }, { quiet: quiet || json });
  const onEvent = (event: TrainEvent) => {
    if (event.event === "world") machines = event.nodes;
    if (json && event.event !== "message") printJson(event);
    else reporter(event);
  };
  try {
    const result = await train(given, { onEvent, signal: controller.signal });
    if (json) return 0;
    if (result.checkpoint === "") print("node 0 has the checkpoint\n");
    else if (!quiet && requests === 0) {
      await showSample(result, given, {
        signal: controller.signal,
        onCompile: (progress) => reporter({ event: "compile", ...progress }),
      });
    } else print(`checkpoint ${result.checkpoint}\n`);
    return 0;
  } finally {
    clearInterval(watching);
    for (const signal of stopSignals) Deno.removeSignalListener(signal, ignore);
    Deno.removeSignalListener(stopRequest, stop);
  }
}

/** The command. */
export async function trainCommand(options: Options, args: readonly string[]): Promise<number> {
  const given = await readSettings(options);
  const settings = completeSettings(given);
  const { json, quiet } = settings;
  if (isSupervised()) {
    try {
      return await trainHere(given, json, quiet);
    } catch (error) {
      const code = report(error, { json, verbose: settings.verbose });
      return error instanceof MachineError && error.restartable ? restartableExitCode : code;
    }
  }
  if (options.resume === resumeIfBegun && given.resume !== undefined && isDone(given)) {
    if (!json) printError(`${given.resume} has taken all its steps: there is nothing to go on with\n`);
    return 0;
  }
  const out = runFolder(given);
  return await supervise({
    args: given.out === undefined ? [...args, "--out", out] : args,
    run: out,
    restarts: settings.restarts,
    onMessage: (message) => {
      if (json) printJson({ event: "error", message, exitCode: 1 });
      printError(`muster: ${message}\n`);
    },
  });
}
