import assert from "node:assert/strict";
import { disagreements, inOrder } from "../../network/agreement.ts";
import { inSeconds, pause } from "../../network/deadline.ts";
import { type Hello, hostSchema, type Join, leads, type Whereabouts } from "../../network/gathering.ts";
import { knock } from "../../network/knock.ts";
import { connect } from "../../network/listener.ts";
import { unlinkable } from "../../network/meeting_host.ts";
import { receiveMessage, sendMessage } from "../../network/messages.ts";
import { Node, type World } from "../../network/node.ts";
import { parseAddress } from "../../network/rendezvous.ts";
import { group, secret } from "./link_pairs.ts";
import { Child, description, freePort, nodesTest, start, termsOf } from "./nodes.ts";
import type { Terms } from "./node_process.ts";

/** Nodes in this process, which meet once, and close behind that and behind `until`; `report` hears of all. */
async function meet(
  all: Terms[],
  report?: (sentence: string) => void,
  until?: Promise<unknown>,
): Promise<PromiseSettledResult<World>[]> {
  const nodes: Node[] = [];
  const settled = await Promise.allSettled(all.map(async ({ description, facts, lanes, ...options }) => {
    const node = await Node.open({ ...options, secret, report });
    nodes.push(node);
    return await node.meet({ description, facts, lanes });
  }));
  // A host that leaves at once may take along its last word to the others.
  await until;
  await Promise.all(nodes.map((node) => node.close()));
  return settled;
}

/** Every outcome of meetings in this process, as `Name: message`, or "met". */
async function outcomes(
  all: Terms[],
  report?: (sentence: string) => void,
  until?: Promise<unknown>,
): Promise<string[]> {
  return (await meet(all, report, until)).map((one) => one.status === "rejected" ? String(one.reason) : "met");
}

nodesTest(
  "nodes without a secret meet on loopback; one with another secret is refused and the others meet",
  async () => {
    const open = termsOf(2);
    const closed = termsOf(2, { rank: 0 });
    const pair = [0, 1].map((rank) => new Child({ ...open, rank }, {}));
    const stranger = new Child({ ...closed, rank: 1 }, { MUSTER_SECRET: "a secret of somebody else" });
    const [host] = start(closed);
    assert.match((await stranger.hears("failed")).why, /the rendezvous .* has another shared secret/);
    const [member] = start({ ...closed, rank: 1 });
    for (const node of [...pair, host, member]) assert.equal((await node.world(1)).size, 2);
  },
);

Deno.test("one rank given twice ends all, and both are named", async () => {
  const given = termsOf(3);
  for (const outcome of await outcomes([0, 1, 1].map((rank) => ({ ...given, rank })))) {
    assert.match(
      outcome,
      /^UserError: The machines do not agree: .*, 127\.0\.0\.1:(\d+) and .*, 127\.0\.0\.1:(?!\1)\d+ both have rank 1$/,
    );
  }
});

Deno.test("a mismatch ends all, and names what differs and the machine", async () => {
  const given = termsOf(3);
  const other = { ...given, rank: 2, description: { ...description, model: "xyz", dtype: "f16" } };
  const machine = String.raw`${Deno.hostname()}, 127\.0\.0\.1:\d+`;
  for (const outcome of await outcomes([{ ...given, rank: 0 }, { ...given, rank: 1 }, other])) {
    assert.match(
      outcome,
      new RegExp(
        `^UserError: The machines do not agree: model is "xyz" at ${machine} and "abc" at ${machine}; ` +
          `dtype is "f16" at ${machine} and none at ${machine}$`,
      ),
    );
  }
});

Deno.test("who does not come is named in time, to all who came", async () => {
  const given = termsOf(3, { timeoutSeconds: 0.8 });
  const start = performance.now();
  const [host, member] = await outcomes([{ ...given, rank: 0 }, { ...given, rank: 2, timeoutSeconds: 5 }]);
  assert.ok(performance.now() - start < 3000);
  assert.equal(member, host);
  assert.match(host, /^MachineError: 1 of 3 machines did not come to 127.* within 0.8 s: rank 1; there are .*; .*/);
});

