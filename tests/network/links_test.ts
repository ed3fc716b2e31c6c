import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { MachineError } from "../../errors.ts";
import { AuthenticatedLink } from "../../network/authenticated_link.ts";
import { pause } from "../../network/deadline.ts";
import { type SystemSocket, systemSocket } from "../../network/system_socket.ts";
import { carry, handshakenPair, identity, noise, plainPair, relayTo, tlsPair } from "./link_pairs.ts";

const cuts: [number[], number[]][] = [
  [[1 << 23], [1 << 23]],
  [[1 << 20, 1, 0, 70_000], [999_983]],
  [[3_000_000], [1, 65_536, 2_000_003]],
  [[65_536, 65_537], [4096, 0, 12]],
];

/** A connection's own socket, which often does nothing and moves little: so bytes go now this way, now that. */
function stingySocket(connection: Deno.TcpConn): SystemSocket | undefined {
  const socket = systemSocket(connection);
  if (!socket) return undefined;
  const whims = noise(1000, connection.localAddr.port);
  let call = 0;
  const whim = () => whims[call++ % whims.length];
  return {
    send: (source) => whim() > 2 ? 0 : socket.send(source.subarray(0, 1 + 300 * whim())),
    receive: (target) => whim() > 2 ? 0 : socket.receive(target.subarray(0, 1 + 300 * whim())),
  };
}

Deno.test("links bring what was written, in whatever pieces, both ways at once, into and out of shared memory", async () => {
  const { opener, acceptor, close } = await handshakenPair();
  const plain = [await plainPair(), await plainPair(() => undefined), await plainPair(stingySocket)];
  const tls = await tlsPair(identity("alpha"), identity("beta"));
  for (const [one, other] of [...plain, tls, [opener, acceptor]] as const) {
    for (const [i, [writes, reads]] of cuts.entries()) {
      const [there, back] = [noise(5_000_003, i + 1), noise(2_500_001, i + 11)];
      const shared = new Uint8Array(new SharedArrayBuffer(there.length));
      shared.set(there);
      const got = await Promise.all([
        carry(one, other, shared, writes, reads),
        carry(other, one, back, reads.filter((length) => length > 100 || length === 0), writes),
      ]);
      assert.ok(Buffer.from(got[0]).equals(there), `there, case ${i}`);
      assert.ok(Buffer.from(got[1]).equals(back), `back, case ${i}`);
    }
  }
  for (const link of [...plain.flat(), ...tls]) link.close();
  close();
});

Deno.test("a cut within a message is an error that names the peer and what had come", async () => {
  const [a, b] = await plainPair();
  await a.write(noise(100));
  a.close();
  await assert.rejects(
    b.read(new Uint8Array(4096)),
    (error: Error) =>
      error instanceof MachineError && error.restartable &&
      error.message === "peer a ended the connection when 100 of 4096 bytes had come",
  );
  b.close();
});

Deno.test("closing a link ends what is under way on it, and closing again does nothing", async () => {
  // Read at once, after a moment, and when it has long been waiting; on a link that has been used and on a fresh one.
  for (const used of [false, true]) {
    for (const milliseconds of [0, 1, 20]) {
      const [a, b] = await plainPair();
      if (used) await Promise.all([a.write(noise(100)), b.write(noise(9)), b.read(new Uint8Array(100))]);
      const reading = assert.rejects(b.read(new Uint8Array(1)), /The connection to peer a was closed here/);
      await (milliseconds === 0 ? Promise.resolve() : pause(milliseconds));
      b.close();
      b.close();
      await reading;
      a.close();
      await assert.rejects(a.write(noise(1)), /The connection to peer b was closed here/);
      await assert.rejects(b.read(noise(1)), /The connection to peer a was closed here/);
    }
  }
});

Deno.test("a link whose writer waits for room ends when either end is closed", async () => {
  for (const own of [true, false]) {
    const [a, b] = await plainPair();
    // More than the system holds for a reader that does not read.
    const writing = assert.rejects(
      a.write(noise(64 << 20)),
      own ? /The connection to peer b was closed here/ : /The connection to peer b broke/,
    );
    await pause(20);
    (own ? a : b).close();
    await writing;
    (own ? b : a).close();
  }
});

