import assert from "node:assert/strict";
import { countJUnit } from "../../tools/test.ts";

Deno.test("countJUnit() counts what passed, failed and was skipped, and names the failures with what went wrong", () => {
  const xml = `<testsuites><testsuite>
<testcase name="one" time="1"/>
<testcase name="two" time="1"><system-out>fine</system-out></testcase>
<testcase name="three"><failure message="x">no: 1 &lt; 2</failure></testcase>
<testcase name="four"><skipped/></testcase>
<testcase name="five"><error/></testcase>
</testsuite></testsuites>`;
  assert.deepEqual(countJUnit(xml), { passed: 2, failed: 2, skipped: 1, failures: ["three\n      no: 1 < 2", "five"] });
});

Deno.test("countJUnit() reads what Deno writes", async () => {
  const folder = Deno.makeTempDirSync();
  try {
    Deno.writeTextFileSync(
      `${folder}/a_test.ts`,
      'Deno.test("good", () => {});\nDeno.test("bad", () => { throw new Error("x"); });\n' +
        'Deno.test({ name: "none", ignore: true, fn() {} });\n',
    );
    await new Deno.Command(Deno.execPath(), {
      args: ["test", "-A", "--quiet", "--no-config", `--junit-path=${folder}/r.xml`, `${folder}/a_test.ts`],
      stdout: "null",
      stderr: "null",
    }).output();
    const { failures, ...counts } = countJUnit(Deno.readTextFileSync(`${folder}/r.xml`));
    assert.deepEqual(counts, { passed: 1, failed: 1, skipped: 1 });
    assert.equal(failures.length, 1);
    assert.match(failures[0], /^bad\n {6}Error: x\n/);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});
