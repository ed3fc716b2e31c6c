import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { inSeconds, pause } from "../../network/deadline.ts";
import { connect } from "../../network/listener.ts";
import { PlainLink } from "../../network/plain_link.ts";
import { Node, type NodeOptions } from "../../network/node.ts";
import { faultOf, readTlsIdentity } from "../../network/tls_identity.ts";
import { TlsLink } from "../../network/tls_link.ts";
import { withFolder } from "../folder.ts";
import { connectionPair, group, identity, noise, open, openListener, secret, tlsPair } from "./link_pairs.ts";

const [alpha, beta] = [identity("alpha"), identity("beta")];
const bare = (port: number) => Deno.connect({ hostname: "127.0.0.1", port });

async function eventually(what: () => boolean): Promise<void> {
  for (let i = 0; i < 300 && !what(); i++) await pause(10);
  assert.ok(what());
}

/** Sees that members still get in, and closes all. */
async function goesOn({ listener, accepted }: Awaited<ReturnType<typeof openListener>>, tls = beta): Promise<void> {
  const [a, b] = await Promise.all([open(listener.port, { tls }), accepted()]);
  await a.write(noise(10));
  const target = new Uint8Array(10);
  await b.read(target);
  assert.deepEqual(target, noise(10));
  for (const end of [a, b, listener]) end.close();
}

Deno.test("members with certificates of one authority are let in, with a secret and without, by keys of any kind", async () => {
  for (const given of [secret, undefined]) {
    const opened = await openListener({ tls: alpha, secret: given });
    for (const name of ["beta", "alpha", "rsa", "ed25519", "version1"]) {
      const terms = { tls: identity(name), secret: given };
      const [a, b] = await Promise.all([open(opened.listener.port, terms), opened.accepted()]);
      // TLS keeps the bytes; they are not tagged as well.
      assert.ok(a instanceof TlsLink && b instanceof TlsLink);
      assert.ok(a.binding.length >= 32);
      assert.deepEqual(a.binding, b.binding);
      await b.write(noise(100));
      await a.read(new Uint8Array(100));
      for (const end of [a, b]) end.close();
    }
    assert.deepEqual(opened.refusals, []);
    opened.listener.close();
  }
});

Deno.test("listeners with keys of each kind are accepted", async () => {
  for (const name of ["rsa", "ed25519", "version1"]) await goesOn(await openListener({ tls: identity(name) }));
});

Deno.test("openers whose certificates do not do are refused, each side is told why, and others get in", async () => {
  const opened = await openListener({ tls: alpha });
  const { port } = opened.listener;
  const told =
    /^UserError: the listener .* does not accept this machine's certificate: do both have the same authority\?$/;
  await assert.rejects(open(port, { tls: { ...identity("stranger"), authority: alpha.authority } }), told);
  await assert.rejects(open(port, { tls: identity("expired") }), told);
  // One who does not accept the listener's.
  await assert.rejects(
    open(port, { tls: identity("stranger", { authority: "other" }) }),
    /^UserError: The certificate of the listener .* is not signed by the authority in --tls-ca$/,
  );
  await eventually(() => opened.refusals.length === 3);
  const of = "^Refused a connection: The certificate of 127\\.0\\.0\\.1:\\d+";
  assert.match(opened.refusals[0], new RegExp(`${of} is not signed by the authority in --tls-ca$`));
  assert.match(opened.refusals[1], new RegExp(`${of} expired on 2021-01-01$`));
  await goesOn(opened);
});

