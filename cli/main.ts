/** Parses the command line and runs the command. */

import { Command, CommanderError } from "commander";
import { nearest } from "../data/dataset.ts";
import { UserError } from "../errors.ts";
import { describeOptions, type GivenSettings, isSwitch, type SettingName, settingNames } from "../train/settings.ts";
import { version } from "../train/version.ts";
import { print, report } from "./output.ts";
import type { Options } from "./values.ts";

/** Adds a command whose examples follow its options in the help. */
function command(program: Command, name: string, summary: string, examples: string[]): Command {
  return program.command(name)
    .description(summary)
    .option("--verbose", "print stacks with errors")
    .addHelpText("after", `\nExamples:\n${examples.map((example) => `  ${example}`).join("\n")}`)
    .allowExcessArguments(false);
}

/** Adds the flags of settings, from their table; `others` are defaults other than those of training. */
function addSettings(target: Command, wanted: readonly SettingName[], others: GivenSettings = {}): Command {
  describeOptions().forEach(({ flag, help, fallback }, i) => {
    const name = settingNames[i];
    if (!wanted.includes(name)) return;
    const argument = isSwitch(name) ? flag.split(" ")[0] : flag.replace(/ ([^<].*)$/, " <$1>");
    const value = name in others ? String(others[name]) : fallback;
    target.option(argument, value ? `${help} (default: ${value})` : help);
  });
  return target;
}

/** Settings that neither bytes nor time of a step depend on. */
const unplanned: readonly SettingName[] = [
  "steps",
  "learningRate",
  "minLearningRate",
  "warmupSteps",
  "lrSchedule",
  "weightDecay",
  "beta1",
  "beta2",
  "epsilon",
  "clip",
  "seed",
  "evalInterval",
  "evalBatches",
  "checkpointInterval",
  "keep",
  "out",
  "resume",
  "stallTimeout",
  "restarts",
  "trace",
  "rendezvous",
  "nodeRank",
  "listen",
  "secretFile",
  "tlsCert",
  "tlsKey",
  "tlsCa",
  "minNodes",
  "peerTimeout",
  "rendezvousTimeout",
  "commitSteps",
  "quiet",
  "verbose",
];

/** Options that `plan` has of its own, whether or not a run has settings of the same name. */
const ofMachines: readonly string[] = ["nodes", "link", "gradCompression"];

/** Settings of a run that only checks layouts; its model is small unless they say otherwise. */
const verified: readonly SettingName[] = [
  "devices",
  "steps",
  "data",
  "tokenizer",
  "model",
  "init",
  "family",
  "layers",
  "heads",
  "kvHeads",
  "width",
  "sequenceLength",
  "batchSize",
  "learningRate",
  "dropout",
  "seed",
  "bucketMb",
  "stallTimeout",
  "json",
];

function trainCommand(program: Command, run: (action: () => Promise<number>) => void): void {
  const train = program.command("train")
    .description("train a model; with no flags, a small one on Moby-Dick")
    .option("--config <file>", "settings from a TOML or JSON file; flags go before them")
    .allowExcessArguments(false)
    .addHelpText(
      "after",
      "\nExamples:\n  muster train\n  muster train --data my.txt --layers 6 --width 256 --steps 5000\n" +
        "  muster train --resume runs/1 --steps 2000\n  muster train --init ./gpt2 --data notes/ --learning-rate 3e-5",
    );
  addSettings(train, settingNames);
  train.action((options: Options) =>
    run(async () => await (await import("./train.ts")).trainCommand(options, Deno.args))
  );
}

