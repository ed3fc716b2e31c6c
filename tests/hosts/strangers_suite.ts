/** Strangers in the network while hosts meet and measure: nobody gets in, nobody is disturbed, no memory is kept. */

import assert from "node:assert/strict";
import { testHosts } from "./hosts.ts";
import { secret } from "./member.ts";
import type { StrangerReport } from "./stranger.ts";

const pause = (seconds: number) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
/** Time for an opener to prove itself, as `network/listener.ts` has it. */
const openingSeconds = 10;

/** Resident memory of a process, in MiB. */
function residentMiB(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`))![1]) / 1024;
}

testHosts("Strangers do not disturb hosts that meet and measure", { count: 4 }, async (hosts) => {
  const [first, second, third, elsewhere] = hosts;
  const common = ["comm-bench", "--nodes", "3", "--rendezvous", `${first.address}:29500`, "--sizes", "64KiB,16MiB"];
  // With its usual freedom the heap of a program that keeps nothing grows from 80 to 150 MiB in 100,000 connections.
  const flags = ["--v8-flags=--max-semi-space-size=1,--max-old-space-size=40"];
  const start = (i: number) =>
    hosts[i].muster([...common, "--json", "--node-rank", String(i)], { env: { MUSTER_SECRET: secret } }, flags);
  const early = [start(0), start(1)];
  while ([first, second].some((host) => host.listening().length === 0)) await pause(0.1);
  const targets = [first, second].flatMap((host) => host.listening());
  assert.equal(targets.length, 2);
  const script = new URL("stranger.ts", import.meta.url).pathname;
  const strangers = elsewhere.run([Deno.execPath(), "run", "-A", "--quiet", script, "30", ...targets]);
  // The code that refuses is compiled by then.
  await pause(10);
  const before = early.map(({ pid }) => residentMiB(pid));
  await pause(13);
  const after = early.map(({ pid }) => residentMiB(pid));
  const ended = await Promise.all([...early, start(2)].map((running) => running.within(60)));
  for (const { code, stderr } of ended) assert.equal(code, 0, stderr.slice(-1000));
  const { nodes, links, allReduces } = JSON.parse(ended[0].stdout);
  assert.match(nodes[2], new RegExp(`${third.name}, ${third.address}`));
  assert.deepEqual([links.length, allReduces.length], [3, 2]);
  const { stdout, stderr } = await strangers.within(60);
  const { tried, admitted, lorisSeconds }: StrangerReport = JSON.parse(stdout);
  assert.deepEqual(admitted, [], stderr);
  for (const [kind, count] of Object.entries(tried)) assert.ok(count > 50, `${kind}: ${count}`);
  // Those who send a byte now and then, or nothing, have the time of one opening, not of each byte.
  assert.ok(lorisSeconds.length >= 2 && Math.min(...lorisSeconds) > 1, lorisSeconds.join());
  assert.ok(Math.max(...lorisSeconds) < openingSeconds + 2, lorisSeconds.join());
  console.log(JSON.stringify({ tried, lorisSeconds, before, after }));
  for (const [i, resident] of after.entries()) {
    assert.ok(resident - before[i] < 4, `node ${i} grew from ${before[i]} to ${resident} MiB`);
  }
  assert.match(ended[0].stderr, /Refused a connection: 10\.77\.0\.4:\d+ does not speak Muster's protocol/);
});
