/**
 * How much of a 1 Gbit/s line all-reduces use. The line is `tc tbf` on what each host sends; it counts Ethernet frames with their
 * 14 bytes of header. Of a frame of 1500 bytes TCP and IP with timestamps leave 1448 for what is sent, 95.6% of what the line
 * counts; of one of 9000 bytes 8948, 99.3%. The bytes that the bucket gives away after a silence are not counted as sent.
 *
 * All hosts share the cores of this machine, so a run in which others work is repeated; the best of a few counts.
 */

import assert from "node:assert/strict";
import { burstBytes, type Host, testHosts } from "./hosts.ts";
import { secret } from "./member.ts";

const lineBitsPerSecond = 1e9;
const sizes = ["4MiB", "16MiB", "64MiB"];
/** Of what the line can carry. */
const least = 0.95;
const runsMost = 6;

interface Row {
  readonly bytes: number;
  readonly microseconds: number;
}

/** Times of the all-reduces. */
async function measure(hosts: readonly Host[]): Promise<readonly Row[]> {
  const common = ["--nodes", String(hosts.length), "--rendezvous", `${hosts[0].address}:29500`];
  const args = ["comm-bench", ...common, "--sizes", sizes.join(","), "--json", "--node-rank"];
  const running = hosts.map((host, i) => host.muster([...args, String(i)], { env: { MUSTER_SECRET: secret } }));
  const ended = await Promise.all(running.map((one) => one.within(180)));
  for (const { code, stderr } of ended) assert.equal(code, 0, stderr);
  return JSON.parse(ended[0].stdout).allReduces;
}

for (const count of [2, 4]) {
  for (const mtu of [1500, 9000]) {
    const name = `${count} hosts use 95% of what a 1 Gbit/s line carries in frames of ${mtu} bytes, from 4 MiB on`;
    testHosts(name, { count, mtu, rate: "1gbit" }, async (hosts) => {
      const payload = (mtu - 52) / (mtu + 14);
      const best = sizes.map(() => 0);
      let runs = 0;
      do {
        for (const [i, { bytes, microseconds }] of (await measure(hosts)).entries()) {
          const sent = 2 * (count - 1) / count * bytes - burstBytes;
          best[i] = Math.max(best[i], 8 * sent / (microseconds / 1e6) / lineBitsPerSecond);
        }
      } while (++runs < runsMost && best.some((share) => share < least * payload));
      const percent = (share: number) => `${(100 * share).toFixed(1)}%`;
      const rows = best.map((share, i) =>
        `  ${sizes[i].padEnd(6)} ${percent(share)} of the line, ${percent(share / payload)} of what it can carry`
      );
      console.log(`${count} hosts, frames of ${mtu} bytes, best of ${runs} runs\n${rows.join("\n")}`);
      for (const [i, share] of best.entries()) assert.ok(share >= least * payload, `${sizes[i]}: ${rows[i].trim()}`);
    });
  }
}
