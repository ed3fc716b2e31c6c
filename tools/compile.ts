/**
 * `deno task compile`: one executable, dist/muster, that holds the runtime and everything else.
 *
 * `deno compile` fetches its runtime (denort) once; where it cannot, DENORT_BIN names one of the same version.
 */

import { bundle } from "./bundle.ts";

const top = new URL("..", import.meta.url).pathname.replace(/\/$/, "");
const name = Deno.build.os === "windows" ? "muster.exe" : "muster";

if (import.meta.main) {
  Deno.mkdirSync(`${top}/dist`, { recursive: true });
  // The bundle holds every module, kernel and table: compiling it embeds exactly what the program uses.
  await bundle(`${top}/cli.ts`, `${top}/dist/muster.js`);
  const args = ["compile", "-A", "--no-check", "--quiet", `--output=dist/${name}`, "dist/muster.js"];
  const { success, stderr } = await new Deno.Command(Deno.execPath(), { args, cwd: top, stderr: "piped" }).output();
  if (!success) {
    const message = new TextDecoder().decode(stderr).trim();
    console.error(message);
    if (/denort|download|dns|error sending request/i.test(message)) {
      console.error(
        `\nmuster: deno compile could not fetch its runtime, denort ${Deno.version.deno}. Go online, or set DENORT_BIN to ` +
          `a denort of that version; without it, \`deno task bundle\` makes one file that \`deno run -A\` starts.`,
      );
    }
    Deno.exit(1);
  }
  console.log(`dist/${name}, ${(Deno.statSync(`${top}/dist/${name}`).size / 1e6).toFixed(0)} MB`);
}
