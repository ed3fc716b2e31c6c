/** The system's own calls on Deno's connections, and links that use them. */

import assert from "node:assert/strict";
import { pause } from "../../network/deadline.ts";
import { PlainLink } from "../../network/plain_link.ts";
import { systemSocket } from "../../network/system_socket.ts";
import { connectionPair, noise, plainPair } from "./link_pairs.ts";

const linux = Deno.build.os === "linux";
const name = (text: string) => linux ? text : `${text} (skipped: only on Linux)`;

Deno.test({ name: name("systemSocket() finds a connection's own socket among others"), ignore: !linux }, async () => {
  const pairs = await Promise.all(Array.from({ length: 20 }, connectionPair));
  const sockets = pairs.map((pair) => pair.map(systemSocket));
  const target = new Uint8Array(new SharedArrayBuffer(16));
  for (const [i, [a, b]] of sockets.entries()) {
    assert.ok(a && b);
    assert.equal(b.receive(target), 0);
    assert.equal(a.send(new Uint8Array([i, 7])), 2);
    assert.equal(b.send(new Uint8Array([100 + i])), 1);
  }
  for (const [i, [a, b]] of sockets.entries()) {
    assert.equal(b!.receive(target.subarray(3)), 2);
    assert.deepEqual([...target.subarray(3, 5)], [i, 7]);
    assert.equal(a!.receive(target), 1);
    assert.equal(target[0], 100 + i);
  }
  // What the other side has closed is for the connection to tell.
  pairs[0][0].close();
  await pause(1);
  assert.equal(sockets[0][1]!.receive(target), 0);
  assert.equal(await pairs[0][1].read(target), null);
  for (const connection of pairs.flat().slice(1)) connection.close();
});

Deno.test(
  { name: name("systemSocket() finds sockets of IPv6, and of IPv4 on a listener for both"), ignore: !linux },
  async () => {
    for (const [listening, connecting] of [["::1", "::1"], ["::", "127.0.0.1"], ["::", "::1"]]) {
      const listener = Deno.listen({ hostname: listening, port: 0 });
      const opening = Deno.connect({ hostname: connecting, port: listener.addr.port });
      const pair = [await opening, await listener.accept()];
      listener.close();
      const [a, b] = pair.map(systemSocket);
      assert.ok(a && b, `${listening}, ${connecting}`);
      assert.equal(a.send(noise(30)), 30);
      const target = new Uint8Array(31);
      assert.equal(b.receive(target), 30);
      assert.deepEqual(target.subarray(0, 30), noise(30));
      for (const connection of pair) connection.close();
    }
  },
);

Deno.test("systemSocket() gives none without permission for FFI or when told so, and links do without", async () => {
  const module = new URL("system_socket_process.ts", import.meta.url).href;
  const cases: [string[], Record<string, string>, string][] = [
    [["--allow-net", "--allow-env"], {}, "none"],
    [["--allow-net"], {}, "none"],
    [["-A"], { MUSTER_SOCKETS: "deno" }, "none"],
    [["-A"], { MUSTER_SOCKETS: "auto" }, linux ? "found" : "none"],
  ];
  await Promise.all(cases.map(async ([permissions, env, expected]) => {
    const args = ["run", "--no-check", "--no-prompt", ...permissions, module];
    const { stdout, stderr } = await new Deno.Command(Deno.execPath(), { args, env }).output();
    assert.equal(
      new TextDecoder().decode(stdout),
      `${expected}, 3000000 bytes carried\n`,
      new TextDecoder().decode(stderr),
    );
  }));
});

Deno.test("a closed link leaves alone the connection that gets its descriptor", async () => {
  for (let round = 0; round < 20; round++) {
    const [a, b] = await plainPair();
    await Promise.all([a.write(noise(100)), b.read(new Uint8Array(100))]);
    const reading = assert.rejects(b.read(new Uint8Array(100)), /was closed here/);
    if (round % 2 === 0) await pause(1);
    b.close();
    const [c, d] = (await connectionPair()).map((connection) => new PlainLink(connection, "peer"));
    for (const link of [c, d]) link.proven();
    await c.write(noise(100, round));
    await reading;
    await assert.rejects(b.read(new Uint8Array(100)), /was closed here/);
    const target = new Uint8Array(100);
    await d.read(target);
    assert.deepEqual(target, noise(100, round));
    for (const link of [a, c, d]) link.close();
  }
});

Deno.test("links that always find something to move leave the event loop its turns", async () => {
  const [a, b] = await plainPair();
  let ticks = 0;
  let exchanged = 0;
  const timer = setInterval(() => ticks++, 1);
  const message = noise(64);
  for (const end = performance.now() + 300; performance.now() < end; exchanged++) {
    await a.write(message);
    await b.read(message);
  }
  clearInterval(timer);
  // At most every 5 ms, which a busy machine stretches.
  assert.ok(ticks >= 10, `${ticks} ticks, ${exchanged} messages`);
  a.close();
  b.close();
});
