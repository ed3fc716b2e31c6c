/** `deno task bundle`: the command line as one file, dist/muster.js, which `deno run -A` starts anywhere. */

const top = new URL("..", import.meta.url).pathname.replace(/\/$/, "");

/** Bundles `entry` into `output`, executable on POSIX systems. */
export async function bundle(entry: string, output: string): Promise<void> {
  const args = ["bundle", "--quiet", "--platform=deno", `--output=${output}`, entry];
  const command = new Deno.Command(Deno.execPath(), { args, cwd: top, stdout: "piped", stderr: "piped" });
  const { success, stdout, stderr } = await command.output();
  if (!success) {
    const text = new TextDecoder();
    throw new Error(`deno bundle failed:\n${text.decode(stdout)}${text.decode(stderr)}`);
  }
  Deno.writeTextFileSync(output, `#!/usr/bin/env -S deno run -A\n${Deno.readTextFileSync(output)}`);
  if (Deno.build.os !== "windows") Deno.chmodSync(output, 0o755);
}

if (import.meta.main) {
  Deno.mkdirSync(`${top}/dist`, { recursive: true });
  await bundle(`${top}/cli.ts`, `${top}/dist/muster.js`);
  const { size } = Deno.statSync(`${top}/dist/muster.js`);
  console.log(`dist/muster.js, ${(size / 1e6).toFixed(1)} MB: deno run -A dist/muster.js train`);
}
