/** The model of links: its formulas, its limits, lanes beside each other, and how a link is written. */

import assert from "node:assert/strict";
import { UserError } from "../../errors.ts";
import {
  algorithmsFor,
  allReduceCost,
  type GradientCompression,
  idealLink,
  type LinkModel,
  parseLink,
  payloadShare,
  type PlannedAlgorithm,
  playLanes,
  wireShare,
} from "../../parallel/link_model.ts";

/** 1 Gbit/s and 100 µs, and a thread that is never the limit. */
const link: LinkModel = {
  bytesPerSecond: 125e6,
  latencySeconds: 80e-6,
  stepSeconds: 20e-6,
  threadBytesPerSecond: Infinity,
};
const algorithms = algorithmsFor("none");
const compressions = Object.keys(wireShare) as GradientCompression[];
const near = (actual: number, expected: number, share = 1e-9) =>
  assert.ok(Math.abs(actual / expected - 1) < share, `${actual} is not ${expected}`);

Deno.test("an all-reduce of one machine, and one over links that cost nothing, take no time", () => {
  for (const compression of compressions) {
    for (const algorithm of algorithmsFor(compression)) {
      assert.deepEqual(allReduceCost(algorithm, 1, 1e6, link), { seconds: 0, latencySeconds: 0, sentBytes: 0 });
      for (const machines of [2, 3, 8, 1000]) {
        assert.equal(allReduceCost(algorithm, machines, 1e6, idealLink, compression).seconds, 0);
      }
    }
  }
});

Deno.test("a ring sends 2 (n - 1) / n of the data at the rate of the line, doubling all of it log2 n times", () => {
  const bytes = 64 * 2 ** 20;
  for (const machines of [2, 3, 4, 8, 100]) {
    const { seconds, sentBytes } = allReduceCost("ring", machines, bytes, link);
    near(sentBytes, 2 * (machines - 1) / machines * bytes);
    // Large chunks follow each other without a pause.
    if (machines <= 8) near(seconds, sentBytes / 125e6 / payloadShare, 1e-3);
  }
  for (const [machines, sends, steps] of [[2, 1, 1], [4, 2, 2], [5, 3, 4], [8, 3, 3], [1000, 10, 11]]) {
    const { seconds, sentBytes, latencySeconds } = allReduceCost("doubling", machines, bytes, link);
    near(sentBytes, sends * bytes);
    // 256 slices of 256 KiB, each of which waits for its own messages.
    near(latencySeconds, steps * 256 * 80e-6);
    near(seconds, steps * (256 * 100e-6 + bytes / 125e6 / payloadShare));
  }
  // Halving sends as little as the ring in fewer steps; beyond a power of two all is sent there and back besides.
  for (const [machines, folded] of [[2, 0], [8, 0], [1024, 0], [3, 1], [1000, 1]]) {
    const power = 2 ** Math.floor(Math.log2(machines));
    const { seconds, sentBytes, latencySeconds } = allReduceCost("halving", machines, bytes, link);
    near(sentBytes, (2 * (power - 1) / power + folded) * bytes);
    const steps = 3 * (Math.log2(power) + folded);
    near(latencySeconds, steps * 80e-6);
    near(seconds - steps * 100e-6, (2 * (power - 1) / power + 2 * folded) * bytes / 125e6 / payloadShare);
  }
});

Deno.test("an all-reduce takes longer with more bytes, latency and machines, and less with more bandwidth", () => {
  for (const algorithm of algorithms) {
    const time = (machines: number, bytes: number, changed: Partial<LinkModel> = {}) =>
      allReduceCost(algorithm, machines, bytes, { ...link, ...changed }).seconds;
    for (const machines of [2, 4, 7, 64]) {
      for (const bytes of [4096, 2 ** 18, 2 ** 20, 2 ** 25]) {
        const usual = time(machines, bytes);
        assert.ok(time(machines, 2 * bytes) > usual);
        assert.ok(time(machines, bytes, { latencySeconds: 1e-3 }) > usual);
        assert.ok(time(machines, bytes, { bytesPerSecond: 250e6 }) < usual);
        assert.ok(time(2 * machines, bytes) > usual);
        // The slower of line and thread decides.
        assert.equal(time(machines, bytes, { threadBytesPerSecond: 1e12 }), usual);
        assert.ok(time(machines, bytes, { threadBytesPerSecond: 1e7 }) > usual);
      }
    }
  }
});