Deno.test("an expired or a foreign listener is refused by openers, and learns of it", async () => {
  const cases: [string, RegExp][] = [["expired", /expired on 2021-01-01$/], [
    "stranger",
    /is not signed by the authority/,
  ]];
  for (const [name, reason] of cases) {
    const { listener, refusals } = await openListener({ tls: { ...identity(name), authority: alpha.authority } });
    await assert.rejects(open(listener.port, { tls: beta }), reason);
    await eventually(() => refusals.length === 1);
    assert.match(refusals[0], /127\.0\.0\.1:\d+ does not accept this machine's certificate/);
    listener.close();
  }
});

Deno.test("who shows a certificate without having its key is refused, where node:tls would take him", async () => {
  // node:tls of Deno 2.9.6 takes a certificate of X.509 version 1 from whoever shows it.
  const forged = identity("version1", { key: "stranger" });
  for (const [of, to, at] of [[forged, alpha, 1], [alpha, forged, 0]] as const) {
    const pair = await tlsPair(of, to);
    const [victim, forger] = [pair[at], pair[1 - at]];
    const outcome = assert.rejects(
      victim.read(new Uint8Array(1)),
      /^UserError: The certificate of peer [ab] is shown by one who does not have its key$/,
    );
    const refused = assert.rejects(forger.read(new Uint8Array(1)), /does not accept this machine's certificate|ended/);
    await outcome;
    victim.close();
    await refused;
    for (const link of pair) link.close();
  }
});

Deno.test("without a certificate nobody gets in, and other programs do not disturb", async () => {
  const opened = await openListener({ tls: alpha, openingSeconds: 1 });
  const { port } = opened.listener;
  await assert.rejects(
    open(port),
    /^UserError: the listener .* wants TLS, and this process has no certificate: give it --tls-cert as well$/,
  );
  const web = await bare(port);
  await web.write(new TextEncoder().encode("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
  const none = await Deno.connectTls({
    hostname: "127.0.0.1",
    port,
    caCerts: [alpha.authority],
    unsafelyDisableHostnameVerification: true,
  });
  // What listens refuses with two zeros, behind TLS.
  const answer = new Uint8Array(8);
  assert.equal(await none.read(answer), 2);
  assert.deepEqual(answer, new Uint8Array(8));
  none.close();
  const silent = await bare(port);
  await eventually(() => opened.refusals.length === 4);
  const refusals = opened.refusals.toSorted().join("\n");
  assert.equal(refusals.match(/does not speak TLS as this process does, or speaks none/g)?.length, 2, refusals);
  assert.match(refusals, /The certificate of 127\.0\.0\.1:\d+ is missing/);
  assert.match(refusals, /did not prove itself within 1 s/);
  for (const connection of [web, silent]) connection.close();
  await goesOn(opened);
});

Deno.test("an opener with TLS and a listener without end at once, and both say so", async () => {
  const opened = await openListener();
  await assert.rejects(
    open(opened.listener.port, { tls: beta }),
    /^UserError: the listener .* does not speak TLS as this process does, or speaks none \(/,
  );
  assert.match(opened.refusals[0], /opened with TLS, and this process has no certificate: give it --tls-cert as well$/);
  const [a, b] = await Promise.all([open(opened.listener.port), opened.accepted()]);
  for (const end of [a, b, opened.listener]) end.close();
});

Deno.test("the secret is asked for inside TLS, and is proven for that connection alone", async () => {
  const opened = await openListener({ tls: alpha });
  const other = new TextEncoder().encode("another secret, just as long as it");
  const refused = /^UserError: the listener .* has another shared secret/;
  await assert.rejects(open(opened.listener.port, { tls: beta, secret: other }), refused);
  await assert.rejects(open(opened.listener.port, { tls: beta, group: "another run" }), refused);
  // One who has a certificate but not the secret passes on what two who have both say to each other.
  const between = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const passing = (async () => {
    const from = new TlsLink(await between.accept(), "the opener", "listener", beta);
    const to = new TlsLink(await bare(opened.listener.port), "the listener", "opener", beta);
    const pass = async (a: TlsLink, b: TlsLink) => {
      const byte = new Uint8Array(1);
      for (;;) await a.read(byte).then(() => b.write(byte));
    };
    await Promise.allSettled([pass(from, to), pass(to, from)]);
    for (const link of [from, to]) link.close();
  })();
  await assert.rejects(open(between.addr.port, { tls: beta }), refused);
  between.close();
  await eventually(() => opened.refusals.length === 3);
  for (const refusal of opened.refusals) assert.match(refusal, /has another shared secret/);
  await goesOn(opened);
  await passing;
});

Deno.test("three find each other with certificates and no secret, and one with another authority does not disturb", async () => {
  const taken = await bareListener();
  const terms = {
    size: 3,
    rendezvous: `127.0.0.1:${taken}`,
    group,
    timeoutSeconds: 15,
    peerTimeoutSeconds: 15,
    secret: undefined,
  };
  const refusals: string[] = [];
  const nodes: Node[] = [];
  const meet = async (options: Pick<NodeOptions, "rank" | "tls" | "report">) => {
    const node = await Node.open({ ...terms, ...options });
    nodes.push(node);
    return await node.meet({ description: {}, facts: {}, lanes: 1 });
  };
  const host = meet({ rank: 0, tls: alpha, report: (sentence) => refusals.push(sentence) });
  await assert.rejects(meet({ rank: 1, tls: { ...identity("stranger"), authority: alpha.authority } }), /accept/);
  const worlds = await Promise.all([
    host,
    ...[beta, identity("rsa")].map((tls, i) => meet({ rank: i + 1, tls })),
  ]);
  assert.deepEqual(worlds.map(({ rank }) => rank), [0, 1, 2]);
  assert.equal(refusals.length, 1);
  await Promise.all(worlds.map(async ({ rank, lanes: [links] }) => {
    assert.equal(links.size, 2);
    await Promise.all([...links].map(async ([other, link]) => {
      assert.ok(link instanceof TlsLink);
      const answer = new Uint8Array(1);
      await Promise.all([link.write(new Uint8Array([rank])), link.read(answer)]);
      assert.equal(answer[0], other);
    }));
  }));
  await Promise.all(worlds.map((world) => world.leave()));
  await Promise.all(nodes.map((node) => node.close()));
});

async function bareListener(): Promise<number> {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  listener.close();
  return await Promise.resolve(listener.addr.port);
}

Deno.test("with certificates other interfaces than loopback may be used without a secret", async () => {
  const opened = await openListener({ hostname: "0.0.0.0", tls: alpha, secret: undefined });
  const [a, b] = await Promise.all([open(opened.listener.port, { tls: beta, secret: undefined }), opened.accepted()]);
  for (const end of [a, b, opened.listener]) end.close();
  const away = connect("node 1", { hostname: "192.0.2.1", port: 9 }, {
    secret: undefined,
    group,
    tls: beta,
    deadline: inSeconds(0.2),
  });
  await assert.rejects(away, /^MachineError: node 1 .* could not be reached/);
});

Deno.test("a link with TLS waits while the other end does not read, and keeps no more than a few MiB", async () => {
  const [a, b] = await tlsPair(alpha, beta);
  await Promise.all([a.write(noise(1)), b.read(new Uint8Array(1))]);
  const [piece, before] = [noise(1 << 20), Deno.memoryUsage().rss];
  let taken = 0;
  const writing = (async () => {
    for (; taken < 128; taken++) await a.write(piece);
  })();
  await pause(600);
  // The kernel's buffers on loopback take some MiB.
  const stopped = taken;
  assert.ok(stopped < 40, `${stopped} MiB were taken`);
  await pause(200);
  assert.equal(taken, stopped);
  assert.ok(Deno.memoryUsage().rss - before < 100 << 20);
  const target = new Uint8Array(1 << 20);
  for (let i = 0; i < 128; i++) {
    await b.read(target);
    assert.deepEqual(target, piece);
  }
  await writing;
  for (const link of [a, b]) link.close();
});

Deno.test("a cut, a change on the way and a close end a link with TLS with a sentence each", async () => {
  const [a, b] = await tlsPair(alpha, beta);
  const received = new Uint8Array(100);
  await Promise.all([a.write(noise(100)), b.read(received)]);
  const cut = assert.rejects(
    b.read(new Uint8Array(50)),
    /^MachineError: (peer a ended the connection when 20 of 50 bytes had come|The connection to peer a broke)/,
  );
  await a.write(noise(20));
  await pause(50);
  a.close();
  a.close();
  await cut;
  await assert.rejects(b.write(noise(1)), /^MachineError: peer a ended|broke/);
  await assert.rejects(a.read(received), /^MachineError: The connection to peer b was closed here$/);
  b.close();

  // What stands between turns over a bit of every record behind the handshake.
  const [left, right] = [await connectionPair(), await connectionPair()];
  let tampering = false;
  const pass = async (from: Deno.TcpConn, to: Deno.TcpConn) => {
    const [bytes, out] = [new Uint8Array(1 << 16), new PlainLink(to, "an end")];
    for (let count; (count = await from.read(bytes)) !== null;) {
      if (tampering) bytes[count - 1] ^= 1;
      await out.write(bytes.subarray(0, count));
    }
  };
  const passing = [pass(left[1], right[0]), pass(right[0], left[1])].map((way) => way.catch(() => {}));
  const c = new TlsLink(left[0], "peer d", "opener", alpha);
  const d = new TlsLink(right[1], "peer c", "listener", beta);
  await Promise.all([c.write(noise(100)), d.read(received)]);
  tampering = true;
  const changed = assert.rejects(d.read(received), /^MachineError: The connection to peer c broke: /);
  await c.write(noise(100));
  await changed;
  for (const end of [c, d, left[1], right[0]]) end.close();
  await Promise.all(passing);
});

Deno.test("readTlsIdentity() takes three files that fit together, and says what does not fit", async () => {
  const files = Object.fromEntries(
    [
      "alpha.pem",
      "alpha.key",
      "beta.key",
      "stranger.pem",
      "stranger.key",
      "expired.pem",
      "expired.key",
      "authority.pem",
    ]
      .map((name) => [name, Deno.readTextFileSync(new URL(`certificates/${name}`, import.meta.url))]),
  );
  await withFolder({ ...files, "empty.pem": "nothing" }, (folder) => {
    for (const name of Object.keys(files)) if (name.endsWith(".key")) Deno.chmodSync(`${folder}/${name}`, 0o600);
    const read = (cert: string, key: string, ca: string) =>
      readTlsIdentity({ tlsCert: `${folder}/${cert}`, tlsKey: `${folder}/${key}`, tlsCa: `${folder}/${ca}` });
    assert.deepEqual(read("alpha.pem", "alpha.key", "authority.pem"), alpha);
    assert.equal(readTlsIdentity({}), undefined);
    assert.throws(
      () => readTlsIdentity({ tlsCert: "x" }),
      /^UserError: --tls-cert, .* go together: give all three or none$/,
    );
    const wrong: [[string, string, string], RegExp][] = [
      [["none.pem", "alpha.key", "authority.pem"], /The certificate file .*none\.pem cannot be read: /],
      [["alpha.pem", "none.key", "authority.pem"], /The key file .*none\.key cannot be read: /],
      [["alpha.pem", "alpha.key", "none.pem"], /The authority's certificate file .*none\.pem cannot be read: /],
      [
        ["alpha.pem", "beta.key", "authority.pem"],
        /The key .*beta\.key does not belong to the certificate .*alpha\.pem$/,
      ],
      [["stranger.pem", "stranger.key", "authority.pem"], /stranger\.pem is not signed by the authority in --tls-ca$/],
      [["expired.pem", "expired.key", "authority.pem"], /expired\.pem expired on 2021-01-01$/],
      [["empty.pem", "alpha.key", "authority.pem"], /empty\.pem has no certificate in PEM form/],
      [["alpha.pem", "empty.pem", "authority.pem"], /open to every user of this machine; run: chmod 600/],
      [["alpha.pem", "alpha.key", "empty.pem"], /empty\.pem has no certificate in PEM form/],
    ];
    for (const [[cert, key, ca], message] of wrong) {
      assert.throws(
        () => read(cert, key, ca),
        (error: Error) => error.name === "UserError" && message.test(error.message),
      );
    }
    Deno.chmodSync(`${folder}/empty.pem`, 0o600);
    assert.throws(
      () => read("alpha.pem", "empty.pem", "authority.pem"),
      /has no private key in PEM form without a passphrase/,
    );
    return Promise.resolve();
  });
});

Deno.test("faultOf() takes any of several authorities", () => {
  const certificate = (name: string) =>
    new X509Certificate(Deno.readTextFileSync(new URL(`certificates/${name}.pem`, import.meta.url)));
  const both = [certificate("authority"), certificate("other")];
  for (const name of ["alpha", "stranger"]) assert.equal(faultOf(certificate(name), both), undefined);
  assert.match(faultOf(certificate("alpha"), [certificate("other"), certificate("beta")])!, /not signed/);
});
