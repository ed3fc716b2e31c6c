import assert from "node:assert/strict";
import { fuzz } from "./fuzz_links.ts";

Deno.test("6,000 malformed openings, frames and messages are all refused, no memory is kept, and a good link goes on", async () => {
  const report = await fuzz(6000);
  // Every connection came to an end that was counted.
  assert.equal(report.refused + report.dropped, report.attacks, JSON.stringify(report));
  // One kind in six has the secret.
  assert.equal(report.dropped, 1000);
  assert.ok(report.answers > 20 && report.slowest < 2000, JSON.stringify(report));
  // 4,500 attacks lie between: 100 bytes kept of each would be 0.43 MiB.
  const [early, late] = report.liveMiB;
  assert.ok(late - early < 0.4, JSON.stringify(report));
});