Deno.test("of those who do not come the ranks are named that are free", async () => {
  const [alone] = await outcomes([termsOf(4, { timeoutSeconds: 0.3 })]);
  assert.match(alone, /: rank 1, 2, 3; there are /);
  const given = termsOf(4, { timeoutSeconds: 0.5 });
  const [host] = await outcomes([given, given]);
  assert.match(host, /^MachineError: 2 of 4 machines .*: 2 of the ranks 1, 2, 3; there are /);
});

Deno.test("a size that differs is named when the wait is over", async () => {
  const given = termsOf(3, { timeoutSeconds: 0.8 });
  const both = await outcomes([{ ...given, rank: 0 }, { ...given, rank: 1, size: 2, timeoutSeconds: 5 }]);
  for (const outcome of both) assert.match(outcome, /^UserError: 1 of 3 .*nodes is "2" at .* and "3" at/);
});

Deno.test("a rendezvous that nobody hosts, and a port that another program has, end in a clear error", async () => {
  const [nobody] = await outcomes([termsOf(2, { rank: 1, timeoutSeconds: 0.5 })]);
  assert.match(
    nobody,
    /^MachineError: the rendezvous \(127\.0\.0\.1:\d+\) could not be reached in 0\.[5-9] s; .*refused/,
  );
  // Too long a name for any name server to be asked.
  const longName = `${"x".repeat(64)}.invalid`;
  const [unknown] = await outcomes([termsOf(2, { rank: 1, rendezvous: `${longName}:5`, timeoutSeconds: 0.5 })]);
  assert.match(unknown, /^MachineError: .*the name x{64}\.invalid is unknown$/);
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, () => new Response("hello"));
  const rendezvous = `127.0.0.1:${server.addr.port}`;
  const [host, any] = await outcomes([0, undefined].map((rank) => termsOf(2, { rank, rendezvous, timeoutSeconds: 3 })));
  assert.match(host, /^UserError: Rank 0 hosts the rendezvous but cannot listen on 127.*in use/);
  assert.match(
    any,
    /^UserError: What answers at the rendezvous \(.*\) is not Muster; is another program using that port/,
  );
  await server.shutdown();
  assert.throws(() => parseAddress("host"), /^UserError: "host" is not an address of the form host:port/);
  assert.throws(() => parseAddress("0.0.0.0:5"), /names no machine/);
  assert.deepEqual(parseAddress("[::1]:65535"), { hostname: "::1", port: 65535 });
});

/** Comes to a rendezvous as somebody who says this and does nothing more. */
async function comeTo(rendezvous: string, rest: Partial<Join>) {
  const place = { machine: "gone", hostname: "127.0.0.1", port: freePort() };
  const own = { place, rank: null, size: 3, least: 3, last: null, description, facts: {}, lanes: 1 };
  const hello: Hello = { kind: "join", join: { ...own, ...rest } };
  const { link } = await connect("the host", parseAddress(rendezvous), { secret, group, deadline: inSeconds(5) });
  await sendMessage(link, hello);
  return link;
}

Deno.test("who dies when all are invited is waited for again", async () => {
  const given = termsOf(3);
  const over = Promise.withResolvers<void>();
  const meeting = outcomes([0, 2].map((rank) => ({ ...given, rank })), undefined, over.promise);
  const link = await comeTo(given.rendezvous, { rank: 1 });
  const kinds: unknown[] = [];
  while (!kinds.includes("invited")) {
    const { kind } = await receiveMessage(link, (value) => value as { kind: string });
    kinds.push(kind);
  }
  link.close();
  const again = await outcomes([{ ...given, rank: 1 }]);
  over.resolve();
  assert.deepEqual([...await meeting, ...again], ["met", "met", "met"]);
});

