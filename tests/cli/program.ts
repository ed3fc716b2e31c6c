/** The command line as a process. */

const entry = new URL("../../cli.ts", import.meta.url).pathname;

/** What came of a process. */
export interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Arguments of Deno that start the command line with these. */
export function denoArguments(args: readonly string[]): string[] {
  return ["run", "-A", "--quiet", entry, ...args];
}

/** Runs a program in a folder, with some more environment. */
export async function runProgram(
  program: string,
  args: readonly string[],
  options: { readonly cwd?: string; readonly env?: Readonly<Record<string, string>> } = {},
): Promise<Ended> {
  const { cwd, env } = options;
  const { code, stdout, stderr } = await new Deno.Command(program, {
    args: [...args],
    ...(cwd ? { cwd } : {}),
    env: { NO_COLOR: "1", ...env },
    stdin: "null",
  }).output();
  const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: decode(stdout), stderr: decode(stderr) };
}

/** Runs the command line. */
export function runMuster(args: readonly string[], options: Parameters<typeof runProgram>[2] = {}): Promise<Ended> {
  return runProgram(Deno.execPath(), denoArguments(args), options);
}
