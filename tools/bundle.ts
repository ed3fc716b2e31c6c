/** `deno task bundle`: the command line as one file, dist/muster.js, which `deno run` starts anywhere. */

import { relative } from "node:path";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import { catalogue, fetchDataset } from "../data/catalogue.ts";
import config from "../deno.json" with { type: "json" };
import { completeSettings } from "../train/settings.ts";
import { checkoutCommit, commitPlace } from "../train/version.ts";
import { permissionFlags } from "./permissions.ts";

const top = new URL("..", import.meta.url).pathname.replace(/\/$/, "");

async function deno(args: readonly string[]): Promise<string> {
  const command = new Deno.Command(Deno.execPath(), { args: [...args], cwd: top, stdout: "piped", stderr: "piped" });
  const { success, stdout, stderr } = await command.output();
  const [output, errors] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  if (!success) throw new Error(`deno ${args[0]} failed:\n${output}${errors}`);
  return output;
}

/** The module that stands in the place of data/embedded.ts: the default dataset, fetched as `train` would. */
async function embeddedModule(): Promise<string> {
  const entry = catalogue.find(({ name }) => name === completeSettings().data)!;
  const folder = await fetchDataset(entry, console.error);
  const names = [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
  const files = names.map((name) => [name, gzipSync(Deno.readFileSync(`${folder}/${name}`)).toString("base64")]);
  return `export const embedded = ${JSON.stringify({ [entry.name]: Object.fromEntries(files) })};\n`;
}

/**
 * Bundles the command line into `output`, executable on POSIX systems. What is in it follows from the code's imports, with
 * kernels, tables and text among them, so nothing can be forgotten.
 */
export async function bundle(output: string): Promise<void> {
  const folder = Deno.realPathSync(Deno.makeTempDirSync());
  try {
    Deno.writeTextFileSync(`${folder}/embedded.ts`, await embeddedModule());
    const imports = {
      ...config.imports,
      [`file://${top}/data/embedded.ts`]: pathToFileURL(`${folder}/embedded.ts`).href,
    };
    Deno.writeTextFileSync(`${folder}/imports.json`, JSON.stringify({ imports }));
    const made = `${folder}/muster.js`;
    await deno([
      "bundle",
      "--quiet",
      "--platform=deno",
      `--import-map=${folder}/imports.json`,
      `--output=${made}`,
      "cli.ts",
    ]);
    // Modules bear their paths from here, which differ between machines.
    const { npmCache } = JSON.parse(await deno(["info", "--json"])) as { npmCache: string };
    const from = (path: string) => `${relative(top, path).replaceAll("\\", "/")}/`;
    const text = Deno.readTextFileSync(made).replaceAll(from(npmCache), "npm/").replaceAll(from(folder), "data/");
    Deno.writeTextFileSync(
      output,
      `#!/usr/bin/env -S deno run ${permissionFlags.join(" ")}\n${
        text.replaceAll(commitPlace, checkoutCommit(top) ?? commitPlace)
      }`,
    );
    // An executable made of it records its time: with the same one, two builds of a commit are the same bytes.
    Deno.utimeSync(output, 0, 0);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
  if (Deno.build.os !== "windows") Deno.chmodSync(output, 0o755);
}

if (import.meta.main) {
  Deno.mkdirSync(`${top}/dist`, { recursive: true });
  await bundle(`${top}/dist/muster.js`);
  const { size } = Deno.statSync(`${top}/dist/muster.js`);
  console.log(`dist/muster.js, ${(size / 1e6).toFixed(1)} MB: it starts by itself where Deno is, or by deno run`);
}
