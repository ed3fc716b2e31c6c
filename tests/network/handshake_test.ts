import assert from "node:assert/strict";
import { connect } from "../../network/listener.ts";
import { inSeconds, pause } from "../../network/deadline.ts";
import { admit, introduce, protocolVersion } from "../../network/handshake.ts";
import { PlainLink } from "../../network/plain_link.ts";
import { readSecret } from "../../network/secret.ts";
import { connectionPair, group, handshakeBytes, noise, open, openListener, relayTo, secret } from "./link_pairs.ts";

const other = new TextEncoder().encode("another secret, just as long as it");

/** A bare connection to a port of loopback. */
function bare(port: number): Promise<Deno.TcpConn> {
  return Deno.connect({ hostname: "127.0.0.1", port });
}

/** All that comes until the other side ends the connection. */
async function rest(connection: Deno.TcpConn): Promise<Uint8Array> {
  const parts: number[] = [];
  const piece = new Uint8Array(4096);
  try {
    for (let count; (count = await connection.read(piece)) !== null;) parts.push(...piece.subarray(0, count));
  } catch {
    // a reset ends it as well
  }
  connection.close();
  return new Uint8Array(parts);
}

/** A listener that answers one connection by `answer`. */
function impostor(answer: (connection: Deno.TcpConn) => Promise<unknown>): { port: number; close: () => void } {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  (async () => {
    const connection = await listener.accept();
    await answer(connection).catch(() => {});
    connection.close();
  })().catch(() => {});
  return { port: listener.addr.port, close: () => listener.close() };
}

async function eventually(what: () => boolean): Promise<void> {
  for (let i = 0; i < 200 && !what(); i++) await pause(10);
  assert.ok(what());
}

Deno.test("who has another secret, another group, or none is refused by both sides, and the next is let in", async () => {
  const { listener, refusals, accepted } = await openListener();
  const refused = /^UserError: the listener .* has another shared secret, or belongs to another group than/;
  await assert.rejects(open(listener.port, { secret: other }), refused);
  await assert.rejects(open(listener.port, { group: "another run" }), refused);
  await assert.rejects(open(listener.port, { secret: undefined }), refused);
  await eventually(() => refusals.length === 3);
  for (const refusal of refusals) assert.match(refusal, /^Refused a connection: 127\.0\.0\.1:\d+ has another shared/);
  const [a, b] = await Promise.all([open(listener.port), accepted()]);
  await a.write(noise(10));
  await b.read(new Uint8Array(10));
  for (const end of [a, b, listener]) end.close();
});

Deno.test("for a stranger no socket is looked up among the descriptors", async () => {
  for (const [theirs, expected] of [[other, 0], [secret, 1]] as const) {
    const [near, far] = await connectionPair();
    let looked = 0;
    const listener = new PlainLink(near, "the opener", () => void looked++);
    const opener = new PlainLink(far, "the listener");
    const outcomes = await Promise.allSettled([
      admit(listener, { secret, group }),
      introduce(opener, { secret: theirs, group }),
    ]);
    for (const { status } of outcomes) assert.equal(status, expected ? "fulfilled" : "rejected");
    assert.equal(looked, expected);
    for (const link of [listener, opener]) link.close();
  }
});

