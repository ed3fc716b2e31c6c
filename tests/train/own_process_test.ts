import assert from "node:assert/strict";
import { withFolder } from "../folder.ts";

/** A program that runs itself in several ways, and prints what it learns of them. */
const program = `
import { runOwn } from "${new URL("../../train/own_process.ts", import.meta.url)}";
const ways = {
  tell: () => console.log('{"a":1}\\nwords\\n[2]'),
  hang: () => new Promise((resolve) => setTimeout(resolve, 60000)),
  crash: () => new Promise(() => Deno.kill(Deno.pid, "SIGKILL")),
  fail: () => (console.error("muster: no disk"), Deno.exit(1)),
  report: () => (console.log('{"event":"error","message":"no GPU"}'), Deno.exit(2)),
  silent: () => Deno.exit(3),
  variable: () => console.log(JSON.stringify(Deno.env.get("PLACE"))),
};
if (Deno.args.length > 0) await ways[Deno.args[0]]();
else {
  const found = {};
  for (const way of Object.keys(ways)) found[way] = await runOwn([way], { PLACE: "here" }, way === "hang" ? 0.7 : 30);
  console.log(JSON.stringify(found));
}
`;

Deno.test("runOwn() reads what the program tells when run again, and why it ended: by itself, late, crashed, failed", () =>
  withFolder({ "program.js": program }, async (folder) => {
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "-A",
        "--quiet",
        "--config",
        new URL("../../deno.json", import.meta.url).pathname,
        `${folder}/program.js`,
      ],
      env: { NO_COLOR: "1" },
    }).output();
    assert.equal(code, 0, new TextDecoder().decode(stderr));
    const found = JSON.parse(new TextDecoder().decode(stdout));
    assert.deepEqual(found.tell, { told: [{ a: 1 }, [2]], code: 0 });
    assert.deepEqual(found.variable.told, ["here"]);
    const faults = Object.fromEntries(Object.keys(found).map((way) => [way, found[way].fault]));
    assert.deepEqual(faults, {
      tell: undefined,
      hang: "it did not end within 0.7 s",
      crash: "its process was ended by SIGKILL",
      fail: "no disk",
      report: "no GPU",
      silent: "its process ended with code 3",
      variable: undefined,
    });
  }));
