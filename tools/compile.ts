/**
 * `deno task compile`: one executable, dist/muster, that holds Deno's runtime and everything else. With `--all`: one for each
 * target, dist/muster-linux-x64 and so on, with their SHA256SUMS.
 *
 * `deno compile` puts the bundle into a bare runtime, denort, of its own version. It fetches that once and keeps it; where it
 * cannot, DENORT_BIN names one for a single target, or the archives that Deno publishes lie where it would keep them.
 */

import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { version } from "../train/version.ts";
import { bundle } from "./bundle.ts";
import { permissionFlags } from "./permissions.ts";

const top = new URL("..", import.meta.url).pathname.replace(/\/$/, "");

/** What machines executables are for, by our name, with Deno's. */
export const targets: Readonly<Record<string, string>> = {
  "linux-x64": "x86_64-unknown-linux-gnu",
  "linux-arm64": "aarch64-unknown-linux-gnu",
  "macos-x64": "x86_64-apple-darwin",
  "macos-arm64": "aarch64-apple-darwin",
  "windows-x64": "x86_64-pc-windows-msvc",
};

/** What to compile. */
export interface CompileOptions {
  /** The bundle. */
  readonly bundle: string;
  /** The executable to make. */
  readonly output: string;
  /** Deno's name of the target; this machine's if left out. */
  readonly target?: string;
  /** Deno that compiles, whose version the runtime has; the one that runs this if left out. */
  readonly deno?: string;
  /** Added to the environment: DENORT_BIN, DENO_DIR. */
  readonly env?: Readonly<Record<string, string>>;
}

/** The executable could not be made; the message says what to do. */
export class CompileError extends Error {}

async function run(program: string, args: string[], env?: Readonly<Record<string, string>>) {
  const options = { args, env: { ...env, NO_COLOR: "1" }, stdin: "null" } as const;
  const { code, stdout, stderr } = await new Deno.Command(program, options).output();
  const [output, errors] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes).trim());
  return { code, output, errors };
}

/** How a runtime is had without Deno's fetching it. */
async function withoutNetwork(
  deno: string,
  denoVersion: string,
  target: string,
  env?: Readonly<Record<string, string>>,
) {
  const { denoDir } = JSON.parse((await run(deno, ["info", "--json"], env)).output) as { denoDir: string };
  const path = `release/v${denoVersion}/denort-${target}.zip`;
  return `Go online once; or put https://dl.deno.land/${path} at ${denoDir}/dl/${path}; or set DENORT_BIN to the program ` +
    `in that archive. Without it, \`deno task bundle\` makes one file that \`deno run\` starts.`;
}

/** Makes an executable of a bundle. What comes of a runtime that is not of the compiler's version is removed again. */
export async function compile(options: CompileOptions): Promise<void> {
  const { output, target = Deno.build.target, deno = Deno.execPath(), env } = options;
  const denoVersion = /^deno (\S+)/.exec((await run(deno, ["--version"])).output)?.[1] ?? "of unknown version";
  const given = env?.DENORT_BIN ?? Deno.env.get("DENORT_BIN");
  // A cache of compiled code would lie in the common temporary folder, where others could put one; it saves 20 ms of 80.
  const args = [
    "compile",
    "--quiet",
    "--no-check",
    "--no-config",
    "--no-lock",
    "--no-remote",
    "--no-npm",
    "--no-code-cache",
  ];
  const { code, errors } = await run(
    deno,
    [...args, ...permissionFlags, `--target=${target}`, `--output=${output}`, options.bundle],
    env,
  );
  if (code !== 0) {
    const name = given
      ? `DENORT_BIN (${given}) cannot be used`
      : `Deno's runtime, denort ${denoVersion} for ${target}, cannot be had`;
    throw new CompileError(
      `${errors.replaceAll(/\n\s*Stack backtrace:[\s\S]*/g, "")}\n\n` +
        `${name}. ${await withoutNetwork(deno, denoVersion, target, env)}`,
    );
  }
  const fail = async (reason: string) => {
    Deno.removeSync(output);
    const source = given ? `DENORT_BIN (${given})` : `The runtime`;
    return new CompileError(`${source} ${reason}. ${await withoutNetwork(deno, denoVersion, target, env)}`);
  };
  // The runtime names itself as a client of HTTP.
  const bytes = Buffer.from(Deno.readFileSync(output).buffer);
  if (!bytes.includes(`Deno/${denoVersion}`)) {
    throw await fail(`is not the denort of Deno ${denoVersion} for ${target}`);
  }
  if (target !== Deno.build.target) return;
  const first = await run(output, ["--version"]).catch((error: Error) => ({
    code: -1,
    output: "",
    errors: error.message,
  }));
  if (first.code !== 0 || !first.output.includes(version)) {
    throw await fail(
      `makes no program that runs here (${first.errors.split("\n")[0] || `it printed ${first.output}`})`,
    );
  }
}

const megabytes = (path: string) => `${(Deno.statSync(path).size / 1e6).toFixed(0)} MB`;

/** Makes this machine's executable, or all with their sums, in a folder; says what was made. */
export async function compileInto(
  folder: string,
  all: boolean,
  compiler: Pick<CompileOptions, "deno" | "env"> = {},
): Promise<void> {
  Deno.mkdirSync(folder, { recursive: true });
  const source = `${folder}/muster.js`;
  await bundle(source);
  if (!all) {
    const output = `${folder}/muster${Deno.build.os === "windows" ? ".exe" : ""}`;
    await compile({ ...compiler, bundle: source, output });
    console.log(`${output}, ${megabytes(output)}`);
    return;
  }
  if (Deno.env.get("DENORT_BIN")) {
    throw new CompileError("DENORT_BIN names the runtime of one target, but --all builds five: unset it");
  }
  const names = Object.keys(targets).map((name) => `muster-${name}${name.startsWith("windows") ? ".exe" : ""}`);
  for (const [i, target] of Object.values(targets).entries()) {
    await compile({ ...compiler, bundle: source, output: `${folder}/${names[i]}`, target });
    console.log(`${folder}/${names[i]}, ${megabytes(`${folder}/${names[i]}`)}`);
  }
  const sums = [...names, "muster.js"].map((name) => {
    const sum = createHash("sha256").update(Deno.readFileSync(`${folder}/${name}`)).digest("hex");
    return `${sum}  ${name}\n`;
  });
  Deno.writeTextFileSync(`${folder}/SHA256SUMS`, sums.join(""));
}

if (import.meta.main) {
  const unknown = Deno.args.filter((arg) => arg !== "--all");
  if (unknown.length > 0) {
    console.error(`compile knows --all, but not ${unknown.join(" ")}`);
    Deno.exit(2);
  }
  try {
    await compileInto(`${top}/dist`, Deno.args.includes("--all"));
  } catch (error) {
    if (!(error instanceof CompileError)) throw error;
    console.error(`muster: ${error.message}`);
    Deno.exit(1);
  }
}
