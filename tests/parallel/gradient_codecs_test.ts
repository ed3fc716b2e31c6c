/** Formats in fewer bytes, bit by bit against the same in plain JavaScript. */

import assert from "node:assert/strict";
import { blockLength, codecOf, type Compression, formats } from "../../parallel/gradient_codecs.ts";

/** What is lost is computed in f32, as everything. */
const { fround } = Math;

/** The even one of two equally near integers. */
function nearest(value: number): number {
  const low = Math.floor(value);
  const rest = value - low;
  return rest < 0.5 || (rest === 0.5 && low % 2 === 0) ? low : low + 1;
}

/** The nearest number with so many bits after the first one, at least `least` apart; ties to even. */
function roundTo(value: number, bits: number, least: number): number {
  if (value === 0 || !Number.isFinite(value)) return value;
  const step = Math.max(least, 2 ** (Math.floor(Math.log2(Math.abs(value))) - bits));
  return nearest(value / step) * step;
}

/** What becomes of a block, in plain JavaScript: what is decoded, and what is kept. */
type Reference = (values: Float32Array, residual: Float32Array) => { decoded: Float32Array; kept: Float32Array };

const largestOf = (values: Float32Array) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
const all = (value: number) => new Float32Array(blockLength).fill(value);

const references: Record<Compression, Reference> = {
  int8(values, residual) {
    const given = values.map((value, i) => value + residual[i]);
    const largest = largestOf(given);
    if (!(largest < 2 ** 127)) return { decoded: all(NaN), kept: all(0) };
    const tiny = largest < 2 ** -100;
    const [scale, inverse] = tiny ? [0, 0] : [fround(largest / 127), fround(127 / largest)];
    const decoded = given.map((value) => nearest(fround(value * inverse)) * scale);
    return { decoded, kept: given.map((value, i) => value - decoded[i]) };
  },
  f16(values, residual) {
    const largest = largestOf(values);
    if (!Number.isFinite(largest)) return { decoded: all(NaN), kept: residual };
    const exponent = largest === 0 ? -112 : Math.max(-112, Math.floor(Math.log2(largest)));
    const scale = 2 ** (exponent - 14);
    return { decoded: values.map((value) => roundTo(value / scale, 10, 2 ** -24) * scale), kept: residual };
  },
  bf16(values, residual) {
    // Beyond the largest bf16 comes infinity.
    const round = (value: number) => {
      const rounded = roundTo(value, 7, 2 ** -133);
      return Math.abs(rounded) >= 2 ** 128 ? Math.sign(value) * Infinity : rounded;
    };
    return { decoded: values.map(round), kept: residual };
  },
};

/** Blocks that try the formats: noise of all sizes, ties, extremes, what is not finite. */
function blocks(): Float32Array[] {
  const block = (of: (i: number) => number) => Float32Array.from({ length: blockLength }, (_, i) => of(i));
  let state = 1;
  const random = () => (state = (state * 16807) % 2147483647) / 2147483647;
  const noise = () => random() + random() + random() - 1.5;
  const ordinary = [-120, -99, -38, -20, -3, 0, 10, 30, 100, 126].map((exponent) =>
    block(() => noise() * 2 ** exponent)
  );
  return [
    ...ordinary,
    block(() => 0),
    block((i) => i % 2 === 0 ? 0 : -0),
    // Over 60 powers of two in one block, so that the small ones underflow in f16.
    block((i) => (1 + random()) * 2 ** (-i % 60) * (i % 3 === 0 ? -1 : 1)),
    // Ties of int8, whose scale is 1, and near ones.
    block((i) => i === 0 ? 127 : i / 2 - 63.5),
    block((i) => i === 9 ? -127 : i / 2 - 63.5 + 2 ** -17),
    // Ties of f16 and bf16 at both parities, up and down, and of f16 below its normal numbers.
    block((i) => (1 + (2 * i + 1) * 2 ** -11) * (i % 2 === 0 ? 1 : -1)),
    block((i) => 1 + (2 * i + 1) * 2 ** -8 + (i % 3 - 1) * 2 ** -20),
    block((i) => i === 0 ? 2 ** 14 : (i + 0.5) * 2 ** -24),
    // Just below the next power of two.
    block((i) => i === 0 ? 2 - 2 ** -23 : 1 - i * 2 ** -12),
    // The smallest and the largest of f32.
    block((i) => i * 2 ** -149),
    block((i) => (i % 2 === 0 ? 1 : -1) * 3.4028234663852886e38 / (1 + i % 5)),
    ...[NaN, -NaN, Infinity, -Infinity].flatMap((value) =>
      [0, 100, 255].map((at) => block((i) => i === at ? value : noise()))
    ),
  ];
}

