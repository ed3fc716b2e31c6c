/** `deno task check`: formatting, lint, types, documentation, structure. */

import { circles, type Imports, longFiles, orphanKernels, wrongImports } from "./structure.ts";

const top = new URL("..", import.meta.url).pathname.replace(/\/$/, "");

/** A check that was made. */
export interface CheckResult {
  readonly name: string;
  readonly passed: boolean;
  readonly output: string;
}

async function run(...args: string[]): Promise<{ success: boolean; output: string; stdout: string }> {
  const command = new Deno.Command(Deno.execPath(), {
    args,
    cwd: top,
    stdout: "piped",
    stderr: "piped",
    stdin: "null",
  });
  const { success, stdout, stderr } = await command.output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { success, output: text(stdout) + text(stderr), stdout: text(stdout) };
}

async function deno(name: string, ...args: string[]): Promise<CheckResult> {
  const { success, output } = await run(...args);
  return { name, passed: success, output: success ? "" : output };
}

/** Files of the checkout with an ending, from the top, outside tests' data and what is built. */
function files(ending: string, folder = ""): string[] {
  return [...Deno.readDirSync(`${top}/${folder}`)].flatMap((entry) => {
    const path = folder ? `${folder}/${entry.name}` : entry.name;
    if (entry.name.startsWith(".") || ["node_modules", "dist", "runs", "fixtures"].includes(entry.name)) return [];
    if (entry.isDirectory) return files(ending, path);
    return entry.name.endsWith(ending) ? [path] : [];
  }).sort();
}

/** The project's imports, types included, as `deno info` sees them. */
async function readImports(modules: readonly string[]): Promise<Imports> {
  const imports = new Map<string, Set<string>>();
  const root = `file://${top}/`;
  for (const entry of modules.filter((file) => /^(cli\.ts|mod\.ts)$/.test(file))) {
    const { stdout } = await run("info", "--json", entry);
    const info = JSON.parse(stdout) as {
      modules: {
        specifier: string;
        dependencies?: { code?: { specifier?: string }; type?: { specifier?: string } }[];
      }[];
    };
    for (const { specifier, dependencies } of info.modules) {
      if (!specifier.startsWith(root)) continue;
      const targets = imports.get(specifier.slice(root.length)) ?? new Set<string>();
      imports.set(specifier.slice(root.length), targets);
      for (const { code, type } of dependencies ?? []) {
        for (const target of [code?.specifier, type?.specifier]) {
          if (target?.startsWith(root) && target.endsWith(".ts")) targets.add(target.slice(root.length));
        }
      }
    }
  }
  return new Map([...imports].map(([file, targets]) => [file, [...targets]]));
}

async function structure(): Promise<CheckResult> {
  const modules = files(".ts");
  const product = modules.filter((file) => !/^(tests|tools)\//.test(file));
  const texts = new Map(product.map((file) => [file, Deno.readTextFileSync(`${top}/${file}`)]));
  const imports = await readImports(modules);
  const complaints = [
    ...wrongImports(imports),
    ...circles(imports).map((circle) => `circle: ${circle}`),
    ...longFiles(texts),
    ...orphanKernels(files(".wgsl"), texts),
  ];
  return { name: "structure", passed: complaints.length === 0, output: complaints.join("\n") };
}

/** Makes all checks. */
export async function check(): Promise<CheckResult[]> {
  return [
    await deno("formatting", "fmt", "--check", "--quiet"),
    await deno("lint", "lint", "--quiet"),
    await deno("types", "check", "--quiet", ...files(".ts")),
    await deno("documentation", "doc", "--lint", "--quiet", "mod.ts"),
    await structure(),
  ];
}

/** Prints what failed; the names of those that passed on one line. */
export function reportChecks(results: readonly CheckResult[]): void {
  for (const { name, passed, output } of results) {
    console.log(`${passed ? "ok    " : "FAILED"} ${name}`);
    if (!passed) console.log(output);
  }
}

if (import.meta.main) {
  const results = await check();
  reportChecks(results);
  if (results.some(({ passed }) => !passed)) Deno.exit(1);
}
