/** One link over several connections. */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import { MachineError } from "../../errors.ts";
import { pause } from "../../network/deadline.ts";
import { stripe } from "../../network/striped_link.ts";
import { carry, noise, plainPair } from "./link_pairs.ts";

async function stripedPair(count: number) {
  const pairs = await Promise.all(Array.from({ length: count }, () => plainPair()));
  return { pairs, a: stripe(pairs.map(([a]) => a)), b: stripe(pairs.map(([, b]) => b)) };
}

Deno.test("A striped link brings what was written, in whatever pieces, both ways at once, over 1 to 5 connections", async () => {
  // Around the unit that goes over one connection, and anything.
  const length = fc.oneof(
    fc.integer({ min: 1, max: 2000 }),
    fc.integer({ min: 262_142, max: 262_146 }),
    fc.nat(900_000),
  );
  const lengths = fc.array(length, { minLength: 1, maxLength: 6 }).map((all) => [...all, 50_000]);
  const property = fc.asyncProperty(
    fc.integer({ min: 1, max: 5 }),
    fc.nat(3_000_000),
    fc.tuple(lengths, lengths, lengths, lengths),
    async (count, total, [w1, r1, w2, r2]) => {
      const { a, b } = await stripedPair(count);
      const [there, back] = [noise(total, 3), noise(total >> 1, 5)];
      const got = await Promise.all([carry(a, b, there, w1, r1), carry(b, a, back, w2, r2)]);
      a.close();
      b.close();
      assert.ok(Buffer.from(got[0]).equals(there));
      assert.ok(Buffer.from(got[1]).equals(back));
    },
  );
  await fc.assert(property, { numRuns: 40 });
});

Deno.test("A striped link uses all its connections, and each end its own name for the peer", async () => {
  const { pairs, a, b } = await stripedPair(3);
  a.peer = "node 7";
  assert.deepEqual(pairs.map(([a]) => a.peer), ["node 7", "node 7", "node 7"]);
  assert.equal(a.peer, "node 7");
  assert.equal(b.peer, "peer a");
  const bytes = noise(3 * 262_144);
  const [, parts] = await Promise.all([
    a.write(bytes),
    Promise.all(pairs.map(async ([, b]) => {
      const part = new Uint8Array(262_144);
      await b.read(part);
      return part;
    })),
  ]);
  parts.forEach((part, i) => assert.ok(Buffer.from(part).equals(bytes.subarray(i * 262_144, (i + 1) * 262_144))));
  a.close();
  b.close();
});

Deno.test("A fault of one connection ends a striped link on both sides, with the first fault as the reason", async () => {
  const { pairs, a, b } = await stripedPair(3);
  await Promise.all([a.write(noise(1000)), b.read(new Uint8Array(1000))]);
  const failed = (promise: Promise<void>) => promise.then(() => assert.fail("It went on"), (error: Error) => error);
  const calls = [
    failed(b.read(new Uint8Array(5_000_000))),
    failed(a.read(new Uint8Array(5_000_000))),
  ];
  // Connection 1 is cut when it has carried a unit and more.
  await a.write(noise(1_100_000));
  await pause(20);
  pairs[1][0].close();
  const [read, own] = await Promise.all(calls);
  assert.ok(read instanceof MachineError && read.restartable);
  assert.match(
    read.message,
    /^(peer a ended the connection when \d+ of 262144 bytes had come|The connection to peer a broke)/,
  );
  assert.match(own.message, /The connection to peer b was closed here/);
  await assert.rejects(b.read(new Uint8Array(1)), (error) => error === read);
  await assert.rejects(b.write(new Uint8Array(1)), (error) => error === read);
  await assert.rejects(a.write(new Uint8Array(1)), (error) => error === own);
  a.close();
  b.close();
});

Deno.test("Closing a striped link ends what is under way on it", async () => {
  const { a, b } = await stripedPair(2);
  const reading = assert.rejects(b.read(new Uint8Array(1_000_000)), /The connections to peer a were closed here/);
  await pause(5);
  b.close();
  b.close();
  await reading;
  await assert.rejects(a.read(new Uint8Array(1)), /peer b (ended|broke)/);
  a.close();
});