Deno.test("doubling is faster for little among many machines, the ring for much", () => {
  const time = (algorithm: PlannedAlgorithm, bytes: number, machines = 64) =>
    allReduceCost(algorithm, machines, bytes, link).seconds;
  assert.ok(time("doubling", 4096) < time("ring", 4096) / 10);
  assert.ok(time("ring", 2 ** 26) < time("doubling", 2 ** 26) / 2);
  // What is compressed takes as much less as it is smaller, where the line decides.
  for (const compression of ["f16", "bf16", "int8"] as const) {
    const { seconds, sentBytes } = allReduceCost("exchange", 4, 2 ** 26, link, compression);
    near(sentBytes, wireShare[compression] * 1.5 * 2 ** 26);
    near(seconds, wireShare[compression] * time("ring", 2 ** 26, 4), 0.1);
    // Messages to each of very many others cost more than they save.
    assert.ok(allReduceCost("exchange", 1000, 2 ** 20, link, compression).seconds > time("halving", 2 ** 20, 1000));
  }
});

Deno.test("lanes take turns with themselves and share the link with each other", () => {
  const cost = (bytes: number) => ({ seconds: 1 + bytes, latencySeconds: 1 });
  const play = (...lanes: { ready: number; bytes: number }[][]) => playLanes(lanes, cost);
  // One after another, however early the second is ready.
  assert.deepEqual(play([{ ready: 2, bytes: 3 }, { ready: 3, bytes: 1 }]), { ends: [[6, 8]], busy: 6 });
  // A pause between two does not count as busy.
  assert.deepEqual(play([{ ready: 0, bytes: 1 }, { ready: 10, bytes: 1 }]), { ends: [[2, 12]], busy: 4 });
  // Two at once: each has half of the link until the first is done; latencies pass side by side.
  assert.deepEqual(play([{ ready: 0, bytes: 2 }], [{ ready: 0, bytes: 3 }]), { ends: [[5], [6]], busy: 6 });
  assert.deepEqual(play([{ ready: 0, bytes: 2 }], [{ ready: 0, bytes: 0 }]), { ends: [[3], [1]], busy: 3 });
  assert.deepEqual(play([], [{ ready: 1, bytes: 0 }]), { ends: [[], [2]], busy: 1 });
  const free = playLanes([[{ ready: 4, bytes: 9 }, { ready: 5, bytes: 9 }]], () => ({ seconds: 0, latencySeconds: 0 }));
  assert.deepEqual(free, { ends: [[4, 5]], busy: 0 });
});

Deno.test("many lanes with odd numbers carry out all they have, and the link never does more than it can", () => {
  const lanes = Array.from(
    { length: 16 },
    (_, i) =>
      Array.from(
        { length: 20 },
        (_, j) => ({ ready: Math.sin(i * 20 + j) ** 2 + j / 7, bytes: 1 + (i * 7 + j * 3) % 11 }),
      ),
  );
  lanes.forEach((lane) => lane.sort((a, b) => a.ready - b.ready));
  const cost = (bytes: number) => ({ seconds: bytes / 300 + 1e-3, latencySeconds: 1e-3 });
  const { ends, busy } = playLanes(lanes, cost);
  assert.deepEqual(ends.map(({ length }) => length), lanes.map(({ length }) => length));
  const work = lanes.flat().reduce((sum, { bytes }) => sum + bytes / 300, 0);
  const end = Math.max(...ends.flat());
  assert.ok(busy >= work && busy <= end, `${work} of work, ${busy} busy until ${end}`);
  ends.forEach((lane, i) =>
    lane.forEach((end, j) => assert.ok(end >= lanes[i][j].ready + cost(lanes[i][j].bytes).seconds - 1e-9))
  );
});

Deno.test("a link is a rate and a latency, each with its unit; what is wrong is said", () => {
  const read = (text: string) => {
    const { bytesPerSecond, latencySeconds, threadBytesPerSecond } = parseLink(text);
    return [bytesPerSecond, latencySeconds, threadBytesPerSecond].map((value) => Number(value.toPrecision(6)));
  };
  assert.deepEqual(read("25Gbit,30us"), [3.125e9, 30e-6, 12e8]);
  assert.deepEqual(read("100 Mbit , 1.5 ms"), [12.5e6, 1.5e-3, 12e8]);
  assert.deepEqual(read("10Gbps,20µs,2GB/s"), [1.25e9, 20e-6, 2e9]);
  assert.deepEqual(read("1.2gb/s,0us"), [1.2e9, 0, 12e8]);
  for (
    const [text, message] of [
      ["25Gbit", /--link is "25Gbit", which has no latency: write .* like 25Gbit,30us/],
      ["30us,25Gbit", /"30us" is no rate/],
      ["25,30us", /"25" is no rate/],
      ["25GB,30us", /"25GB" is no rate/],
      ["25Gbit,30", /"30" is no time/],
      ["25Gbit,-3us", /"-3us" is no time/],
      ["0Gbit,3us", /nothing could be sent/],
      ["1Gbit,20s", /more than ten seconds/],
      ["1Gbit,2us,3Gbit,4", /more than three parts/],
      ["", /has no latency/],
    ] as const
  ) {
    assert.throws(() => parseLink(text), (error) => error instanceof UserError && message.test(error.message), text);
  }
});
