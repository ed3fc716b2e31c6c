import assert from "node:assert/strict";
import type { LinkMeasurement } from "../../parallel/measure_links.ts";
import { slowLinks } from "../../parallel/slow_links.ts";

const names = (size: number) => Array.from({ length: size }, (_, i) => `node ${i} (10.0.0.${i + 1})`);

/** All pairs of a group at 1 GB/s and 100 µs, some changed; keys are like `0-2`. */
function measured(
  size: number,
  changes: Record<string, Partial<Omit<LinkMeasurement, "between">>> = {},
): LinkMeasurement[] {
  const links: LinkMeasurement[] = [];
  for (let a = 0; a < size; a++) {
    for (let b = a + 1; b < size; b++) {
      links.push({ between: [a, b], microseconds: 100, gigabytesPerSecond: [1, 1], ...changes[`${a}-${b}`] });
    }
  }
  return links;
}

Deno.test("slowLinks() names the link that is below half of the bandwidth or above three times the latency", () => {
  assert.deepEqual(slowLinks(measured(3), names(3)), []);
  const near: [number, number] = [0.5, 1];
  assert.deepEqual(slowLinks(measured(3, { "0-2": { gigabytesPerSecond: near, microseconds: 300 } }), names(3)), []);
  assert.deepEqual(slowLinks(measured(3, { "0-2": { gigabytesPerSecond: [1, 0.1] } }), names(3)), [
    "node 0 (10.0.0.1) – node 2 (10.0.0.3) is slow: 0.100 GB/s, 10% of the usual 1.00 GB/s",
  ]);
  assert.deepEqual(slowLinks(measured(4, { "1-2": { microseconds: 900 } }), names(4)), [
    "node 1 (10.0.0.2) – node 2 (10.0.0.3) is slow: latency 900 µs, 9.0 times the usual 100 µs",
  ]);
});

Deno.test("slowLinks() names the machine whose links are all slow, also among three, and no link where there is one", () => {
  const bad = { gigabytesPerSecond: [0.1, 0.1] as [number, number], microseconds: 500 };
  const better = { ...bad, gigabytesPerSecond: [0.2, 0.3] as [number, number] };
  assert.deepEqual(slowLinks(measured(3, { "0-2": bad, "1-2": better }), names(3)), [
    "all links of node 2 (10.0.0.3) are slow: at best 0.200 GB/s, 20% of the usual 1.00 GB/s, and latency 500 µs, " +
    "5.0 times the usual 100 µs",
  ]);
  const worst = { ...bad, gigabytesPerSecond: [0.01, 0.3] as [number, number] };
  assert.deepEqual(
    slowLinks(measured(3, { "0-2": worst, "1-2": better }), names(3)).map((text) => text.split(" is ")[0]),
    [
      "node 0 (10.0.0.1) – node 2 (10.0.0.3)",
      "node 1 (10.0.0.2) – node 2 (10.0.0.3)",
    ],
  );
  assert.deepEqual(slowLinks(measured(5, { "0-1": bad, "1-2": bad, "1-3": bad }), names(5)).length, 3);
  assert.deepEqual(slowLinks(measured(2, { "0-1": bad }), names(2)), []);
});
