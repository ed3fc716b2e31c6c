import assert from "node:assert/strict";
import { allLicences } from "../../cli/licenses.ts";
import { catalogue } from "../../data/catalogue.ts";
import { licencesFile, packageLicences } from "../../tools/licenses.ts";
import { runMuster } from "./program.ts";

const top = new URL("../..", import.meta.url).pathname;

Deno.test("cli/licenses.json is what tools/licenses.ts writes: each package that the program imports, no other", () => {
  const written = Deno.readTextFileSync(`${top}cli/licenses.json`);
  assert.equal(written, licencesFile(), "run: deno run -A tools/licenses.ts");
  const names = packageLicences().map(({ name }) => name);
  for (const name of ["commander", "@huggingface/tokenizers", "hyparquet", "fzstd"]) {
    assert.ok(names.includes(name), name);
  }
  // Of tests alone.
  for (const name of ["fast-check", "pure-rand", "hyparquet-writer"]) assert.ok(!names.includes(name), name);
});

Deno.test("every licence has its text: the notice of copyright, and what it permits", () => {
  for (const { name, part, licence, text } of allLicences()) {
    if (part === "text") continue;
    assert.match(text, /copyright/i, name);
    if (licence === "MIT") assert.match(text, /Permission is hereby granted, free of charge/, name);
    if (licence === "Apache-2.0") assert.match(text, /Apache License\s+Version 2\.0/, name);
    if (licence === "BSD-3-Clause") assert.match(text, /Redistribution and use in source and binary forms/, name);
    if (licence === "ISC") assert.match(text, /Permission to use, copy, modify, and\/or distribute/, name);
  }
});

Deno.test("muster licenses prints Muster's first, then packages, the runtime, texts; --list only names, --json all", async () => {
  const all = allLicences();
  const page = await runMuster(["licenses"]);
  assert.equal(page.code, 0, page.stderr);
  assert.ok(page.stdout.includes(Deno.readTextFileSync(`${top}LICENSE`).trim()));
  for (const { name, text } of all) assert.ok(page.stdout.includes(text), name);
  const list = (await runMuster(["licenses", "--list"])).stdout;
  assert.ok(page.stdout.startsWith(list));
  assert.deepEqual(list.trim().split("\n").slice(1).map((line) => line.split(" ")[0]), all.map(({ name }) => name));
  assert.deepEqual(
    all.filter(({ part }) => part === "text").map(({ name }) => name),
    catalogue.map(({ name }) => name),
  );
  assert.deepEqual(JSON.parse((await runMuster(["licenses", "--json"])).stdout), all);
});