function build(run: (action: () => Promise<number>) => void): Command {
  const program = new Command("muster")
    .description("Trains language models on the GPUs you have, with a graphics driver and nothing else.")
    .version(version)
    .helpCommand("help [command]", "show the help of a command");
  trainCommand(program, run);
  command(program, "prepare", "turn text files, folders, JSON lines and Parquet into tokens", [
    "muster prepare books/ --out books.tokens --tokenizer gpt2",
    "muster prepare corpus.jsonl --out corpus.tokens --train-tokenizer --vocab-size 8192",
  ])
    .argument("<inputs...>", "files and folders")
    .requiredOption("--out <folder>", "folder to make")
    .option("--tokenizer <name>", "byte, gpt2, a tokenizer.json or its folder (default: byte)")
    .option("--train-tokenizer", "train a byte-pair tokenizer on the corpus")
    .option("--vocab-size <n>", "with --train-tokenizer: its ids (default: 8192)")
    .option("--validation <fraction>", "share kept for validation", "0.1")
    .option("--text-field <name>", "field of JSON lines or column of Parquet that holds the text", "text")
    .option("--seed <n>", "chooses the documents for validation", "1337")
    .option("--force", "replace the folder")
    .option("--json", "print the result as JSON")
    .action((inputs: string[], options: Options) =>
      run(async () => await (await import("./prepare.ts")).prepareCommand(inputs, options))
    );
  command(program, "generate", "write text with a trained model", [
    'muster generate --checkpoint runs/1 --prompt "Call me"',
    'muster generate --checkpoint ./gpt2 --prompt "The sea" --tokens 50 --temperature 0',
    "muster generate --checkpoint runs/1 --prompts prompts.txt --pp 2 --json",
  ])
    .requiredOption("--checkpoint <folder>", "run, checkpoint or Hugging Face folder")
    .option("--prompt <text>", "text to go on from (default: a line break)")
    .option("--prompts <file>", 'several, one on each line: text, a JSON string, or a JSON object with "prompt"')
    .option("--tokens <n>", "tokens to write for each", "200")
    .option("--temperature <t>", "0: always the likeliest token; higher: more varied", "0.8")
    .option("--top-k <k>", "only the k likeliest tokens; 0: all", "0")
    .option("--top-p <p>", "only the likeliest tokens that make up this probability", "1")
    .option("--seed <n>", "of the choices", "1337")
    .option("--pp <n>", "pipeline stages into which the blocks are cut: several prompts pass through them at once", "1")
    .option("--tp <n>", "ranks over which each block is split (tensor-parallel)", "1")
    .option("--devices <list>", "GPUs, as for training (default: as many as there are ranks, from the first on)")
    .option("--stall-timeout <s>", "seconds that a rank waits for another before all is given up (default: 60)")
    .option("--json", "print a JSON object for each text, one per line")
    .action((options: Options) => run(async () => await (await import("./generate.ts")).generateCommand(options)));
  command(program, "eval", "measure a model's loss on data", ["muster eval --checkpoint runs/1 --data moby-dick"])
    .requiredOption("--checkpoint <folder>", "run, checkpoint or Hugging Face folder")
    .requiredOption("--data <data>", "prepared folder, text or catalogue name; its validation part is read")
    .option("--sequences <n>", "windows of text to read; all if left out")
    .option("--sequence-length <n>", "tokens in a window")
    .option("--json", "print the result as JSON")
    .action((options: Options) => run(async () => await (await import("./evaluate.ts")).evaluateCommand(options)));
  command(program, "devices", "list the GPUs with their features and limits", [
    "muster devices",
    "muster devices --json",
  ])
    .option("--json", "print as JSON")
    .action((options: Options) => run(async () => await (await import("./devices.ts")).devicesCommand(options)));
  const plan = command(program, "plan", "compare the layouts of several GPUs in bytes and time, and pick one", [
    "muster plan --model gpt2-355m --tokenizer gpt2 --batch-size 16",
    "muster plan --model gpt2-1558m --tokenizer gpt2 --batch-size 32 --ranks 8 --memory 24GiB --tflops 20",
    "muster plan --nodes 1000 --link 25Gbit,30us --ranks 8 --model gpt2-355m --tokenizer gpt2 --batch-size 32000",
    "muster plan --pipeline-schedule 1f1b --pp 4 --micro-batches 8 --draw",
  ])
    .option("--config <file>", "settings from a TOML or JSON file; flags go before them")
    .option("--ranks <n>", "plan for so many GPUs that are not here, instead of --devices")
    .option("--memory <size>", "with --ranks: memory of each GPU, like 24GiB (default: no limit)")
    .option("--tflops <n>", "with --ranks: float32 rate of each GPU as its maker states it, in TFLOP/s (default: 10)")
    .option("--nodes <n>", "plan for so many machines, each with these GPUs; --batch-size is of all together")
    .option(
      "--link <rate,latency>",
      "with --nodes: line of each machine and one way of a message, software included, like 25Gbit,30us; a third part is " +
        "what its network thread moves, the bus bandwidth that comm-bench finds on fast links (default: 10Gbit,50us,4.8Gbit)",
    )
    .option("--grad-compression <none|f16|bf16|int8>", "with --nodes: gradients between machines (default: none)")
    .option("--vocab-size <n>", "token ids (default: those of the prepared --data, or of --tokenizer)")
    .option("--draw", "only draw the pipeline schedule's timeline: --pp stages (4), --micro-batches (twice as many)");
  addSettings(plan, settingNames.filter((name) => !unplanned.includes(name) && !ofMachines.includes(name)))
    .action((options: Options) => run(async () => await (await import("./plan.ts")).planCommand(options)));
  const verify = command(program, "verify", "train a few steps on many layouts and compare each with one rank", [
    "muster verify",
    "muster verify --devices 0,0,0,0",
    'muster verify --layouts "dp 2 zero 1, pp 2 zero-bubble" --model llama-1m --steps 3',
  ])
    .option("--layouts <list>", 'all that the ranks allow, or some, like "dp 2 zero 1, pp 2 gpipe" (default: all)');
  addSettings(verify, verified, { steps: 5, learningRate: 1e-3, data: "a short text of its own" })
    .action((options: Options) => run(async () => await (await import("./verify.ts")).verifyCommand(options)));
  command(program, "comm-bench", "measure latency and bandwidth between machines, and name the slow link", [
    "muster comm-bench",
    "muster comm-bench --nodes 3 --rendezvous 10.0.0.1:29500 --secret-file secret   (the same on each machine)",
    "srun -N3 muster comm-bench --secret-file secret   (mpirun likewise: the launcher says how many there are, and where)",
    "muster comm-bench --local 4 --sizes 64KiB,16MiB --json",
    "muster comm-bench --local 4 --comm-tune",
  ])
    .option(
      "--nodes <n>",
      "machines, each running this command (default: as the launcher says); if one, processes of it are measured",
    )
    .option("--rendezvous <host:port>", "where the machines meet: an address of one of them, the same for all")
    .option(
      "--node-rank <n>",
      "this machine's number, given to all or none; 0 hosts the rendezvous (default: they agree)",
    )
    .option("--listen <address>", "interface to listen on (default: the one that leads to the rendezvous)")
    .option("--secret-file <file>", "the secret of all machines (default: MUSTER_SECRET); on loopback none is needed")
    .option("--tls-cert <file>", "this machine's certificate, for mutual TLS with or instead of a secret (PEM)")
    .option("--tls-key <file>", "the key to it")
    .option("--tls-ca <file>", "certificate of the authority that must have signed every machine's")
    .option("--local <n>", "on one machine: processes to measure over loopback, for a first try (default: 2)")
    .option("--sizes <list>", "bytes to all-reduce, like 4KiB,1MiB (default: 4KiB to 64MiB)")
    .option("--algorithm <way>", "how: doubling, halving, ring, or auto, which is by size (default: auto)")
    .option("--comm-tune", "measure first which way is the fastest for which size, and go by that")
    .option(
      "--timeout <s>",
      "seconds to wait for the others to come, and (at least 10) for one that falls silent",
      "60",
    )
    .option("--json", "print the result as JSON")
    .action((options: Options) => run(async () => await (await import("./comm_bench.ts")).commBenchCommand(options)));
  command(program, "plot", "draw a run's loss curve, in the terminal and as SVG", [
    "muster plot runs/1",
    "muster plot runs/1 --svg loss.svg",
  ])
    .argument("<run>", "folder of the run")
    .option("--svg <file>", "where to write the SVG (default: loss.svg in the run's folder)")
    .option("--json", "print the curves as JSON")
    .action((path: string, options: Options) =>
      run(async () => await (await import("./plot.ts")).plotCommand(path, options))
    );
  return program;
}

