import assert from "node:assert/strict";
import { inSeconds, pause } from "../../network/deadline.ts";
import type { Hello } from "../../network/gathering.ts";
import { knock } from "../../network/knock.ts";
import { connect } from "../../network/listener.ts";
import { sendMessage } from "../../network/messages.ts";
import { group, noise, secret } from "./link_pairs.ts";
import { Child, nodesTest, start, startTogether, termsOf } from "./nodes.ts";

const name = (rank: number) => new RegExp(`node ${rank} \\(${Deno.hostname()}, 127\\.0\\.0\\.1:\\d+\\)`);

nodesTest("four nodes meet, with ranks given and not, and each has all lanes to each", async () => {
  const terms = termsOf(4, { lanes: 3 });
  const ranks = [undefined, 2, undefined, 1];
  const nodes = start(...ranks.map((rank, i) => ({ ...terms, rank, facts: { name: `n${i}` } })));
  const worlds = await Promise.all(nodes.map((node) => node.world(1)));
  assert.deepEqual(worlds.map(({ rank }) => rank).toSorted(), [0, 1, 2, 3]);
  assert.deepEqual([worlds[1].rank, worlds[3].rank], [2, 1]);
  for (const { rank, size, machines, names, lanes, heard } of worlds) {
    const others = [0, 1, 2, 3].filter((other) => other !== rank);
    assert.equal(size, 4);
    assert.deepEqual(lanes, [others, others, others]);
    assert.deepEqual(heard, lanes);
    assert.deepEqual(names, [0, 1, 2, 3].map((rank) => `n${worlds.findIndex((world) => world.rank === rank)}`));
    for (const [i, machine] of machines.entries()) assert.match(machine, name(i));
  }
  for (const node of nodes) node.tell("pass");
  for (const node of nodes) assert.ok((await node.hears("passed")).intact);
  // Who has finished leaves, and the others' world lasts.
  const first = nodes[worlds.findIndex(({ rank }) => rank === 0)];
  first.tell("close");
  await first.hears("closed");
  await pause(1500);
  for (const node of nodes) assert.equal(node.said.some(({ kind }) => kind === "lost"), node === first);
});