Deno.test("tags of frames are those of ChaCha20-Poly1305 for the frame's number", async () => {
  const [a, b] = await plainPair();
  const link = new AuthenticatedLink(a, {
    sending: new Uint8Array(32).fill(7),
    receiving: new Uint8Array(32).fill(8),
  });
  const bytes = Uint8Array.from({ length: 1000 }, (_, i) => i);
  // By Python's `cryptography`: ChaCha20Poly1305(key).encrypt(nonce, b"", bytes).
  for (const tag of ["1811efbc02cb56468576c3bc6d425261", "f2b5172a5247aee11edb4939b32e9eb8"]) {
    await link.write(bytes);
    const frame = new Uint8Array(1020);
    await b.read(frame);
    assert.equal(frame.subarray(0, 4).toHex(), "000003e8");
    assert.equal(frame.subarray(4, 20).toHex(), tag);
    assert.deepEqual(frame.subarray(20), bytes);
  }
  link.close();
  b.close();
});

function flipped(frame: Uint8Array, at: number): Uint8Array {
  const copy = frame.slice();
  copy[at] ^= 1;
  return copy;
}

const changed = /^MachineError: A frame from .* was changed, repeated or moved on its way: the link is ended$/;
/** What the relay makes of two frames of as many bytes, how many frames are whole, and the error for the next. */
const attacks: Record<string, [(frames: [Uint8Array, Uint8Array]) => (Uint8Array | null)[], number, RegExp]> = {
  "a byte is changed": [([a, b]) => [flipped(a, 500), b], 0, changed],
  "the last byte of the second frame is changed": [([a, b]) => [a, flipped(b, b.length - 1)], 1, changed],
  "a tag is changed": [([a, b]) => [flipped(a, 4), b], 0, changed],
  "a length is changed": [([a, b]) => [flipped(a, 3), b], 0, changed],
  "a length is beyond the limit": [
    ([a, b]) => [flipped(a, 0), b],
    0,
    /^MachineError: A frame of 16778216 bytes came from .*, which none may have/,
  ],
  "a frame is repeated": [([a, b]) => [a, a, b], 1, changed],
  "frames change places": [([a, b]) => [b, a], 0, changed],
  "a frame is left out": [([, b]) => [b], 0, changed],
  "the connection is cut within a frame": [
    ([a, b]) => [a, b.subarray(0, 321), null],
    1,
    /^MachineError: .* (ended the connection when 301 of 1000 bytes had come|broke)/,
  ],
  "the connection is cut between frames": [
    ([a]) => [a, null],
    1,
    /^MachineError: .* (ended the connection when 0 of 20 bytes|broke)/,
  ],
};

for (const [name, [attack, whole, message]] of Object.entries(attacks)) {
  Deno.test(`an authenticated link ends when ${name}; what came whole before is right`, async () => {
    const { opener, acceptor, close } = await handshakenPair((listener) => relayTo(listener.port, attack));
    const sent = [noise(1000, 1), noise(1000, 2)];
    for (const bytes of sent) await opener.write(bytes);
    const target = new Uint8Array(1000);
    for (let i = 0; i < whole; i++) {
      await acceptor.read(target);
      assert.deepEqual(target, sent[i]);
    }
    await assert.rejects(acceptor.read(target), message);
    // It does not come back to life.
    await assert.rejects(acceptor.read(target), message);
    await assert.rejects(acceptor.write(target), message);
    close();
  });
}

Deno.test("the two directions have different keys: a frame sent back to its sender is refused", async () => {
  const [a, between] = await plainPair();
  const keys = { sending: new Uint8Array(32).fill(1), receiving: new Uint8Array(32).fill(2) };
  const link = new AuthenticatedLink(a, keys);
  await link.write(noise(50));
  const frame = new Uint8Array(70);
  await between.read(frame);
  await between.write(frame);
  await assert.rejects(link.read(new Uint8Array(50)), changed);
  between.close();
});
