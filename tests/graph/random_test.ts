import assert from "node:assert/strict";
import { fillNormal, threefry2x32 } from "../../graph/random.ts";

Deno.test("threefry2x32() gives the known answers of Random123", () => {
  const hex = (...words: number[]) =>
    Array.from(threefry2x32(words[0], words[1], words[2], words[3]), (word) => word.toString(16).padStart(8, "0")).join(
      " ",
    );
  assert.equal(hex(0, 0, 0, 0), "6b200159 99ba4efe");
  assert.equal(hex(0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff), "1cb996fc bb002be7");
  assert.equal(hex(0x13198a2e, 0x03707344, 0x243f6a88, 0x85a308d3), "c4923a9c 483df7a0");
});

Deno.test("fillNormal() depends on seed, name and index alone, and is normal", () => {
  const whole = new Float32Array(40000), part = new Float32Array(100);
  fillNormal(whole, "wte", 7, 0, 0.02);
  fillNormal(part, "wte", 7, 1000, 0.02);
  assert.deepEqual(part, whole.slice(1000, 1100));
  const mean = whole.reduce((a, b) => a + b, 0) / whole.length;
  const deviation = Math.sqrt(whole.reduce((a, b) => a + (b - mean) ** 2, 0) / whole.length);
  const kurtosis = whole.reduce((a, b) => a + ((b - mean) / deviation) ** 4, 0) / whole.length;
  assert.ok(Math.abs(mean) < 4e-4 && Math.abs(deviation - 0.02) < 3e-4 && Math.abs(kurtosis - 3) < 0.15);
  const other = new Float32Array(100);
  fillNormal(other, "wpe", 7, 1000, 0.02);
  assert.notDeepEqual(other, part);
});
