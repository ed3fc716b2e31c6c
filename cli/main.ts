/** Parses the command line and runs the command. */

import { Command, CommanderError } from "commander";
import { settingNames } from "../train/settings.ts";
import { print, report } from "./output.ts";
import { overview, setExamples } from "./overview.ts";
import { addSettings, ofMachines, unplanned, verified } from "./setting_flags.ts";
import { usageError } from "./usage.ts";
import type { Options } from "./values.ts";
import { versionText } from "./version.ts";

/** Adds a command whose examples follow its options in the help. */
function command(program: Command, name: string, summary: string, examples: string[]): Command {
  const made = program.command(name)
    .description(summary)
    .option("--verbose", "print stacks with errors")
    .addHelpText("after", `\nExamples:\n${examples.map((example) => `  ${example}`).join("\n")}`)
    .allowExcessArguments(false);
  setExamples(made, examples);
  return made;
}

/** Of commands that are often too short to time kernels for. */
const tunedBefore =
  "\nMatrix products use the kernels that `muster tune` or a training on the same GPU found fastest; none are timed here.";

/** The program with all its commands; `run` is given what the chosen one does; `versionShown` is what --version prints. */
export function build(run: (action: () => Promise<number>) => void, versionShown = ""): Command {
  const program = new Command("muster")
    .description("Trains language models on the GPUs you have, with a graphics driver and nothing else.")
    .version(versionShown, "-V, --version", "print the version, the commit, and what runs it; then --json: as JSON")
    .commandsGroup("Data and models:");
  const train = command(program, "train", "train a model; with no flags, a small one on Moby-Dick", [
    "muster train",
    "muster train --data my.txt --layers 6 --width 256 --steps 5000",
    "muster train --resume runs/1 --steps 2000",
    "muster train --init ./gpt2 --data notes/ --learning-rate 3e-5",
  ])
    .option("--config <file>", "settings from a TOML or JSON file; flags go before them");
  addSettings(train, settingNames.filter((name) => name !== "verbose"))
    .action((options: Options) => run(async () => await (await import("./train.ts")).trainCommand(options, Deno.args)));
  command(program, "prepare", "turn text files, folders, JSON lines and Parquet into tokens", [
    "muster prepare books/ --out books.tokens --tokenizer gpt2",
    "muster prepare corpus.jsonl --out corpus.tokens --train-tokenizer --vocab-size 8192",
  ])
    .argument("<inputs...>", "files and folders")
    .requiredOption("--out <folder>", "folder to make")
    .option("--tokenizer <tokenizer>", "byte, gpt2, a tokenizer.json or its folder (default: byte)")
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
  const generate = command(program, "generate", "write text with a trained model", [
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
  addSettings(generate, ["precision"]).addHelpText("after", tunedBefore);
  const evaluate = command(program, "eval", "measure a model's loss on data", [
    "muster eval --checkpoint runs/1 --data moby-dick",
  ])
    .requiredOption("--checkpoint <folder>", "run, checkpoint or Hugging Face folder")
    .requiredOption("--data <data>", "prepared folder, text or catalogue name; its validation part is read")
    .option("--sequences <n>", "windows of text to read; all if left out")
    .option("--sequence-length <n>", "tokens in a window")
    .option("--json", "print the result as JSON")
    .action((options: Options) => run(async () => await (await import("./evaluate.ts")).evaluateCommand(options)));
  addSettings(evaluate, ["precision"]).addHelpText("after", tunedBefore);
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
  program.commandsGroup("Machines:");
  command(program, "doctor", "check this machine: driver, GPUs, folders, memory, network; each with a remedy", [
    "muster doctor",
    "muster doctor --nodes 4 --rendezvous 10.0.0.1:29500 --secret-file secret   (on each machine)",
    "muster doctor --json",
  ])
    .option("--rendezvous <host:port>", "check too whether the place where several machines meet can be reached")
    .option("--nodes <n>", "check too what so many machines need")
    .option("--secret-file <file>", "their secret (default: MUSTER_SECRET)")
    .option("--tls-cert <file>", "this machine's certificate, for mutual TLS with or instead of a secret (PEM)")
    .option("--tls-key <file>", "the key to it")
    .option("--tls-ca <file>", "certificate of the authority that must have signed every machine's")
    .option("--json", "print the result as JSON")
    .action((options: Options) => run(async () => await (await import("./doctor.ts")).doctorCommand(options)));
  command(program, "devices", "list the GPUs with their features and limits", [
    "muster devices",
    "muster devices --json",
  ])
    .option("--json", "print as JSON")
    .action((options: Options) => run(async () => await (await import("./devices.ts")).devicesCommand(options)));
  command(program, "bench", "measure the ceilings of a GPU, and kernels and a training step as shares of them", [
    "muster bench",
    "muster bench ceilings step",
    "muster bench matmul attention --devices 1 --json",
  ])
    .argument(
      "[part...]",
      "ceilings, kernels, the name of an op like matmul, step (of a small GPT), medium (of a larger one, a minute or more); " +
        "left out: all but medium",
    )
    .option("--devices <n>", "the GPU to measure, as `muster devices` numbers them (default: the first)")
    .option("--json", "print all that was measured as JSON")
    .action((parts: string[], options: Options) =>
      run(async () => await (await import("./bench.ts")).benchCommand(parts, options))
    );
  command(program, "tune", "time kernels of matrix products on the GPUs and keep the fastest", [
    "muster tune",
    "muster tune --full --devices 0",
  ])
    .addHelpText(
      "after",
      "\nTraining does it on a GPU's first use (--tune); generate, eval, plan and verify use what was found, too.",
    )
    .option("--devices <list>", "GPUs, as `muster devices` lists them (default: all that training would use)")
    .option("--full", "try all variants, and weights in bf16 too: some two minutes for a GPU")
    .option("--again", "also where that was done before")
    .option("--json", "print as JSON")
    .action((options: Options) => run(async () => await (await import("./tune.ts")).tuneCommand(options)));
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
    .option(
      "--algorithm <doubling|halving|ring|auto>",
      "how: doubling, halving, ring, or auto, which is by size (default: auto)",
    )
    .option("--comm-tune", "measure first which way is the fastest for which size, and go by that")
    .option(
      "--timeout <s>",
      "seconds to wait for the others to come, and (at least 10) for one that falls silent",
      "60",
    )
    .option("--json", "print the result as JSON")
    .action((options: Options) => run(async () => await (await import("./comm_bench.ts")).commBenchCommand(options)));
  program.commandsGroup("Muster itself:");
  command(program, "completions", "print what has a shell complete commands, flags and their values", [
    "source <(muster completions bash)                                      # in ~/.bashrc",
    "source <(muster completions zsh)                                       # in ~/.zshrc, behind compinit",
    "muster completions fish > ~/.config/fish/completions/muster.fish       # once",
  ])
    .argument("<bash|zsh|fish>", "the shell")
    .option("--json", "print what there is to complete as JSON")
    .action((shell: string, options: Options) =>
      run(async () => (await import("./completions.ts")).completionsCommand(program, shell, options))
    );
  command(program, "licenses", "print the licences of Muster, of what is built into it, and of the catalogue's texts", [
    "muster licenses --list",
    "muster licenses > LICENSES.txt",
  ])
    .option("--list", "only their names")
    .option("--json", "print as JSON")
    .action((options: Options) => run(async () => (await import("./licenses.ts")).licensesCommand(options)));
  const help = program.createCommand("help")
    .argument("[command]", "which one; left out: all of them, in short")
    .description("show the help of a command")
    .helpGroup("Muster itself:");
  program.addHelpCommand(help);
  return program.configureHelp({ formatHelp: () => overview(program) });
}

/** Runs a command line and returns the exit code. */
export async function main(args: readonly string[]): Promise<number> {
  const reporting = { json: args.includes("--json"), verbose: args.includes("--verbose") };
  let chosen: (() => Promise<number>) | undefined;
  const asksForVersion = args.some((arg) => arg === "--version" || arg === "-V");
  const program = build((action) => void (chosen = action), asksForVersion ? versionText(reporting.json) : "");
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
