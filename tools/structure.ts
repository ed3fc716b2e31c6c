/** Rules of the structure: who may import whom, no circles, no long files, a .ts beside each .wgsl. */

/** A module of the project and the project's modules it imports, as paths from the top. */
export type Imports = ReadonlyMap<string, readonly string[]>;

/** Rooms from the top floor down; a room imports those below it. */
const floors = ["cli.ts", "cli", "bench", "mod.ts", "train", "parallel", "network", "model", "kernels", "graph", "gpu"];
/** Rooms that may import `data`, which itself imports nothing but errors. */
const readers = ["cli.ts", "cli", "mod.ts", "train"];
/** Longer files need a reason on their first line. */
export const longest = 300;

/** The room of a file: its top folder, or itself. */
export function roomOf(path: string): string {
  return path.split("/")[0];
}

/** Imports that go up, or where they must not. */
export function wrongImports(imports: Imports): string[] {
  const wrong: string[] = [];
  for (const [from, targets] of imports) {
    const room = roomOf(from);
    const floor = floors.indexOf(room);
    const product = floor >= 0 || room === "data" || room === "errors.ts";
    if (!product) continue;
    for (const to of targets) {
      const other = roomOf(to);
      if (other === room || other === "errors.ts") continue;
      const below = floor >= 0 && floors.indexOf(other) > floor;
      if (!below && !(other === "data" && readers.includes(room))) wrong.push(`${from} must not import ${to}`);
    }
  }
  return wrong;
}

/** Circles of imports, each once, as `a → b → a`. */
export function circles(imports: Imports): string[] {
  const found: string[] = [];
  const state = new Map<string, "open" | "done">();
  const path: string[] = [];
  const visit = (file: string) => {
    state.set(file, "open");
    path.push(file);
    for (const next of imports.get(file) ?? []) {
      if (state.get(next) === "open") found.push([...path.slice(path.indexOf(next)), next].join(" → "));
      else if (!state.has(next)) visit(next);
    }
    path.pop();
    state.set(file, "done");
  };
  for (const file of imports.keys()) if (!state.has(file)) visit(file);
  return found;
}

/** Files over the limit without a reason. */
export function longFiles(files: ReadonlyMap<string, string>): string[] {
  return [...files].flatMap(([path, text]) => {
    const lines = text.split("\n").length;
    return lines > longest && !text.startsWith("// Long because: ") ? [`${path} has ${lines} lines`] : [];
  });
}

/** Kernels without the module that makes them: each .wgsl is imported by a .ts of its folder. */
export function orphanKernels(wgsl: readonly string[], texts: ReadonlyMap<string, string>): string[] {
  return wgsl.filter((path) => {
    const name = path.split("/").pop()!;
    const folder = path.slice(0, -name.length);
    return ![...texts].some(([file, text]) => file.startsWith(folder) && text.includes(`"./${name}"`));
  }).map((path) => `${path} is used by no module beside it`);
}
