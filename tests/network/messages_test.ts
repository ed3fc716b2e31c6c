import assert from "node:assert/strict";
import { encode } from "@msgpack/msgpack";
import fc from "fast-check";
import { helloSchema, type HostSays, hostSchema, joinSchema, sizeMost } from "../../network/gathering.ts";
import { messageBytes, ownBytes, receiveMessage, type Schema, sendMessage } from "../../network/messages.ts";
import type { Link } from "../../network/link.ts";
import { plainPair } from "./link_pairs.ts";

const join = {
  place: { machine: "m", hostname: "::1", port: 5 },
  rank: 1,
  size: 3,
  least: 2,
  last: null,
  description: { model: "abc" },
  facts: {},
  lanes: 1,
};

/** A link from which some bytes can be read. */
function reading(bytes: Uint8Array): Link {
  let at = 0;
  return {
    peer: "node 7",
    write: () => Promise.reject(new Error("not for writing")),
    read: (target) => {
      if (at + target.length > bytes.length) return Promise.reject(new Error("at the end"));
      target.set(bytes.subarray(at, at += target.length));
      return Promise.resolve();
    },
    close: () => {},
  };
}

function framed(body: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(4 + body.length);
  new DataView(bytes.buffer).setUint32(0, body.length);
  bytes.set(body, 4);
  return bytes;
}

Deno.test("messages arrive as they were sent, the longest too", async () => {
  const [a, b] = await plainPair();
  const place = { machine: "m".repeat(255), hostname: "f".repeat(255), port: 65535 };
  const facts = Object.fromEntries(Array.from({ length: 16 }, (_, i) => [`${i}`.repeat(32), "x".repeat(256)]));
  const members = Array.from({ length: sizeMost }, () => ({ place, facts, survivor: false }));
  const membership = { world: "0".repeat(32), number: 2 ** 48, rank: sizeMost - 1, members, lanes: 1024 };
  const invitation: HostSays = { kind: "invited", membership };
  const [first, second] = await Promise.all([
    receiveMessage(b, joinSchema).then(async (one) => [one, await receiveMessage(b, hostSchema)]),
    sendMessage(a, join).then(() => sendMessage(a, invitation)),
  ]).then(([both]) => both);
  assert.deepEqual(first, join);
  assert.deepEqual(second, invitation);
  await assert.rejects(sendMessage(a, "x".repeat(messageBytes)), RangeError);
  a.close();
  b.close();
});

Deno.test("all that a node may say of itself, in any letters, is within the limit for it", async () => {
  const texts = (count: number, name: number, length: number) =>
    Object.fromEntries(
      Array.from({ length: count }, (_, i) => [`${i}`.padStart(name, "界"), "界".repeat(length)]),
    );
  const place = { machine: "界".repeat(255), hostname: "界".repeat(255), port: 65535 };
  const largest = { ...join, place, description: texts(64, 64, 1024), facts: texts(16, 64, 256) };
  const hello = { kind: "join" as const, join: largest };
  assert.deepEqual(await receiveMessage(reading(framed(encode(hello))), helloSchema, ownBytes), hello);
  const nested = new Uint8Array(ownBytes + 1).fill(0x91);
  await assert.rejects(receiveMessage(reading(framed(nested)), helloSchema, ownBytes), /at most 262144 are allowed/);
});

Deno.test("a message beyond the limit is refused before it is read", async () => {
  const bytes = new Uint8Array([1, 0, 0, 1]);
  await assert.rejects(
    receiveMessage(reading(bytes), joinSchema),
    /^MachineError: node 7 announced a message of 16777217 bytes; at most 16777216 are allowed$/,
  );
});

Deno.test("what breaks the schema is refused with what was expected", async () => {
  const cases: [unknown, RegExp][] = [
    [{ ...join, place: { ...join.place, port: 0 } }, /place: port: a whole number from 1 to 65535/],
    [{ ...join, place: { ...join.place, port: 1.5 } }, /port: a whole number/],
    [{ ...join, rank: "1" }, /rank: a whole number from 0 to/],
    [{ ...join, place: { ...join.place, machine: "m".repeat(256) } }, /machine: a text of at most 255/],
    [{ ...join, description: { model: 5 } }, /description: a text of at most 1024/],
    [{ ...join, description: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`${i}`, ""])) }, /at most 64/],
    [{ ...join, description: [] }, /description: an object/],
    [{ ...join, more: 1 }, /exactly the fields place, rank, size/],
    [{ rank: 1 }, /exactly the fields/],
    [null, /an object was expected/],
    [new Date(), /.*/],
  ];
  for (const [value, message] of cases) {
    await assert.rejects(receiveMessage(reading(framed(encode(value))), joinSchema), (error: Error) => {
      assert.match(error.message, /^node 7 sent a message that this process does not understand: /);
      return message.test(error.message);
    });
  }
});

Deno.test("of several kinds of messages the one is checked that it says it is", async () => {
  const receive = (value: unknown) => receiveMessage(reading(framed(encode(value))), helloSchema);
  const link = { kind: "link", world: "w", from: 1, to: 0, lane: 2 };
  assert.deepEqual(await receive(link), link);
  assert.deepEqual(await receive({ kind: "join", join }), { kind: "join", join });
  await assert.rejects(receive({ kind: "join" }), /exactly the fields join were expected/);
  await assert.rejects(receive({ ...link, kind: "join" }), /exactly the fields join were expected/);
  await assert.rejects(receive({ ...link, lane: -1 }), /lane: a whole number from 0 to 1024 was expected/);
  for (const kind of ["toString", "__proto__", 5, undefined]) {
    await assert.rejects(receive({ ...link, kind }), /one of the kinds join, link, knock was expected/);
  }
});

Deno.test("whatever bytes come, either they are a message or the error says they are none", async () => {
  const schemas: Schema<unknown>[] = [joinSchema, helloSchema, hostSchema];
  const someJoin = fc.record({ ...Object.fromEntries(Object.keys(join).map((key) => [key, fc.anything()])) });
  const bodies = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    someJoin.map((value) => {
      try {
        return encode(value);
      } catch {
        return new Uint8Array(0);
      }
    }),
  );
  await fc.assert(
    fc.asyncProperty(bodies, fc.constantFrom(...schemas), async (body, schema) => {
      const outcome = await receiveMessage(reading(framed(body)), schema).catch((error) => error);
      if (outcome instanceof Error) assert.equal(outcome.name, "MachineError");
    }),
    { numRuns: 1000 },
  );
});
