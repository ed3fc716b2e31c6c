import assert from "node:assert/strict";
import { sumAreas } from "../../parallel/sum_areas.ts";

Deno.test("sumAreas() gives the bits of sums in f32 in the order of areas, in place, and touches nothing else", () => {
  const stride = 4096;
  for (const members of [1, 2, 3, 5]) {
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
    const sum = sumAreas(memory);
    const areas = Array.from({ length: members }, (_, m) => new Float32Array(memory.buffer, m * stride, stride / 4));
    for (const [from, to] of [[0, 16], [0, 1000], [3, 5], [7, 300], [64, 64 + 31]]) {
      for (let target = 0; target < members; target++) {
        areas.forEach((area, m) => area.forEach((_, i) => area[i] = Math.sin(i * 7 + m * 3) * 10 ** (m - 2)));
        const expected = Float32Array.from(areas[target]);
        for (let i = from; i < to; i++) {
          expected[i] = areas.reduce((total, area) => Math.fround(total + area[i]), -0);
        }
        const others = areas.map((area) => Float32Array.from(area));
        sum(target * stride + from * 4, from * 4, stride, members, (to - from) * 4);
        areas.forEach((area, m) => assert.deepEqual(Float32Array.from(area), m === target ? expected : others[m]));
      }
    }
  }
});
