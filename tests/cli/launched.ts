/** Runs `muster` under launchers, for tests. */

import assert from "node:assert/strict";

/** What a command printed, and its exit code. */
export interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

const folder = new URL(".", import.meta.url).pathname;

/** The words of `muster ARGS`, run by this Deno from the source. */
export function muster(...args: string[]): string[] {
  return [Deno.execPath(), "run", "-A", "--quiet", `${folder}../../cli.ts`, ...args];
}

/** The environment of this process without the places and secrets that it may have itself. */
export function plainEnvironment(): Record<string, string> {
  const placed = /^(SLURM|OMPI|PMIX?|MPI|I_MPI|MUSTER(?!_TUNE))_|^JOB_COMPLETION_INDEX$/;
  return Object.fromEntries(Object.entries(Deno.env.toObject()).filter(([name]) => !placed.test(name)));
}

/** Longest time for a launched command, in ms. */
const milliseconds = 60_000;

/** Runs a program to its end. */
export async function execute(words: readonly string[], env: Record<string, string> = {}): Promise<Ended> {
  const [program, ...args] = words;
  const child = new Deno.Command(program, {
    args,
    env: { ...plainEnvironment(), NO_COLOR: "1", ...env },
    clearEnv: true,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const timer = setTimeout(() => child.kill("SIGKILL"), milliseconds);
  const { code, stdout, stderr } = await child.output();
  clearTimeout(timer);
  const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: decode(stdout), stderr: decode(stderr) };
}

/** The words of a command that is to run where there are machines of these names, all of them this one. */
export function withHosts(names: readonly string[], words: readonly string[]): string[] {
  return ["sh", `${folder}hosts.sh`, ...names, "--", ...words];
}

/** The words of a command that is to run where a Slurm of machines n1, n2, … is up. */
export function withSlurm(machines: number, words: readonly string[]): string[] {
  return ["sh", `${folder}slurm.sh`, String(machines), ...words];
}

/** Words as a shell reads them. */
export function quoted(words: readonly string[]): string {
  return words.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(" ");
}

function has(program: string): boolean {
  return ["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin"].some((path) => {
    try {
      return Deno.statSync(`${path}/${program}`).isFile;
    } catch {
      return false;
    }
  });
}

/** Why a test that needs these programs, and maybe namespaces of its own, cannot run here; undefined if it can. */
export function lacking(programs: readonly string[], namespaces = false): string | undefined {
  const missing = programs.filter((program) => !has(program));
  if (missing.length > 0) return `there is no ${missing.join(", ")}`;
  if (!namespaces) return undefined;
  if (Deno.build.os !== "linux" || Deno.uid() !== 0) return "it needs Linux and root";
  const { success } = new Deno.Command("unshare", {
    args: ["--mount", "--net", "--uts", "--pid", "--fork", "--mount-proc", "true"],
    stdout: "null",
    stderr: "null",
  }).outputSync();
  return success ? undefined : "this system makes no namespaces";
}

/** A test that is skipped, and says why in its name, where something is lacking. */
export function testWhere(reason: string | undefined, name: string, body: () => Promise<void>): void {
  Deno.test({ name: reason ? `${name} (skipped: ${reason})` : name, ignore: reason !== undefined, fn: body });
}

/** Why there is no mpirun that takes the flags of Open MPI; undefined if there is one. */
export function lackingOpenMpi(): string | undefined {
  const none = lacking(["mpirun"]);
  if (none) return none;
  const { stdout } = new Deno.Command("mpirun", { args: ["--version"], stderr: "null" }).outputSync();
  return new TextDecoder().decode(stdout).includes("Open MPI") ? undefined : "its mpirun is not Open MPI's";
}

/** What mpirun's --allow-run-as-root says, for those versions that lack it. */
export const rootForMpi = { OMPI_ALLOW_RUN_AS_ROOT: "1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: "1" };

/** Makes a file with a secret, which only its owner reads. */
export function writeSecret(path: string): string {
  Deno.writeTextFileSync(path, "a secret of sixteen bytes and more");
  Deno.chmodSync(path, 0o600);
  return path;
}

/** Values in a manifest that stand behind `name:`. */
function valueIn(manifest: string, name: string): string {
  const [, value] = new RegExp(`^ *(?:- )?${name}: *"?([^"\\s]+)`, "m").exec(manifest) ?? [];
  assert.ok(value, `the manifest has no ${name}`);
  return value;
}

/** The pods of a manifest with an Indexed Job: names as Kubernetes makes them, variables, arguments, mode of the secret. */
export function podsOf(manifest: string): {
  readonly names: string[];
  readonly env: Record<string, string>;
  readonly args: string[];
  readonly secretMode: number;
} {
  const job = manifest.slice(manifest.indexOf("kind: Job"));
  const variable = (name: string) => valueIn(job.slice(job.indexOf(`- name: ${name}\n`)), "value");
  const pods = Number(valueIn(job, "completions"));
  assert.equal(Number(valueIn(job, "parallelism")), pods);
  const env = { MUSTER_NODES: variable("MUSTER_NODES"), MUSTER_RENDEZVOUS: variable("MUSTER_RENDEZVOUS") };
  assert.equal(env.MUSTER_NODES, String(pods));
  const names = Array.from({ length: pods }, (_, i) => `${valueIn(job, "name")}-${i}.${valueIn(job, "subdomain")}`);
  assert.equal(env.MUSTER_RENDEZVOUS, `${names[0]}:${valueIn(manifest, "port")}`);
  const list = job.slice(job.indexOf("args:"), job.indexOf("env:"));
  const args = [...list.matchAll(/^ *- (\S+)/gm)].map(([, arg]) => arg);
  return { names, env, args, secretMode: Number.parseInt(valueIn(job, "defaultMode"), 8) };
}