/** What commander found wrong, as one sentence. */
function usageError(program: Command, error: CommanderError, args: readonly string[]): UserError {
  const names = program.commands.flatMap((sub) => [sub.name(), ...sub.aliases()]);
  const message = error.message.replace(/^error: /, "").replace(/\s*\n\(Did you mean (.*)\?\)$/s, "; did you mean $1?");
  if (error.code === "commander.unknownCommand" && args[0]) {
    const near = nearest(args[0], names);
    return new UserError(
      `There is no command ${args[0]}${near ? `; did you mean ${near}?` : ""} (commands: ${names.join(", ")})`,
    );
  }
  // A required flag that is missing may be one that is misspelt.
  const flags = program.commands.find((sub) => sub.name() === args[0])?.options.map(({ long }) => long ?? "") ?? [];
  const unknown = args.slice(1).find((arg) => arg.startsWith("--") && !flags.includes(arg.split("=")[0]));
  if (error.code === "commander.missingMandatoryOptionValue" && unknown) {
    const near = nearest(unknown, flags);
    return new UserError(`Unknown option '${unknown}'${near ? `; did you mean ${near}?` : ""}`);
  }
  return new UserError(`${message.charAt(0).toUpperCase()}${message.slice(1)}`);
}

/** Runs a command line and returns the exit code. */
export async function main(args: readonly string[]): Promise<number> {
  const reporting = { json: args.includes("--json"), verbose: args.includes("--verbose") };
  let chosen: (() => Promise<number>) | undefined;
  const program = build((action) => void (chosen = action));
  for (const part of [program, ...program.commands]) {
    part.exitOverride().configureOutput({ writeOut: print, writeErr: () => {} });
  }
  try {
    if (args.length === 0) {
      print(program.helpInformation());
      return 0;
    }
    program.parse([...args], { from: "user" });
    return await chosen!();
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return 0;
      return report(usageError(program, error, args), reporting);
    }
    return report(error, reporting);
  }
}
