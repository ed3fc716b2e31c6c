import assert from "node:assert/strict";
import type { Command } from "commander";
import { exitCodes } from "../../cli/exit_codes.ts";
import { build } from "../../cli/main.ts";
import { examplesOf } from "../../cli/overview.ts";
import { commitPlace, version } from "../../train/version.ts";
import { withFolder } from "../folder.ts";
import { runMuster, runProgram } from "./program.ts";

const program = build(() => {});

/** What a command prints for `--help`. */
function helpOf(command: Command): string {
  let text = "";
  command.configureOutput({ writeOut: (part) => text += part });
  command.outputHelp();
  return text;
}

Deno.test("every command has a summary, --json, --verbose, and examples that its own flags understand", () => {
  assert.ok(program.commands.length >= 12);
  for (const command of program.commands) {
    const name = command.name();
    const help = helpOf(command);
    assert.match(command.description(), /^[a-z].*[^.]$/, name);
    for (const flag of ["--json", "--verbose", "--help"]) {
      assert.match(help, new RegExp(`^ +(-h, )?${flag} `, "m"), name);
    }
    const examples = examplesOf(command);
    assert.ok(examples.length > 0, name);
    assert.ok(help.includes(`\nExamples:\n  ${examples[0]}`), name);
    const flags = command.options.map(({ long }) => long);
    for (const example of examples) {
      assert.match(example, new RegExp(`\\bmuster ${name}\\b`));
      const own = example.slice(example.indexOf(`muster ${name}`)).match(/--[a-z-]+/g) ?? [];
      for (const flag of own) assert.ok(flags.includes(flag), `${example}: there is no ${flag}`);
    }
  }
});

Deno.test("muster and muster help list every command once with an example, and the exit codes", async () => {
  const { code, stdout } = await runMuster([]);
  assert.equal(code, 0);
  assert.equal((await runMuster(["help"])).stdout, stdout);
  assert.equal((await runMuster(["--help"])).stdout, stdout);
  for (const command of program.commands) {
    assert.equal(stdout.match(new RegExp(`^  ${command.name()} +\\S`, "gm"))?.length, 1, command.name());
    assert.match(stdout, new RegExp(`^ {15,}(source <\\()?muster ${command.name()}\\b`, "m"));
  }
  for (const heading of ["Data and models:", "Machines:", "Muster itself:", "Options:"]) {
    assert.ok(stdout.includes(`\n${heading}\n`));
  }
  for (const [number, meaning] of exitCodes) {
    assert.match(stdout, new RegExp(`^  ${number} +${meaning.slice(0, 20)}`, "m"));
  }
  for (const line of stdout.split("\n")) assert.ok(line.length <= 100, line);
});

Deno.test("muster help COMMAND is its --help; of one that is not there, the nearest is named", async () => {
  const help = await runMuster(["help", "plot"]);
  assert.match(help.stdout, /^Usage: muster plot \[options\] <run>\n[\s\S]*\nExamples:\n {2}muster plot runs\/1\n/);
  assert.deepEqual(await runMuster(["plot", "--help"]), help);
  assert.match((await runMuster(["train", "--help"])).stdout, /--lr-schedule <constant\|linear\|cosine\|wsd>/);
  for (const args of [["help", "plto"], ["plto"], ["plto", "--json"]]) {
    const { code, stderr } = await runMuster(args);
    assert.equal(code, 2);
    assert.match(stderr, /^muster: There is no command plto; did you mean plot\? \(commands: train, [^\n]*\)\n$/);
  }
});

Deno.test("--version tells the commit of the checkout and what runs it, in words and as JSON", async () => {
  const { stdout } = await runMuster(["--version", "--json"]);
  const facts = JSON.parse(stdout);
  const { deno, v8, typescript } = Deno.version;
  const { os, arch } = Deno.build;
  assert.deepEqual({ ...facts, commit: null }, { muster: version, commit: null, deno, v8, typescript, os, arch });
  const text = await runMuster(["-V"]);
  assert.equal(
    text.stdout,
    `muster ${version} (${facts.commit ? `commit ${facts.commit.slice(0, 12)}` : "commit unknown"})\n` +
      `deno ${deno}, v8 ${v8}, typescript ${typescript}\n${os} ${arch}\n`,
  );
  try {
    const top = new URL("../..", import.meta.url).pathname;
    const git = await runProgram("git", ["rev-parse", "HEAD"], { cwd: top });
    if (git.code === 0) assert.equal(facts.commit, git.stdout.trim());
  } catch {
    // There is no git: then there is nothing to compare with.
  }
});

Deno.test("a bundle outside a checkout tells the commit that was put into it, else none; licences and help are inside", () =>
  withFolder({}, async (folder) => {
    const top = new URL("../..", import.meta.url).pathname;
    const output = `${folder}/muster.js`;
    const made = await runProgram(
      Deno.execPath(),
      ["bundle", "--quiet", "--platform=deno", `--output=${output}`, "cli.ts"],
      { cwd: top },
    );
    assert.equal(made.code, 0, made.stderr);
    const run = (...args: string[]) => runProgram(Deno.execPath(), ["run", "-A", output, ...args], { cwd: folder });
    assert.equal(JSON.parse((await run("--version", "--json")).stdout).commit, null);
    const commit = "0123456789abcdef".repeat(3).slice(0, 40);
    Deno.writeTextFileSync(output, Deno.readTextFileSync(output).replaceAll(commitPlace, commit));
    assert.equal(JSON.parse((await run("--version", "--json")).stdout).commit, commit);
    const licences = await run("licenses");
    assert.deepEqual(licences, await runMuster(["licenses"]));
    assert.match(licences.stdout, /Apache License/);
  }));
