/** What desktops set in the environment and servers, containers and empty environments do not. */

function setDefault(name: string, value: string): void {
  if (!Deno.env.get(name)) Deno.env.set(name, value);
}

/** Sets it, before anything reads it and before there are other threads. */
export function completeEnvironment(): void {
  // A company's proxy signs with a certificate that only the system knows.
  setDefault("DENO_TLS_CA_STORE", "mozilla,system");
  if (Deno.build.os !== "linux") return;
  setDefault("DENO_WEBGPU_BACKEND", "vulkan");
  if (Deno.env.get("XDG_RUNTIME_DIR")) return;
  // Mesa complains where there is none. One in the common folder must be the user's own: the loader's settings lie there.
  const folder = `${Deno.env.get("TMPDIR") || "/tmp"}/muster-${Deno.uid()}`;
  try {
    Deno.mkdirSync(folder, { recursive: true, mode: 0o700 });
    if (Deno.statSync(folder).uid === Deno.uid()) Deno.env.set("XDG_RUNTIME_DIR", folder);
  } catch {
    // The folder cannot be made: Mesa's complaint stays.
  }
}
