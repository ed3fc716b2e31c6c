/**
 * `deno run -A tools/licenses.ts`: writes cli/licenses.json, the licences of the npm packages that the program imports.
 * They are those that `deno info` finds behind cli.ts, and what these depend on; tests and benchmarks have others.
 */

const top = new URL("..", import.meta.url).pathname.replace(/\/$/, "");

/** A package that is built into the program. */
export interface PackageLicence {
  readonly name: string;
  readonly version: string;
  /** As SPDX names it. */
  readonly licence: string;
  readonly text: string;
}

interface ModuleGraph {
  readonly modules: readonly { readonly kind?: string; readonly npmPackage?: string }[];
  readonly npmPackages: Readonly<Record<string, { name: string; version: string; dependencies: readonly string[] }>>;
}

function info(...args: string[]): string {
  const { success, stdout, stderr } = new Deno.Command(Deno.execPath(), { args: ["info", "--json", ...args], cwd: top })
    .outputSync();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

/** Where Deno keeps a package. */
function folderOf(cache: string, name: string, version: string): string {
  const folders = [...Deno.readDirSync(cache)].map((registry) => `${cache}/${registry.name}/${name}/${version}`);
  const found = folders.find((folder) => {
    try {
      return Deno.statSync(`${folder}/package.json`).isFile;
    } catch {
      return false;
    }
  });
  if (!found) throw new Error(`${name}@${version} is not in Deno's cache: run the program once`);
  return found;
}

/** The packages, by name. A package without a licence is an error. */
export function packageLicences(): PackageLicence[] {
  const { modules, npmPackages }: ModuleGraph = JSON.parse(info("cli.ts"));
  const wanted = new Set(modules.flatMap(({ npmPackage }) => npmPackage ?? []));
  // A set grows while it is walked.
  for (const id of wanted) npmPackages[id].dependencies.forEach((dependency) => wanted.add(dependency));
  const cache: string = JSON.parse(info()).npmCache;
  return [...wanted].sort().map((id) => {
    const { name, version } = npmPackages[id];
    const folder = folderOf(cache, name, version);
    const files = [...Deno.readDirSync(folder)].map((entry) => entry.name)
      .filter((file) => /^(licen[cs]e|copying|notice)/i.test(file)).sort();
    const { license } = JSON.parse(Deno.readTextFileSync(`${folder}/package.json`));
    if (files.length === 0 || typeof license !== "string") throw new Error(`${id} does not tell its licence`);
    const text = files.map((file) => Deno.readTextFileSync(`${folder}/${file}`).replaceAll("\r\n", "\n").trim()).join(
      "\n\n",
    );
    return { name, version, licence: license, text };
  });
}

/** The file. */
export function licencesFile(): string {
  return `${JSON.stringify(packageLicences(), null, 2)}\n`;
}

if (import.meta.main) Deno.writeTextFileSync(`${top}/cli/licenses.json`, licencesFile());
