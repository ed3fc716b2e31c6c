import assert from "node:assert/strict";
import { withFolder } from "../folder.ts";
import { selectable } from "../../bench/run.ts";
import { build } from "../../cli/main.ts";
import { bashScript, fishScript, zshScript } from "../../cli/completion_scripts.ts";
import { type CompletedFlag, completionsOf } from "../../cli/completion_table.ts";
import { trainOptions } from "../../train/options.ts";
import { flagName } from "../../train/settings.ts";
import { runMuster, runProgram } from "./program.ts";

const completions = completionsOf(build(() => {}));
const scripts: Readonly<Record<string, string>> = {
  bash: bashScript(completions),
  zsh: zshScript(completions),
  fish: fishScript(completions),
};
/** Shows how the program would be called. */
const shown = "muster() { printf '<%s>' \"$@\"; echo; }\n";
const files = { "text.txt": "", "a file.txt": "", completion: "" };

/** Whether a program runs. */
async function has(program: string, ...args: string[]): Promise<boolean> {
  try {
    return (await runProgram(program, args)).code === 0;
  } catch {
    return false;
  }
}

/** A test that needs programs. */
async function testWith(name: string, programs: readonly string[], body: (folder: string) => Promise<void>) {
  const missing = [];
  for (const program of programs) if (!await has(program, "--version")) missing.push(program);
  Deno.test({
    name: missing.length > 0 ? `${name} (skipped: there is no ${missing.join(", ")})` : name,
    ignore: missing.length > 0,
    fn: () =>
      withFolder(files, (folder) => {
        Deno.mkdirSync(`${folder}/runs/1`, { recursive: true });
        return body(folder);
      }),
  });
}

Deno.test("completionsOf() has every command and flag, choices of the table, and files where files go", () => {
  const flags = new Map<string, CompletedFlag>(
    completions.commands.find(({ name }) => name === "train")!.flags.map((flag) => [flag.names[0], flag]),
  );
  for (const [name, option] of Object.entries(trainOptions)) {
    const flag = flags.get(`--${flagName(name)}`);
    assert.ok(flag, name);
    if (option.kind === "choice") assert.deepEqual(flag.value, { words: option.choices, paths: "none" }, name);
    assert.equal(flag.value === undefined, option.kind === "switch", name);
  }
  const value = (name: string) => flags.get(name)!.value!;
  assert.deepEqual([value("--out").paths, value("--trace").paths, value("--steps").paths], [
    "folders",
    "files",
    "none",
  ]);
  assert.deepEqual(value("--data"), { words: ["moby-dick", "state-of-the-union"], paths: "files" });
  assert.ok(value("--model").words.includes("llama-1m"));
  const argument = (name: string) => completions.commands.find((command) => command.name === name)!.argument;
  assert.deepEqual(argument("completions"), { words: ["bash", "zsh", "fish"], paths: "none" });
  assert.deepEqual(argument("help")!.words, completions.commands.map(({ name }) => name));
  assert.equal(argument("plot")!.paths, "folders");
  assert.deepEqual(argument("bench"), { words: selectable(), paths: "none" });
  assert.equal(argument("train"), undefined);
});

Deno.test("muster completions prints the script of each shell, the table as JSON, and refuses other shells", async () => {
  for (const [shell, script] of Object.entries(scripts)) {
    assert.deepEqual(await runMuster(["completions", shell]), { code: 0, stdout: script, stderr: "" });
  }
  assert.deepEqual(
    JSON.parse((await runMuster(["completions", "bash", "--json"])).stdout),
    JSON.parse(JSON.stringify(completions)),
  );
  const { code, stderr } = await runMuster(["completions", "tcsh"]);
  assert.deepEqual([code, stderr], [2, "muster: There are no completions for tcsh: name one of bash, zsh, fish\n"]);
});

/** What an interactive shell on a terminal prints while these lines are typed, tabs and all. */
async function type(folder: string, shell: string, lines: readonly string[]): Promise<string> {
  Deno.writeTextFileSync(`${folder}/completion`, `${shown}${scripts[shell.split(" ")[0]]}`);
  Deno.writeTextFileSync(`${folder}/typed`, [...lines, "exit", ""].join("\n"));
  const { stdout } = await runProgram("sh", ["-c", `timeout 30 script -qec '${shell}' /dev/null < typed`], {
    cwd: folder,
    env: { TERM: "dumb", PS1: "$ ", HISTFILE: "/dev/null" },
  });
  return stdout;
}

await testWith(
  "bash completes commands, flags, choices, files and folders as they are typed",
  ["bash", "script"],
  async (folder) => {
    const told = await type(folder, "bash --norc --noprofile -i", [
      ". ./completion",
      "muster trai\t--lr-sched\tcos\t--out ru\t --data te\t",
      "muster generate --checkp\truns/\t --prompts a\\ \t",
      "muster comp\tzs\t",
      "muster help comm\t",
      "muster bench ceil\tlayern\t",
      "muster train --zero=\t\t9",
    ]);
    assert.match(told, /^<train><--lr-schedule><cosine><--out><runs\/><--data><text\.txt>\r$/m);
    assert.match(told, /^<generate><--checkpoint><runs\/1\/?><--prompts><a file\.txt>\r$/m);
    assert.match(told, /^<completions><zsh>\r$/m);
    assert.match(told, /^<help><comm-bench>\r$/m);
    assert.match(told, /^<bench><ceilings><layernorm>\r$/m);
    assert.match(told, /^0 +1 +2 +3 *\r$/m);
  },
);

await testWith("zsh completes the same", ["zsh", "script"], async (folder) => {
  const told = await type(folder, "zsh -f -i", [
    "autoload -U compinit; compinit -u -D",
    ". ./completion",
    "muster trai\t--lr-sched\tcos\t--out ru\t --data te\t",
    "muster comp\tzs\t",
    "muster help comm\t",
    "muster bench ceil\tlayern\t",
    "muster prepare a\\ \t",
  ]);
  assert.match(told, /^<train><--lr-schedule=cosine><--out=?>?<?runs\/?><--data=?>?<?text\.txt>\r$/m);
  assert.match(told, /^<completions><zsh>\r$/m);
  assert.match(told, /^<help><comm-bench>\r$/m);
  assert.match(told, /^<bench><ceilings><layernorm>\r$/m);
  assert.match(told, /^<prepare><a file\.txt>\r$/m);
});

await testWith("fish completes the same", ["fish"], async (folder) => {
  Deno.writeTextFileSync(`${folder}/completion`, scripts.fish);
  const lines = [
    "muster tr",
    "muster train --lr-schedule ",
    "muster train --out r",
    "muster train --data mo",
    "muster help pl",
    "muster plot ru",
    "muster bench st",
    "muster bench step medi",
    "muster train --lr-s",
    "muster train --steps ",
  ];
  const ask = lines.map((line) => `complete -C '${line}' | string replace -r '\\t.*' '' | string join ,; echo`);
  const { stdout, stderr } = await runProgram("fish", ["--no-config", "-c", `source completion; ${ask.join("; ")}`], {
    cwd: folder,
    env: { HOME: folder },
  });
  assert.equal(stderr, "");
  assert.deepEqual(stdout.split("\n").filter(Boolean), [
    "train",
    "constant,cosine,linear,wsd",
    "runs/",
    "moby-dick",
    "plan,plot",
    "runs/",
    "step",
    "medium",
    "--lr-schedule",
  ]);
});
