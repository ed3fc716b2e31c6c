import assert from "node:assert/strict";
import { flagsPage } from "../../tools/flags.ts";

Deno.test("docs/flags.md is what the table of settings makes (deno run -A tools/flags.ts)", () => {
  assert.equal(Deno.readTextFileSync(new URL("../../docs/flags.md", import.meta.url)), flagsPage());
});
