/** Runs `muster` under launchers, for tests. */

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
  const placed = /^(SLURM|OMPI|PMIX?|MPI|I_MPI|MUSTER)_|^JOB_COMPLETION_INDEX$/;
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
