import assert from "node:assert/strict";
import { withFolder } from "../folder.ts";

const module = (path: string) => JSON.stringify(import.meta.resolve(`../../${path}`));

/** Ends while its Worker has the driver compile. */
const program = `
if ("WorkerGlobalScope" in globalThis) {
  const { openDevice } = await import(${module("gpu/open.ts")});
  const { multiplyAdds, usualChains } = await import(${module("gpu/loads.ts")});
  const device = await openDevice();
  postMessage("compiles");
  for (let unrolled = 17;; unrolled++) await multiplyAdds(device, { ...usualChains, unrolled }, 64);
} else {
  (await import(${module("cli/leave.ts")})).leaveWithoutHandlers();
  const worker = new Worker(import.meta.url, { type: "module" });
  await new Promise((resolve) => worker.onmessage = resolve);
  console.log("written");
  Deno.exit(130);
}`;

Deno.test("a process leaves with its own exit code while a Worker has the driver compile, and all it wrote is out", () =>
  withFolder({ "program.ts": program }, async (folder) => {
    // With the C library's handlers one in nine crashes on Mesa 22.3.
    for (let run = 0; run < 12; run++) {
      const { code, stdout } = await new Deno.Command(Deno.execPath(), {
        args: ["run", "-A", "--no-check", `${folder}/program.ts`],
        env: { MESA_SHADER_CACHE_DISABLE: "true" },
        stderr: "null",
      }).output();
      assert.deepEqual([code, new TextDecoder().decode(stdout)], [130, "written\n"], `run ${run}`);
    }
  }));

Deno.test("behind its last line too, with the exit code that was set", () =>
  withFolder({
    "program.ts": `import { leaveWithoutHandlers } from ${module("cli/leave.ts")};
leaveWithoutHandlers();
addEventListener("unload", () => console.log("the handlers follow"));
Deno.exitCode = 7;
console.log("written");`,
  }, async (folder) => {
    const { code, stdout } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", `${folder}/program.ts`],
    }).output();
    const left = Deno.build.os === "linux" ? "written\n" : "written\nthe handlers follow\n";
    assert.deepEqual([code, new TextDecoder().decode(stdout)], [7, left]);
  }));
