import assert from "node:assert/strict";
import { type LayoutCheck, verifyLayouts } from "../../train/verify.ts";

Deno.test("verifyLayouts() passes layouts that train alike, fails those that do not, and leaves nothing behind", async () => {
  const temporary = Deno.makeTempDirSync();
  const before = ["TMPDIR", "MUSTER_CACHE"].map((name) => [name, Deno.env.get(name)] as const);
  for (const [name] of before) Deno.env.set(name, temporary);
  const started: string[] = [];
  const seen: LayoutCheck[] = [];
  const messages: string[] = [];
  try {
    const found = await verifyLayouts({ steps: 3, layers: 2, devices: "0" }, {
      layouts: "dp 2 zero 1, pp 2 zero-bubble, dp 2 seed 2",
      onStart: (name, index, count) => started.push(`${index}/${count} ${name}`),
      onCheck: (check) => seen.push(check),
      onMessage: (message) => messages.push(message),
    });
    assert.deepEqual(found.checks.map(({ layout, passed }) => [layout, passed]), [
      ["dp 2 zero 1", true],
      ["pp 2 zero-bubble", true],
      ["dp 2 seed 2", false],
    ]);
    assert.deepEqual(seen, found.checks);
    assert.equal(found.losses.length, 4);
    assert.ok(found.checks[2].difference! > found.bound);
    assert.deepEqual(started, ["0/3 one rank", "1/3 dp 2 zero 1", "2/3 pp 2 zero-bubble", "3/3 dp 2 seed 2"]);
    assert.match(messages[0], /GPU 0 is used twice/);

    // One head cannot be split: left out of all, refused where asked for.
    const one = { steps: 1, layers: 1, heads: 1, width: 16, devices: "0,0" };
    const all = await verifyLayouts({ ...one, batchSize: 1 });
    assert.deepEqual(all.checks, []);
    assert.ok(all.leftOut.length >= 8);
    await assert.rejects(verifyLayouts(one, { layouts: "tp 2" }), /--tp 2 does not divide the model's 1 heads/);
    await assert.rejects(verifyLayouts(one, { layouts: "dp 4" }), /takes 4 ranks, but --devices gives 2/);
    assert.deepEqual([...Deno.readDirSync(temporary)].map(({ name }) => name), []);
  } finally {
    for (const [name, value] of before) value === undefined ? Deno.env.delete(name) : Deno.env.set(name, value);
    Deno.removeSync(temporary, { recursive: true });
  }
});
