/** `muster licenses`. */

import mit from "../LICENSE" with { type: "text" };
import { catalogue } from "../data/catalogue.ts";
import { embedded } from "../data/embedded.ts";
import { version } from "../train/version.ts";
import { columns } from "./columns.ts";
import packages from "./licenses.json" with { type: "json" };
import { print, printJson } from "./output.ts";
import type { Options } from "./values.ts";

/** What a part of the program, or of what it fetches, may be used for. */
interface Licence {
  readonly name: string;
  readonly version: string;
  readonly licence: string;
  readonly part: "program" | "package" | "runtime" | "text";
  /** The licence itself, or where it is. */
  readonly text: string;
}

/** The runtime's. It is in the executable; `deno run` brings its own. */
function runtime(): Licence {
  const { deno, v8 } = Deno.version;
  // The same licence as Muster's, but for the name.
  const terms = mit.slice(mit.indexOf("Permission is hereby granted")).trim();
  return {
    name: "deno",
    version: deno,
    licence: "MIT",
    part: "runtime",
    text: `MIT License\n\nCopyright 2018-2026 the Deno authors\n\n${terms}\n\n` +
      `Deno holds V8 ${v8} (BSD-3-Clause), wgpu (MIT or Apache-2.0) and many other libraries, each under its own licence:\n` +
      `https://github.com/denoland/deno/blob/v${deno}/Cargo.lock names them.`,
  };
}

/** All licences, Muster's own first. */
export function allLicences(): Licence[] {
  return [
    { name: "muster", version, licence: "MIT", part: "program", text: mit.trim() },
    ...packages.map((entry): Licence => ({ ...entry, part: "package" })),
    runtime(),
    ...catalogue.map(({ name, version, licence, description, package: from }): Licence => ({
      name,
      version,
      licence,
      part: "text",
      text: `${description}. From the npm package ${from}, ${
        name in embedded ? "which is built in" : "fetched when it is asked for"
      }.`,
    })),
  ];
}

/** The command. */
export function licensesCommand(options: Options): number {
  const all = allLicences();
  if (options.json === true) {
    printJson(options.list === true ? all.map(({ text: _, ...entry }) => entry) : all);
    return 0;
  }
  const list = [
    ["name", "part", "version", "licence"],
    ...all.map((entry) => [
      entry.name,
      entry.part,
      entry.version,
      entry.licence,
    ]),
  ];
  print(`${columns(list).join("\n")}\n`);
  if (options.list === true) return 0;
  const line = "-".repeat(80);
  for (const { name, version, licence, text } of all) print(`\n${line}\n${name} ${version}: ${licence}\n\n${text}\n`);
  return 0;
}
