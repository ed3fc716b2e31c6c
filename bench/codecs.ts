/**
 * `deno run -A bench/codecs.ts [--json]`: how fast gradients are encoded and decoded for the compressed all-reduce, beside a plain
 * copy and JavaScript, and below which speed of links it pays. GB/s of f32; the best of several rounds, since others disturb.
 */

import { parseArgs } from "node:util";
import { blockLength, codecOf, type Compression, formats } from "../parallel/gradient_codecs.ts";

/** f32 of a slice, which stays in the cache, and of the whole in shared memory, which does not. */
const [slice, whole] = [64 * 1024, 16 * 1024 * 1024];
const rounds = 12;

const shared = new WebAssembly.Memory({ initial: whole * 4 / 65536, maximum: whole * 4 / 65536, shared: true });
const data = new Float32Array(shared.buffer);
data.forEach((_, i) => data[i] = Math.sin(i) * 0.01);
const memory = new WebAssembly.Memory({ initial: 64 });
const [values, residual, encoded, sum] = [0, 1, 2, 3].map((i) => i * slice * 4);
const view = (place: number) => new Float32Array(memory.buffer, place, slice);
const blocks = slice / blockLength;

/** GB/s of `work`, which is done for each slice. */
function speed(work: (at: number) => void): number {
  let best = Infinity;
  for (let round = 0; round < rounds; round++) {
    const start = performance.now();
    for (let at = 0; at < whole; at += slice) work(at);
    best = Math.min(best, performance.now() - start);
  }
  return whole * 4 / best / 1e6;
}

const copy = speed((at) => view(values).set(data.subarray(at, at + slice)));
const integers = new Int8Array(slice);
const inJavaScript = speed((at) => {
  for (let block = 0; block < slice; block += blockLength) {
    let largest = 0;
    for (let i = block; i < block + blockLength; i++) largest = Math.max(largest, Math.abs(data[at + i]));
    const inverse = 127 / largest;
    for (let i = block; i < block + blockLength; i++) integers[i] = Math.round(data[at + i] * inverse);
  }
});

const rows = (Object.keys(formats) as Compression[]).map((compression) => {
  const { encode, add } = codecOf(memory, compression);
  const encoding = speed((at) => {
    view(values).set(data.subarray(at, at + slice));
    encode(values, residual, encoded, blocks);
  });
  const decoding = speed((at) => {
    view(sum).fill(0);
    add(encoded, sum, blocks);
    data.set(view(sum), at);
  });
  const adding = speed(() => add(encoded, sum, blocks));
  const ratio = formats[compression].blockBytes / (4 * blockLength);
  // Among two: all is encoded once and decoded once, half is added; half of the data is sent each time, twice.
  const secondsPerGigabyte = 1 / encoding + 1 / decoding + 0.5 / adding;
  return { compression, encoding, decoding, adding, ratio, pays: (1 - ratio) / secondsPerGigabyte };
});

if (parseArgs({ options: { json: { type: "boolean" } } }).values.json) {
  console.log(JSON.stringify({ deno: Deno.version.deno, load: Deno.loadavg(), copy, inJavaScript, rows }));
} else {
  console.log(
    `load ${Deno.loadavg()[0].toFixed(1)}; GB/s of f32: copy ${copy.toFixed(1)}, int8 encoded in JavaScript ${
      inJavaScript.toFixed(1)
    }`,
  );
  console.log("format  encode  decode     add   bytes   pays below, among two, in Gbit/s, even if nothing overlaps");
  for (const { compression, encoding, decoding, adding, ratio, pays } of rows) {
    const cells = [encoding, decoding, adding].map((value) => value.toFixed(1).padStart(8)).join("");
    console.log(`${compression.padEnd(6)}${cells}${ratio.toFixed(3).padStart(8)}${(8 * pays).toFixed(0).padStart(8)}`);
  }
}
