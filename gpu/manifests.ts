/**
 * The manifests of Vulkan drivers: small JSON files that tell the loader which libraries there are.
 * @module
 */

/** Variables that name all manifests, the newer first. */
export const manifestNames = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] as const;
/** Between paths in a variable. */
export const separator = Deno.build.os === "windows" ? ";" : ":";

/** Folders in which the loader looks for manifests on systems like Linux, in its order. */
function manifestFolders(): string[] {
  const home = Deno.env.get("HOME") ?? "/";
  const paths = (name: string, fallback: string) => (Deno.env.get(name) || fallback).split(separator).filter(Boolean);
  return [
    ...paths("XDG_CONFIG_HOME", `${home}/.config`),
    ...paths("XDG_CONFIG_DIRS", "/etc/xdg"),
    "/usr/local/etc",
    "/etc",
    ...paths("XDG_DATA_HOME", `${home}/.local/share`),
    ...paths("XDG_DATA_DIRS", "/usr/local/share:/usr/share"),
  ];
}

/** Manifests in a folder; undefined if there is no such folder. */
function manifestsIn(folder: string): string[] | undefined {
  try {
    return [...Deno.readDirSync(folder)].map(({ name }) => `${folder}/${name}`)
      .filter((path) => path.endsWith(".json")).sort();
  } catch {
    return undefined;
  }
}

/** Manifests of the drivers that the loader reads, on systems like Linux; they need not be there if the environment names them. */
export function driverManifests(): string[] {
  const named = (name: string) =>
    (Deno.env.get(name) ?? "").split(separator).filter(Boolean)
      .flatMap((path) => manifestsIn(path) ?? [path]);
  for (const name of manifestNames) if (Deno.env.get(name)) return named(name);
  const folders = [...new Set(manifestFolders())];
  return [...named("VK_ADD_DRIVER_FILES"), ...folders.flatMap((folder) => manifestsIn(`${folder}/vulkan/icd.d`) ?? [])];
}
