/** Separate hosts, in short; what takes longer is in the suites beside (`deno task test:hosts`). */

import assert from "node:assert/strict";
import { type Host, testHosts, whyNoHosts, withHosts } from "./hosts.ts";
import { resultOf, secret, startMembers } from "./member.ts";

/** Starts `muster comm-bench` on a host. */
const bench = (host: Host, args: readonly string[], given: Readonly<Record<string, string>>) =>
  host.muster(["comm-bench", ...args], { env: given });

testHosts("Three hosts with a secret measure their links, and each listens on its own interface only", {
  count: 3,
  rate: "200mbit",
}, async (hosts) => {
  const file = Deno.makeTempFileSync();
  try {
    Deno.writeTextFileSync(file, `${secret}\n`);
    Deno.chmodSync(file, 0o600);
    const rendezvous = `${hosts[0].address}:29500`;
    const common = ["--nodes", "3", "--rendezvous", rendezvous, "--sizes", "4KiB,1MiB", "--json"];
    const early = hosts.slice(0, 2).map((host, i) =>
      bench(host, [...common, "--node-rank", String(i), "--secret-file", file], {})
    );
    for (const end = performance.now() + 20_000; hosts.slice(0, 2).some((host) => host.listening().length === 0);) {
      assert.ok(performance.now() < end, early.map(({ text }) => text.stderr).join());
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    assert.deepEqual(hosts[0].listening(), [rendezvous]);
    assert.match(hosts[1].listening().join(), /^10\.77\.0\.2:\d+$/);
    const late = bench(hosts[2], [...common, "--node-rank", "2"], { MUSTER_SECRET: secret });
    const [first, ...others] = await Promise.all([...early, late].map((running) => running.within(60)));
    for (const { code, stderr } of [first, ...others]) assert.equal(code, 0, stderr);
    const { nodes, links, allReduces } = JSON.parse(first.stdout);
    assert.match(nodes[0], /^node 0 \(host0, 10\.77\.0\.1:29500\)$/);
    for (const i of [1, 2]) {
      assert.match(nodes[i], new RegExp(`^node ${i} \\(host${i}, 10\\.77\\.0\\.${i + 1}:\\d+\\)$`));
    }
    const speeds = links.flatMap(({ gigabytesPerSecond }: { gigabytesPerSecond: number[] }) => gigabytesPerSecond);
    assert.equal(speeds.length, 6);
    // 200 Mbit/s are 0.025 GB/s, of which headers take their part: the hosts are as slow as they were made.
    for (const speed of speeds) assert.ok(speed < 0.0255 && speed > 0.015, String(speeds));
    assert.equal(allReduces.length, 2);
    assert.deepEqual(hosts.map((host) => host.listening()), [[], [], []]);
  } finally {
    Deno.removeSync(file);
  }
});

testHosts("Hosts without a secret do not meet", { count: 1 }, async ([host]) => {
  const args = ["--nodes", "2", "--rendezvous", `${host.address}:29500`, "--node-rank", "0"];
  const { code, stderr } = await bench(host, args, {}).within(20);
  assert.equal(code, 2);
  assert.match(stderr, /^muster: Without a shared secret only loopback addresses .*\n$/);
});

testHosts("A host that is killed in the midst of an all-reduce ends it on the others", { count: 3 }, async (hosts) => {
  const members = startMembers(hosts, { timeoutSeconds: 5 });
  await Promise.all(members.map((member) => member.until(/round 3\n/, 30)));
  hosts[1].signal("SIGKILL");
  const ended = await Promise.all([members[0], members[2]].map((member) => member.within(5)));
  for (const { stdout } of ended) {
    const result = resultOf(stdout);
    assert.ok(result.kind === "failed" && result.restartable, stdout.slice(-1000));
    assert.match(result.message, /^Lost node 1 \(host1, 10\.77\.0\.2:\d+\): /);
  }
});

const why = whyNoHosts();
Deno.test({
  name: why
    ? `What killed tests have left behind is taken away (skipped: ${why})`
    : "What killed tests have left is removed",
  ignore: why !== undefined,
  async fn() {
    const ip = (...args: string[]) => {
      const { success, stdout } = new Deno.Command("ip", { args: ["netns", ...args] }).outputSync();
      assert.ok(success, args.join(" "));
      return new TextDecoder().decode(stdout);
    };
    // No process has such a number.
    const stale = "muster-test-999999999-0-1";
    ip("add", stale);
    const left = new Deno.Command("ip", { args: ["netns", "exec", stale, "sleep", "600"] }).spawn();
    while (!ip("pids", stale).trim()) await new Promise((resolve) => setTimeout(resolve, 10));
    await withHosts({ count: 1 }, async ([host]) => {
      assert.equal((await left.status).signal, "SIGKILL");
      assert.ok(!ip("list").includes(stale));
      assert.ok(ip("list").includes(host.namespace));
      // It is ended with its host.
      host.run(["sleep", "600"]);
    });
    assert.ok(!ip("list").includes(`muster-test-${Deno.pid}-`));
  },
});