Deno.test("another version of the protocol is told and told of", async () => {
  const { listener, refusals } = await openListener();
  const connection = await bare(listener.port);
  const opening = new Uint8Array(44);
  opening.set(new TextEncoder().encode("MUSTERLK"));
  opening[11] = protocolVersion + 1;
  await connection.write(opening);
  const answer = await rest(connection);
  assert.equal(answer.length, 44);
  assert.equal(answer[11], protocolVersion);
  assert.match(refusals[0], /speaks version 3 of Muster's protocol, this process version 2/);
  listener.close();
  const old = impostor((connection) => connection.write(opening).then(() => connection.read(new Uint8Array(99))));
  await assert.rejects(open(old.port), /^UserError: the listener .* speaks version 3 .*, this process version 2/);
  old.close();
});

Deno.test("other programs get nothing and are reported; who opens to another program is told", async () => {
  const { listener, refusals } = await openListener();
  const openings = ["GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n", noise(44), noise(100_000)];
  for (const opening of openings) {
    const connection = await bare(listener.port);
    await connection.write(typeof opening === "string" ? new TextEncoder().encode(opening) : opening);
    assert.equal((await rest(connection)).length, 0);
  }
  await eventually(() => refusals.length === 3);
  for (const refusal of refusals) assert.match(refusal, /does not speak Muster's protocol$/);
  listener.close();
  const web = impostor((connection) =>
    connection.write(
      new TextEncoder().encode("HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"),
    )
  );
  await assert.rejects(open(web.port), /^UserError: What answers at the listener \(127.0.0.1:\d+\) is not Muster/);
  web.close();
});

Deno.test("a listener that sends the opener's own words back is not believed", async () => {
  const mirror = impostor(async (connection) => {
    const bytes = new Uint8Array(44);
    for (let i = 0; i < 2; i++) {
      const count = await connection.read(bytes);
      await connection.write(bytes.subarray(0, count ?? 0));
    }
    await connection.read(bytes);
  });
  const link = new PlainLink(await bare(mirror.port), "the mirror");
  await assert.rejects(introduce(link, { secret, group }), /^UserError: the mirror has another shared secret/);
  link.close();
  mirror.close();
});

Deno.test("what was recorded of one connection does not open another", async () => {
  const { listener, refusals, accepted } = await openListener();
  const relay = relayTo(listener.port, (frames) => frames);
  const [a, b] = await Promise.all([open(relay.port), accepted()]);
  await a.write(noise(100));
  await a.write(noise(100));
  await b.read(new Uint8Array(200));
  for (const end of [a, b, relay]) end.close();
  const recorded = new Uint8Array(relay.recorded.flatMap((bytes) => [...bytes]));
  assert.ok(recorded.length > handshakeBytes);
  const connection = await bare(listener.port);
  await connection.write(recorded);
  // The listener's opening, and zeros in place of a proof.
  const answer = await rest(connection);
  assert.ok(answer.subarray(44).every((byte) => byte === 0));
  await eventually(() => refusals.length === 1);
  assert.match(refusals[0], /has another shared secret/);
  listener.close();
});

Deno.test("a slow opener is cut off at the deadline, however it drips", async () => {
  const { listener, refusals, accepted } = await openListener({ openingSeconds: 0.4 });
  const connection = await bare(listener.port);
  const start = performance.now();
  const ended = rest(connection).then(() => performance.now() - start);
  const opening = new TextEncoder().encode("MUSTERLK");
  for (let i = 0; i < 6; i++) {
    await connection.write(opening.subarray(i, i + 1));
    await pause(50);
  }
  const [a, b] = await Promise.all([open(listener.port), accepted()]);
  const seconds = await ended / 1000;
  assert.ok(seconds > 0.35 && seconds < 2, `${seconds} s`);
  assert.match(refusals[0], /did not prove itself within 0\.4 s$/);
  for (const end of [a, b, listener]) end.close();
});

Deno.test("idle openers are bounded, and do not keep others out", async () => {
  const { listener, refusals, accepted } = await openListener({ openersMost: 4 });
  const idle = [];
  for (let i = 0; i < 20; i++) idle.push(await bare(listener.port));
  await eventually(() => refusals.length === 16);
  assert.match(refusals[0], /had not proven itself when 4 more came$/);
  const [a, b] = await Promise.all([open(listener.port), accepted()]);
  assert.equal(refusals.length, 17);
  for (const end of [a, b, listener]) end.close();
  await Promise.all(idle.map(rest));
});

Deno.test("more who come at once than may be at it all get in: those put out try again", async () => {
  const { listener, accepted } = await openListener({ openersMost: 8 });
  const links = Array.from({ length: 60 }, () => [open(listener.port), accepted()]).flat();
  for (const link of await Promise.all(links)) link.close();
  listener.close();
});

Deno.test("without a secret only loopback is listened on and connected to", async () => {
  const alone = /^UserError: Without a shared secret only loopback addresses are allowed, and .* is none; give every/;
  for (const hostname of ["0.0.0.0", "10.1.2.3", "::"]) {
    await assert.rejects(openListener({ hostname, secret: undefined }), alone);
    const to = connect("node 1", { hostname, port: 9 }, { secret: undefined, group, deadline: inSeconds(1) });
    await assert.rejects(to, alone);
  }
  const { listener, accepted } = await openListener({ hostname: "localhost", secret: undefined });
  const [a, b] = await Promise.all([open(listener.port, { secret: undefined }), accepted()]);
  assert.ok(a instanceof PlainLink && b instanceof PlainLink);
  for (const end of [a, b, listener]) end.close();
});

Deno.test("only the given interface is listened on", async () => {
  const { listener } = await openListener({ hostname: "127.0.0.2" });
  assert.equal(listener.hostname, "127.0.0.2");
  await assert.rejects(bare(listener.port), /refused/);
  listener.close();
});

Deno.test("who cannot be reached in time is named, with what happened last", async () => {
  const gone = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  gone.close();
  await assert.rejects(
    open(gone.addr.port, { seconds: 0.3 }),
    /^MachineError: the listener \(127\.0\.0\.1:\d+\) could not be reached in 0\.[3-9] s; .* ended with: .*refused/,
  );
  const silent = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  await assert.rejects(
    open(silent.addr.port, { seconds: 0.3 }),
    /^MachineError: .* something answered, but said nothing/,
  );
  (await silent.accept()).close();
  silent.close();
});

Deno.test("readSecret() takes a private file or the environment, and refuses what others can read or guess", () => {
  const file = Deno.makeTempFileSync();
  const before = Deno.env.get("MUSTER_SECRET");
  try {
    Deno.writeTextFileSync(file, "0123456789abcdef\n");
    Deno.chmodSync(file, 0o600);
    assert.equal(new TextDecoder().decode(readSecret(file)), "0123456789abcdef");
    Deno.chmodSync(file, 0o440);
    assert.ok(readSecret(file));
    Deno.chmodSync(file, 0o600);
    Deno.writeFileSync(file, new Uint8Array([10, 32, ...noise(32), 13, 10]));
    assert.deepEqual(readSecret(file), noise(32));
    for (const mode of [0o604, 0o644, 0o602]) {
      Deno.chmodSync(file, mode);
      assert.throws(() => readSecret(file), /^UserError: The secret file .* is open to every user .* chmod 600/);
    }
    Deno.chmodSync(file, 0o600);
    Deno.writeTextFileSync(file, "  short  \n");
    assert.throws(() => readSecret(file), /^UserError: The secret in .* has 5 bytes, but needs 16/);
    assert.throws(() => readSecret(`${file}.none`), /^UserError: The secret file .* cannot be read/);
    Deno.env.delete("MUSTER_SECRET");
    assert.equal(readSecret(), undefined);
    Deno.env.set("MUSTER_SECRET", "fedcba9876543210");
    assert.equal(new TextDecoder().decode(readSecret()), "fedcba9876543210");
    Deno.env.set("MUSTER_SECRET", "");
    assert.throws(() => readSecret(), /^UserError: The secret in MUSTER_SECRET has 0 bytes/);
  } finally {
    Deno.removeSync(file);
    if (before === undefined) Deno.env.delete("MUSTER_SECRET");
    else Deno.env.set("MUSTER_SECRET", before);
  }
});
