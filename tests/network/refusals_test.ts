import assert from "node:assert/strict";
import { seldom } from "../../network/refusals.ts";

Deno.test("of many refusals the first few are told, and how many more there were once a minute is over", () => {
  const { now } = performance;
  let time = 0;
  performance.now = () => time;
  try {
    const told: string[] = [];
    const report = seldom((sentence) => told.push(sentence));
    for (let i = 0; i < 1000; i++) report(`refusal ${i}`);
    assert.deepEqual(told, Array.from({ length: 10 }, (_, i) => `refusal ${i}`));
    report("Refused a connection: 10.0.0.7:4711 ended the connection when 0 of 2 bytes had come");
    time = 61_000;
    report("later");
    assert.deepEqual(told.slice(10), ["Refused 990 connections more", "later"]);
  } finally {
    performance.now = now;
  }
});
