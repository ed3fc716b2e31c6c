import assert from "node:assert/strict";
import { inSeconds, pause } from "../../network/deadline.ts";
import { assignRanks, disagreements } from "../../network/gathering.ts";
import { connect } from "../../network/listener.ts";
import { receiveMessage, sendMessage } from "../../network/messages.ts";
import { meet, type MeetOptions, parseAddress } from "../../network/rendezvous.ts";
import { group, secret } from "./link_pairs.ts";
import type { Report } from "./meet_process.ts";

const text = new TextDecoder().decode(secret);
const program = new URL("meet_process.ts", import.meta.url).pathname;
const description = { version: "0.1.0", model: "abc", data: "def" };

function freePort(): number {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  listener.close();
  return listener.addr.port;
}

type Terms = Omit<MeetOptions, "secret">;

function start(terms: Terms, env: Record<string, string> = { MUSTER_SECRET: text }): Deno.ChildProcess {
  const args = ["run", "-A", "--quiet", program, JSON.stringify(terms)];
  return new Deno.Command(Deno.execPath(), { args, env, stdout: "piped", stderr: "inherit" }).spawn();
}

async function reportOf(child: Deno.ChildProcess): Promise<Report> {
  const { stdout } = await child.output();
  return JSON.parse(new TextDecoder().decode(stdout)) as Report;
}

function failure(report: Report): Extract<Report, { kind: "failed" }> {
  assert.equal(report.kind, "failed");
  return report as Extract<Report, { kind: "failed" }>;
}

const terms = (size: number, rest: Partial<Terms> = {}): Terms => ({
  size,
  rendezvous: `127.0.0.1:${freePort()}`,
  group,
  description,
  timeoutSeconds: 20,
  ...rest,
});

/** Every outcome of meetings in this process, as `Name: message`, or "met". */
async function outcomes(all: Terms[]): Promise<string[]> {
  const settled = await Promise.allSettled(all.map((terms) => meet({ ...terms, secret })));
  return settled.map((one) => {
    if (one.status === "rejected") return String(one.reason);
    for (const link of one.value.links.values()) link.close();
    return "met";
  });
}

Deno.test("four processes find each other, with ranks given and not, and each has a link to each", async () => {
  const given = terms(4);
  const children = [undefined, 2, undefined, 1].map((rank) => start({ ...given, rank }));
  const reports = await Promise.all(children.map(reportOf));
  const ranks = reports.map((report) => {
    assert.ok(report.kind === "met", JSON.stringify(report));
    assert.ok(report.intact);
    const others = [0, 1, 2, 3].filter((rank) => rank !== report.rank);
    assert.deepEqual(report.heard, others);
    for (const [i, peer] of report.peers.entries()) {
      assert.match(peer, new RegExp(`^node ${others[i]} \\(${Deno.hostname()}, 127\\.0\\.0\\.1:\\d+\\)$`));
    }
    return report.rank;
  });
  assert.deepEqual([ranks[1], ranks[3]], [2, 1]);
  assert.deepEqual(ranks.toSorted(), [0, 1, 2, 3]);
});

Deno.test("processes without a secret meet on loopback; one with another secret is refused and the others meet", async () => {
  const open = terms(2);
  const closed = terms(2, { rank: 0 });
  const pair = [0, 1].map((rank) => start({ ...open, rank }, {}));
  const host = start(closed);
  const stranger = start({ ...closed, rank: 1 }, { MUSTER_SECRET: "a secret of somebody else" });
  assert.match(failure(await reportOf(stranger)).message, /the rendezvous .* has another shared secret/);
  const member = start({ ...closed, rank: 1 });
  for (const report of await Promise.all([...pair, host, member].map(reportOf))) assert.equal(report.kind, "met");
});

Deno.test("one rank given twice ends all, and both are named", async () => {
  const given = terms(3);
  for (const outcome of await outcomes([0, 1, 1].map((rank) => ({ ...given, rank })))) {
    assert.match(
      outcome,
      /^UserError: The machines do not agree: .*, 127\.0\.0\.1:(\d+) and .*, 127\.0\.0\.1:(?!\1)\d+ both have rank 1$/,
    );
  }
});

Deno.test("a mismatch ends all, and names what differs and the machine", async () => {
  const given = terms(3);
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
  const given = terms(3, { timeoutSeconds: 0.8 });
  const start = performance.now();
  const [host, member] = await outcomes([{ ...given, rank: 0 }, { ...given, rank: 2, timeoutSeconds: 5 }]);
  assert.ok(performance.now() - start < 3000);
  assert.equal(member, host);
  assert.match(host, /^MachineError: 1 of 3 machines did not come to 127.* within 0.8 s: rank 1; there are .*; .*/);
});

Deno.test("of those who do not come the ranks are named that are free", async () => {
  const [alone] = await outcomes([terms(4, { timeoutSeconds: 0.3 })]);
  assert.match(alone, /: rank 1, 2, 3; there are /);
  const given = terms(4, { timeoutSeconds: 0.5 });
  const [host] = await outcomes([given, given]);
  assert.match(host, /^MachineError: 2 of 4 machines .*: 2 of the ranks 1, 2, 3; there are /);
});

