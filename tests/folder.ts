/** A folder of its own for a test, with a cache in it instead of the user's. */

/** Calls `body` with a new folder in which there are `files`; removes it and restores the environment afterwards. */
export async function withFolder(
  files: Readonly<Record<string, string>>,
  body: (folder: string) => Promise<void>,
): Promise<void> {
  const folder = Deno.makeTempDirSync();
  const before = Deno.env.get("MUSTER_CACHE");
  Deno.env.set("MUSTER_CACHE", `${folder}/cache`);
  for (const [name, text] of Object.entries(files)) Deno.writeTextFileSync(`${folder}/${name}`, text);
  try {
    await body(folder);
  } finally {
    if (before === undefined) Deno.env.delete("MUSTER_CACHE");
    else Deno.env.set("MUSTER_CACHE", before);
    Deno.removeSync(folder, { recursive: true });
  }
}