nodesTest(
  "a killed and a stopped member are named by all others; the rest go on, in order, and both come back",
  async () => {
    const terms = termsOf(4, { least: 2 });
    const [host, ...others] = [0, 1, 2, 3].map((rank) => ({ ...terms, rank }));
    const nodes = await startTogether(host, ...others);
    await Promise.all(nodes.map((node) => node.world(1)));
    const before = performance.now();
    nodes[1].kill();
    for (const i of [0, 2, 3]) {
      const { why } = await nodes[i].hears("lost");
      assert.match(why, /^Lost node 1 \(.*\): .*(ended the connection|broke)/);
    }
    assert.ok(performance.now() - before < 1000);
    const second = await Promise.all([0, 2, 3].map((i) => nodes[i].world(2)));
    assert.deepEqual(second.map(({ rank, size }) => [rank, size]), [[0, 3], [1, 3], [2, 3]]);

    // A host that is stopped is missed within its time; who is next hosts.
    const stopped = performance.now();
    nodes[0].kill("SIGSTOP");
    for (const i of [2, 3]) {
      const { why } = await nodes[i].hears("lost", ({ why }) => why.startsWith("Lost node 0"));
      assert.match(why, /^Lost node 0 \(.*\): silent for 1 s$/);
    }
    const seconds = (performance.now() - stopped) / 1000;
    assert.ok(seconds > 0.5 && seconds < 2, `missed after ${seconds} s`);
    const third = await Promise.all([2, 3].map((i) => nodes[i].world(3)));
    assert.deepEqual(third.map(({ rank, size }) => [rank, size]), [[0, 2], [1, 2]]);

    // It goes on, finds itself left behind, and waits to be let in; so does a new process of the killed rank.
    nodes[0].kill("SIGCONT");
    assert.match(
      (await nodes[0].hears("lost", ({ why }) => !why.startsWith("Lost node 1"))).why,
      /^The other nodes went on without this one \(node 0 .*silent for 1 s$/,
    );
    nodes[1] = new Child({ ...terms, rank: 1 });
    const { names } = await nodes[3].hears("waiting", ({ names }) => names.length === 2);
    assert.equal(new Set(names).size, 2);
    nodes[3].tell("end");
    const ended = (await nodes[2].hears("lost", ({ why }) => why.includes("ended the world"))).why;
    assert.match(ended, /^node 1 \(.*\) ended the world: a test wants it$/);
    const fourth = await Promise.all([2, 3, 0, 1].map((i) => nodes[i].world(4)));
    assert.deepEqual(fourth.map(({ size }) => size), [4, 4, 4, 4]);
    assert.deepEqual(fourth.map(({ rank }) => rank).slice(0, 1), [0]);
    assert.deepEqual(fourth.map(({ rank }) => rank).toSorted(), [0, 1, 2, 3]);
    for (const node of nodes) node.tell("pass");
    for (const node of nodes) assert.ok((await node.hears("passed")).intact);
  },
);

nodesTest(
  "a killed host's place is taken, and its machine comes back at the rendezvous and finds the others",
  async () => {
    const terms = termsOf(3, { least: 1, peerTimeoutSeconds: 5 });
    const [first, ...others] = [0, 1, 2].map((rank) => ({ ...terms, rank }));
    const nodes = await startTogether(first, ...others);
    await Promise.all(nodes.map((node) => node.world(1)));
    nodes[0].kill();
    const second = await Promise.all([1, 2].map((i) => nodes[i].world(2)));
    assert.deepEqual(second.map(({ rank, size }) => [rank, size]), [[0, 2], [1, 2]]);
    nodes[0] = new Child({ ...terms, rank: 0 });
    await nodes[2].hears("waiting");
    // A stranger to the run's model is refused by name, and nobody else hears of it.
    const other = new Child({ ...terms, rank: 2, description: { ...terms.description, model: "xyz" } });
    assert.match(
      (await other.hears("failed")).why,
      /^UserError: The machines do not agree: model is "xyz" at .* and "abc" at/,
    );
    nodes[1].tell("end");
    const third = await Promise.all([1, 2, 0].map((i) => nodes[i].world(3)));
    assert.deepEqual(third.map(({ rank, size }) => [rank, size]), [[0, 3], [1, 3], [2, 3]]);
  },
);

nodesTest("too few who meet again wait for others, and end with the sentence if none come", async () => {
  const terms = termsOf(3, { least: 2, timeoutSeconds: 4 });
  const nodes = start(...[0, 1].map((rank) => ({ ...terms, rank })));
  // The third does not come: the two begin without it, after a while.
  const worlds = await Promise.all(nodes.map((node) => node.world(1)));
  assert.deepEqual(worlds.map(({ rank, size }) => [rank, size]), [[0, 2], [1, 2]]);
  nodes[1].kill();
  await nodes[0].hears("lost");
  const again = new Child({ ...terms, rank: 2 });
  assert.deepEqual([(await nodes[0].world(2)).size, (await again.world(2)).rank], [2, 1]);
  again.kill();
  const { why } = await nodes[0].hears("failed");
  assert.match(
    why,
    /^MachineError: 1 of 3 machines met again within 4 s; at least 2 are needed \(--min-nodes\); there are /,
  );
});

nodesTest("strangers at the doors of a running world, of all kinds, leave it undisturbed", async () => {
  // Whether a process gets its turn within a second is the machine's affair, not that of strangers.
  const terms = termsOf(2, { peerTimeoutSeconds: 5 });
  const nodes = start(...[0, 1].map((rank) => ({ ...terms, rank })));
  const worlds = await Promise.all(nodes.map((node) => node.world(1)));
  const ports = worlds[0].machines.map((machine) => Number(/:(\d+)\)/.exec(machine)![1]));
  const open: Deno.TcpConn[] = [];
  const visit = async (port: number, bytes: Uint8Array, stays: boolean) => {
    const connection = await Deno.connect({ hostname: "127.0.0.1", port });
    await connection.write(bytes).catch(() => {});
    if (stays) open.push(connection);
    else connection.close();
  };
  for (const [rank, port] of ports.entries()) {
    for (let i = 0; i < 100; i++) await visit(port, noise(100, i), false);
    // Those still unread when hundreds more come would be sent away unheard.
    await nodes[rank].hears("report", ({ sentence }) => /does not speak Muster's protocol/.test(sentence));
    await visit(port, new TextEncoder().encode("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), true);
    // Half an opening, and then nothing.
    for (let i = 0; i < 300; i++) await visit(port, new TextEncoder().encode("MUST"), true);
    // One that knows the secret and speaks of a world that never was, and one that says nonsense.
    const terms = { secret, group, deadline: inSeconds(5) };
    const { link: member } = await connect("a door", { hostname: "127.0.0.1", port }, terms);
    await sendMessage(member, { kind: "link", world: "0".repeat(32), from: 1, to: 0, lane: 0 } satisfies Hello);
    const { link: odd } = await connect("a door", { hostname: "127.0.0.1", port }, terms);
    await sendMessage(odd, { kind: "ended", sentence: "now", mistake: true });
    await assert.rejects(odd.read(new Uint8Array(1)));
    odd.close();
    member.close();
  }
  // A knock is told of the world; one of an older world changes nothing.
  const place = { machine: "m", hostname: "127.0.0.1", port: 1 };
  const where = { world: "w", number: 0, size: 9, running: true, rank: 0, place };
  const said = await knock(
    { hostname: "127.0.0.1", port: ports[1] },
    where,
    { secret, group },
    new AbortController().signal,
  );
  assert.ok(typeof said !== "string");
  assert.match(said.world, /^[0-9a-f]{32}$/);
  assert.deepEqual({ ...said, world: "" }, {
    world: "",
    number: 1,
    size: 2,
    running: true,
    rank: 0,
    place: { machine: Deno.hostname(), hostname: "127.0.0.1", port: ports[0] },
  });
  for (const node of nodes) node.tell("pass");
  for (const node of nodes) assert.ok((await node.hears("passed")).intact);
  await pause(1500);
  for (const connection of open) connection.close();
  for (const node of nodes) assert.ok(!node.said.some(({ kind }) => kind === "lost" || kind === "failed"));
});

nodesTest("any member's door tells a newcomer where the host is; a world ended for it lets it in", async () => {
  const terms = termsOf(3, { least: 1, timeoutSeconds: 3 });
  const [host, member] = await startTogether({ ...terms, rank: 0 }, { ...terms, rank: 1 });
  const [world] = await Promise.all([host.world(1), member.world(1)]);
  const rendezvous = /127\.0\.0\.1:\d+/.exec(world.machines[1])![0];
  const newcomer = new Child({ ...terms, rank: 2, rendezvous });
  await member.hears("waiting");
  // It waits for longer than a meeting may take.
  await pause(3500);
  assert.ok(!newcomer.said.some(({ kind }) => kind === "world" || kind === "failed"));
  member.tell("end");
  const worlds = await Promise.all([host, member, newcomer].map((node) => node.world(2)));
  assert.deepEqual(worlds.map(({ rank, size }) => [rank, size]), [[0, 3], [1, 3], [2, 3]]);
});