Deno.test("a size that differs is named when the wait is over", async () => {
  const given = terms(3, { timeoutSeconds: 0.8 });
  const both = await outcomes([{ ...given, rank: 0 }, { ...given, rank: 1, size: 2, timeoutSeconds: 5 }]);
  for (const outcome of both) assert.match(outcome, /^UserError: 1 of 3 .*nodes is "2" at .* and "3" at/);
});

Deno.test("a rendezvous that nobody hosts, and a port that another program has, end in a clear error", async () => {
  const [nobody] = await outcomes([terms(2, { rank: 1, timeoutSeconds: 0.5 })]);
  assert.match(
    nobody,
    /^MachineError: the rendezvous \(127\.0\.0\.1:\d+\) could not be reached in 0\.[5-9] s; .*refused/,
  );
  // Too long a name for any name server to be asked.
  const longName = `${"x".repeat(64)}.invalid`;
  const [unknown] = await outcomes([terms(2, { rank: 1, rendezvous: `${longName}:5`, timeoutSeconds: 0.5 })]);
  assert.match(unknown, /^MachineError: .*the name x{64}\.invalid is unknown$/);
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, () => new Response("hello"));
  const rendezvous = `127.0.0.1:${server.addr.port}`;
  const [host, any] = await outcomes([0, undefined].map((rank) => terms(2, { rank, rendezvous, timeoutSeconds: 3 })));
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

Deno.test("a process killed before all are there may be started again; one killed later fails the others at once", async () => {
  const given = terms(3);
  const host = start({ ...given, rank: 0 });
  const early = start({ ...given, rank: 1 });
  await pause(600);
  early.kill("SIGKILL");
  await early.output();
  const again = [1, 2].map((rank) => start({ ...given, rank }));
  for (const report of await Promise.all([host, ...again].map(reportOf))) assert.equal(report.kind, "met");

  // A member that comes, is told of the others, and leaves without a word.
  const late = terms(3);
  const meeting = outcomes([{ ...late, rank: 0 }, { ...late, rank: 2 }]);
  const { hostname, port } = parseAddress(late.rendezvous);
  const { link } = await connect("the host", { hostname, port }, { secret, group, deadline: inSeconds(5) });
  const join = { rank: 1, size: 3, machine: "gone", hostname, port: freePort(), description };
  await sendMessage(link, join);
  await receiveMessage(link, (value) => value);
  const begin = performance.now();
  link.close();
  for (const outcome of await meeting) {
    assert.match(outcome, /^MachineError: node 1 \(gone, 127.* ended the connection/);
  }
  assert.ok(performance.now() - begin < 2000);
});

Deno.test("a process that gave up before all were there may come again", async () => {
  const given = terms(3);
  const host = outcomes([{ ...given, rank: 0 }]);
  const [hasty] = await outcomes([{ ...given, rank: 1, timeoutSeconds: 0.3 }]);
  assert.match(hasty, /^MachineError: The group was not complete at the rendezvous \(127.*\) within 0\.3 s$/);
  assert.deepEqual(await outcomes([1, 2].map((rank) => ({ ...given, rank }))), ["met", "met"]);
  assert.deepEqual(await host, ["met"]);
});

Deno.test("one more than the group has is told so or finds nobody", async () => {
  const given = terms(2, { timeoutSeconds: 1 });
  const all = (await outcomes([given, given, given])).toSorted();
  assert.match(all[0], /^(UserError: The group of 2 .* is complete without this process|MachineError: the rendezvous)/);
  assert.deepEqual(all.slice(1), ["met", "met"]);
});

Deno.test("who asks for what cannot be is told before anything is opened", async () => {
  await assert.rejects(meet({ ...terms(2), rank: 2, secret }), /^UserError: Rank 2 is not one of a group of 2/);
  await assert.rejects(meet({ ...terms(0), secret }), /^UserError: A group has 1 to 2048 machines, not 0/);
  await assert.rejects(
    meet({ ...terms(2), rendezvous: "192.0.2.1:29500", rank: 1, secret: undefined }),
    /^UserError: Without a shared secret only loopback addresses are allowed, and 192\.0\.2\.1 is none/,
  );
  const alone = await meet({ ...terms(1), secret: undefined });
  assert.deepEqual([alone.rank, alone.size, alone.links.size], [0, 1, 0]);
});

Deno.test("assignRanks() keeps what is given and fills up; disagreements() finds what is too high", () => {
  assert.deepEqual(assignRanks([0, null, 3, null, 1]), [0, 2, 3, 4, 1]);
  const join = { size: 2, machine: "a", hostname: "127.0.0.1", port: 1, description };
  assert.deepEqual(disagreements([{ ...join, rank: 0 }, { ...join, rank: null }]), []);
  assert.deepEqual(disagreements([{ ...join, rank: 0 }, { ...join, rank: 2, port: 5 }]), [
    "a, 127.0.0.1:5 has rank 2 of a group of 2",
  ]);
});