Deno.test("who cannot be linked is left out by name, who does not answer may come again, and the others begin", async () => {
  const given = termsOf(4, { least: 2, peerTimeoutSeconds: 0.4 });
  const said: string[] = [];
  const meeting = meet([0, 3].map((rank) => ({ ...given, rank })), (sentence) => said.push(sentence));
  const own = { size: 4, least: 2 };
  const links = await Promise.all([1, 2].map((rank) => comeTo(given.rendezvous, { ...own, rank })));
  const heard = await Promise.all(links.map(async (link, silent) => {
    for (;;) {
      const word = await receiveMessage(link, hostSchema).catch((error: Error) => error.message);
      if (typeof word === "string") return word;
      if (word.kind === "refused") return word.sentence;
      if (word.kind !== "invited" || silent) continue;
      await sendMessage(link, { world: word.membership.world, missing: [0, 2, 3] });
    }
  }));
  assert.match(
    heard[0],
    /^node 1 \(gone, .*\) could not be linked to .*node 0 \(.* within 0\.8 s and is left out; does a firewall/,
  );
  assert.match(heard[1], /ended the connection/);
  const worlds = (await meeting).map((one) => one.status === "fulfilled" && [one.value.rank, one.value.size]);
  assert.deepEqual(worlds, [[0, 2], [1, 2]]);
  assert.ok(said.some((sentence) => /^Refused gone, 127.*: node 1 \(gone, .* could not be linked/.test(sentence)));
  assert.ok(said.some((sentence) => /^node 2 \(gone, .*\) did not answer for 1\.6 s and is left out$/.test(sentence)));
  for (const link of links) link.close();
});

Deno.test("a process that gave up before all were there may come again", async () => {
  const given = termsOf(3);
  const over = Promise.withResolvers<void>();
  const host = outcomes([{ ...given, rank: 0 }], undefined, over.promise);
  const [hasty] = await outcomes([{ ...given, rank: 1, timeoutSeconds: 0.3 }]);
  assert.match(hasty, /^MachineError: The group was not complete at the rendezvous \(127.*\) within 0\.3 s$/);
  const members = await outcomes([1, 2].map((rank) => ({ ...given, rank })));
  over.resolve();
  assert.deepEqual([...members, ...await host], ["met", "met", "met"]);
});

Deno.test("one more than the group has is told so once nobody can be thought lost, or finds nobody", async () => {
  const given = termsOf(2, { peerTimeoutSeconds: 0.4 });
  const nodes = await Promise.all([0, 1].map((rank) => Node.open({ ...given, rank, secret })));
  const worlds = await Promise.all(nodes.map((node) => node.meet(given)));
  const [late] = await outcomes([given]);
  assert.match(late, /^UserError: The group of 2 is complete without this process/);
  assert.deepEqual(worlds.map((world) => world.waiting()), [[], []]);
  await Promise.all(nodes.map((node) => node.close()));
});

Deno.test("of two parts of a run the smaller gives up once it hears of the larger, and is let in there", async () => {
  const [here, there] = [0, 1].map(() => termsOf(3, { least: 1, peerTimeoutSeconds: 0.5, lanes: 2 }));
  const nodes = await Promise.all([here, there, there].map((terms) => Node.open({ ...terms, secret })));
  // Each begins without those who do not come.
  const worlds = await Promise.all(nodes.map((node) => node.meet(here)));
  assert.deepEqual(worlds.map(({ size }) => size), [1, 2, 2]);
  const signal = new AbortController().signal;
  const none = { world: "", number: 0, size: 0, running: false, rank: 0, place: null };
  const where = await knock(parseAddress(there.rendezvous), none, { secret, group }, signal);
  assert.ok(typeof where !== "string");
  const own = await knock(parseAddress(here.rendezvous), where, { secret, group }, signal);
  assert.ok(typeof own !== "string" && !own.running);
  assert.match(String(await worlds[0].lost), /^MachineError: the network had parted it .* goes on at .*:\d+$/);
  const waits = nodes[0].meet({ ...here, facts: { name: "parted" } });
  const host = worlds.findIndex(({ size, rank }) => size === 2 && rank === 0);
  while (worlds[host].waiting().length === 0) await pause(20);
  await worlds[host].end("somebody waits");
  const after = await Promise.all([waits, nodes[1].meet(here), nodes[2].meet(here)]);
  assert.deepEqual(after.map(({ size, number }) => [size, number]), [[3, 2], [3, 2], [3, 2]]);
  // Only the other two have the history of the new world.
  for (const { survivors, facts } of after) {
    assert.deepEqual(survivors, [0, 1]);
    assert.equal(facts[2].name, "parted");
  }
  await Promise.all(nodes.map((node) => node.close()));
});

Deno.test("who asks for what cannot be is told before anything is opened", async () => {
  const open = (terms: Terms) => Node.open({ ...terms, secret });
  await assert.rejects(open(termsOf(2, { rank: 2 })), /^UserError: Rank 2 is not one of a group of 2/);
  await assert.rejects(open(termsOf(0)), /^UserError: A group has 1 to 2048 machines, not 0/);
  await assert.rejects(open(termsOf(2, { least: 3 })), /^UserError: A group of 2 goes on with 1 to 2 machines, not/);
  await assert.rejects(
    Node.open({ ...termsOf(2), rendezvous: "192.0.2.1:29500", secret: undefined }),
    /^UserError: Without a shared secret only loopback addresses are allowed, and 192\.0\.2\.1 is none/,
  );
  const [alone] = await meet([termsOf(1)]);
  assert.ok(alone.status === "fulfilled");
  assert.deepEqual([alone.value.rank, alone.value.size, alone.value.lanes[0].size], [0, 1, 0]);
});

const joinOf = (rest: Partial<Join> & { port: number }): Join => ({
  place: { machine: "a", hostname: "127.0.0.1", port: rest.port },
  rank: null,
  size: 2,
  least: 2,
  last: null,
  description,
  facts: {},
  lanes: 1,
  ...rest,
});

Deno.test("inOrder() keeps the order of a world's members and lets others have their ranks or the lowest", () => {
  const last = (rank: number, world = "w") => ({ last: { world, number: 1, rank } });
  const order = (host: Join, ...others: Join[]) => inOrder(host, others).map(({ place }) => place.port);
  // At first: ranks that were given, and the others in the order in which they came; ranks that nobody has are closed up.
  assert.deepEqual(
    order(...[0, null, 3, null, 1].map((rank, port) => joinOf({ rank, port })) as [Join, ...Join[]]),
    [0, 4, 1, 2, 3],
  );
  assert.deepEqual(order(joinOf({ port: 0 }), joinOf({ rank: 2, port: 2 })), [0, 2]);
  // Then: rank 1 hosts, 3 and 2 survived, a newcomer wants rank 2, one any, and one was in an older world.
  assert.deepEqual(
    order(
      joinOf({ port: 1, ...last(1) }),
      joinOf({ port: 3, ...last(3) }),
      joinOf({ port: 8, rank: 2 }),
      joinOf({ port: 2, ...last(2) }),
      joinOf({ port: 9 }),
      joinOf({ port: 7, ...last(0, "old") }),
    ),
    [1, 8, 2, 3, 9, 7],
  );
});

Deno.test("disagreements() finds what is too high; unlinkable() leaves out the fewest; leads() prefers the newer world", () => {
  assert.deepEqual(disagreements([joinOf({ rank: 0, port: 1 }), joinOf({ port: 2 })]), []);
  assert.deepEqual(disagreements([joinOf({ rank: 0, port: 1 }), joinOf({ rank: 2, port: 5 })]), [
    "a, 127.0.0.1:5 has rank 2 of a group of 2",
  ]);
  assert.deepEqual(unlinkable([[], [2], [1, 3], [2]]), [2]);
  assert.deepEqual(unlinkable([[2], [], [0]]), [2]);
  assert.deepEqual(unlinkable([[], [2], [1]]), [2]);
  assert.deepEqual(unlinkable([[], [], []]), []);
  const place = { machine: "a", hostname: "127.0.0.1", port: 1 };
  const where = (number: number, rank: number, running = false, world = `${number}`): Whereabouts => ({
    world,
    number,
    size: 2,
    rank,
    running,
    place,
  });
  assert.ok(
    leads(where(2, 0, true, "a"), where(2, 1, false, "b")) && leads(where(2, 9, false, "a"), where(2, 1, false, "b")),
  );
  assert.ok(!leads(where(2, 0, false, "b"), where(2, 1, false, "a")));
  assert.ok(leads(where(2, 5), where(1, 0)) && !leads(where(1, 0), where(2, 5)));
  assert.ok(
    leads(where(2, 0), where(2, 1)) && !leads(where(2, 1), where(2, 0)) && !leads(where(2, 0, true), where(2, 1)),
  );
  assert.ok(!leads({ ...where(3, 0), place: null }, where(1, 0)));
});