/** Memory with places for blocks: values, residual, encoded, target. */
function memoryOf(count: number) {
  const memory = new WebAssembly.Memory({ initial: Math.ceil(count * 4 * 1024 / 65536) + 1 });
  const place = (i: number) => i * count * 1024 + 64;
  const view = (i: number) => new Float32Array(memory.buffer, place(i), count * blockLength);
  return { memory, place, view };
}

for (const compression of Object.keys(formats) as Compression[]) {
  Deno.test(`${compression} rounds each number to the nearest and keeps what is lost, as plain JavaScript does`, () => {
    const cases = blocks();
    // Each block goes through twice, the second time with what was lost the first time.
    const { memory, place, view } = memoryOf(cases.length);
    const { encode, add } = codecOf(memory, compression);
    cases.forEach((values, i) => view(0).set(values, i * blockLength));
    let residuals: Float32Array[] = cases.map(() => all(0));
    for (let turn = 0; turn < 2; turn++) {
      encode(place(0), place(1), place(2), cases.length);
      view(3).fill(0);
      add(place(2), place(3), cases.length);
      const expected = cases.map((values, i) => references[compression](values, residuals[i]));
      expected.forEach(({ decoded, kept }, i) => {
        /** Numbers, not bits: neither negative zero, which adding to zero takes away, nor NaN's payload counts. */
        const numbers = (values: Float32Array) => Array.from(values, (value) => value + 0);
        const part = (area: number) => numbers(view(area).subarray(i * blockLength, (i + 1) * blockLength));
        assert.deepEqual(part(3), numbers(decoded), `block ${i}, turn ${turn}`);
        assert.deepEqual(part(1), numbers(kept), `residual ${i}, turn ${turn}`);
        assert.ok(part(1).every(Number.isFinite));
        cases[i].forEach((value, j) => assert.ok(Number.isFinite(value) || !Number.isFinite(part(3)[j])));
      });
      residuals = expected.map(({ kept }) => kept);
    }
  });

  Deno.test(`${compression} adds to what is there, and writes nothing else`, () => {
    const count = 3;
    const { memory, place, view } = memoryOf(count + 1);
    const bytes = new Uint8Array(memory.buffer);
    const { encode, add } = codecOf(memory, compression);
    view(0).forEach((_, i) => view(0)[i] = Math.sin(i * 7));
    const used = count * formats[compression].blockBytes;
    bytes.fill(0xa5, place(2), place(3));
    encode(place(0), place(1), place(2), count);
    assert.ok(bytes.slice(place(2) + used, place(3)).every((byte) => byte === 0xa5));
    assert.ok(view(1).slice(count * blockLength).every((value) => value === 0));
    add(place(2), place(3), count);
    const decoded = view(3).slice();
    view(3).fill(1000);
    add(place(2), place(3), count);
    assert.deepEqual(
      view(3).slice(),
      decoded.map((value, i) => i < count * blockLength ? value + 1000 : 1000),
    );
    const before = bytes.slice();
    encode(place(0), place(1), place(2), 0);
    add(place(2), place(3), 0);
    assert.deepEqual(bytes, before);
  });
}
