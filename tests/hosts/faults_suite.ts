/** Faults of the network and of hosts in the midst of collectives: lost frames, delay, cut links, killed and stopped hosts. */

import assert from "node:assert/strict";
import { type Host, testHosts } from "./hosts.ts";
import { resultOf, secret, startMembers } from "./member.ts";
import type { Running } from "./running.ts";

const pause = (seconds: number) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

/** The rounds that a member has finished. */
const roundsOf = ({ text }: Running) => Number(/round (\d+)\n$/.exec(text.stdout)?.[1] ?? -1);

/** Waits until all are in the midst of it. */
async function underWay(members: readonly Running[]): Promise<void> {
  await Promise.all(members.map((member) => member.until(/round 3\n/, 60)));
}

/** Waits until all have finished, and checks that they have the same sums. */
async function assertSummed(members: readonly Running[], seconds: number): Promise<void> {
  const results = await Promise.all(members.map(async (member) => resultOf((await member.within(seconds)).stdout)));
  const hashes = new Set(results.map((result) => result.kind === "summed" ? result.hash : result.message));
  assert.equal(hashes.size, 1, [...hashes].join("\n"));
  assert.match([...hashes][0], /^[0-9a-f]{64}$/);
}

/** Waits for the end of members that have lost one; gives their messages. */
async function assertFailed(members: readonly Running[], seconds: number): Promise<string[]> {
  return await Promise.all(members.map(async (member) => {
    const { stdout } = await member.within(seconds);
    const result = resultOf(stdout);
    assert.ok(result.kind === "failed" && result.restartable, stdout.slice(-1000));
    return result.message;
  }));
}

/** All messages name the host. */
function assertNamed(messages: readonly string[], { name }: Host): void {
  for (const message of messages) assert.match(message, new RegExp(`^Lost node \\d \\(${name}, `), messages.join("\n"));
}

for (const loss of [0.01, 0.05]) {
  testHosts(`With ${100 * loss}% of all frames lost the sums are the same`, { count: 3, loss }, async (hosts) => {
    const members = startMembers(hosts, { timeoutSeconds: 20, rounds: 20 });
    await assertSummed(members, 120);
  });
}

testHosts("comm-bench measures a delay of 10 ms each way, and bandwidth with 1% of frames lost", {
  count: 2,
  latency: 10,
  loss: 0.01,
}, async (hosts) => {
  const common = ["comm-bench", "--nodes", "2", "--rendezvous", `${hosts[0].address}:29500`, "--sizes", "64KiB"];
  const running = hosts.map((host, i) =>
    host.muster([...common, "--json", "--node-rank", String(i)], { env: { MUSTER_SECRET: secret } })
  );
  const [first, second] = await Promise.all(running.map((one) => one.within(120)));
  assert.equal(first.code, 0, first.stderr);
  assert.equal(second.code, 0, second.stderr);
  const { links: [{ microseconds, gigabytesPerSecond }], allReduces } = JSON.parse(first.stdout);
  assert.ok(microseconds > 10_000 && microseconds < 25_000, String(microseconds));
  assert.ok(Math.min(...gigabytesPerSecond) > 1e-4, String(gigabytesPerSecond));
  // An exchange of one with one is one trip.
  assert.ok(allReduces[0].microseconds > 10_000, JSON.stringify(allReduces));
});

testHosts("A link that is cut for 3 s and restored holds the sums up, and they go on", { count: 3 }, async (hosts) => {
  const members = startMembers(hosts, { timeoutSeconds: 15 });
  await underWay(members);
  hosts[1].cut();
  await pause(1);
  const held = members.map(roundsOf);
  await pause(2);
  // Nobody can be more than a round ahead of one that is cut off.
  assert.deepEqual(members.map(roundsOf), held);
  hosts[1].restore();
  const target = Math.max(...held) + 20;
  await Promise.all(members.map((member) => member.until(new RegExp(`round ${target}\\n`), 15)));
});

testHosts("A link that is cut for good ends the group within its limit, by name", { count: 3 }, async (hosts) => {
  const members = startMembers(hosts, { timeoutSeconds: 4 });
  await underWay(members);
  const start = performance.now();
  hosts[1].cut();
  const messages = await assertFailed(members, 4 + 4);
  assert.ok(performance.now() - start > 3500, messages.join("\n"));
  // The host that was cut off blames a neighbour, as it must: for it they are gone.
  assertNamed([messages[0], messages[2]], hosts[1]);
});

for (const signal of ["SIGKILL", "SIGSTOP"] as const) {
  const limit = 4;
  testHosts(`${signal} of each host in turn ends the group on the others, by name`, { count: 3 }, async (hosts) => {
    for (const lost of hosts) {
      const members = startMembers(hosts, { timeoutSeconds: limit });
      await underWay(members);
      const start = performance.now();
      lost.signal(signal);
      const survivors = members.filter((_, i) => hosts[i] !== lost);
      const messages = await assertFailed(survivors, limit + 4);
      assertNamed(messages, lost);
      const seconds = (performance.now() - start) / 1000;
      if (signal === "SIGKILL") assert.ok(seconds < 2, `${seconds} s`);
      else assert.ok(seconds > limit - 0.5, `${seconds} s`);
      lost.signal("SIGKILL");
      await members[hosts.indexOf(lost)].within(5);
    }
  });
}

testHosts("A host that is stopped for less than the limit and goes on is waited for", { count: 3 }, async (hosts) => {
  const members = startMembers(hosts, { timeoutSeconds: 10 });
  await underWay(members);
  hosts[2].signal("SIGSTOP");
  await pause(3);
  hosts[2].signal("SIGCONT");
  const target = Math.max(...members.map(roundsOf)) + 20;
  await Promise.all(members.map((member) => member.until(new RegExp(`round ${target}\\n`), 15)));
});

testHosts("comm-bench ends by name when a host loses its power", { count: 3, rate: "100mbit" }, async (hosts) => {
  const common = ["comm-bench", "--nodes", "3", "--rendezvous", `${hosts[0].address}:29500`, "--sizes", "64MiB"];
  const running = hosts.map((host, i) =>
    host.muster([...common, "--timeout", "10", "--node-rank", String(i)], { env: { MUSTER_SECRET: secret } })
  );
  await running[0].until(/all-reduce 1 of 1/, 60);
  await pause(1);
  // Without a word: what the system would say at the end of a process no longer gets out.
  hosts[2].cut();
  hosts[2].signal("SIGKILL");
  const ended = await Promise.all(running.slice(0, 2).map((one) => one.within(10 + 5)));
  for (const { code, stderr } of ended) {
    assert.equal(code, 1);
    assert.match(stderr, /\nmuster: Cannot .* node \d \(host\d, .*\n$|^muster: Cannot .* node \d \(host\d, .*\n$/);
  }
  // The other may blame its neighbour: comm-bench does not ask its world who was lost.
  assert.ok(ended.some(({ stderr }) => stderr.includes(`(${hosts[2].name},`)));
});
