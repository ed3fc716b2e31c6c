/**
 * Training on separate hosts gives what one rank gives, also when a host fails. `SURVIVAL_ROUNDS` (24) and `SURVIVAL_SEED` (1) say
 * how many faults, and which; the number of a round is in its name, and `SURVIVAL_ONLY=7` repeats it.
 */

import assert from "node:assert/strict";
import { type HostsOptions, testHosts, withHosts } from "./hosts.ts";
import { assertDone, describe, faultOf, lossesOf, type Round, startTraining, steps, survive } from "./survival.ts";

const rounds = Number(Deno.env.get("SURVIVAL_ROUNDS") ?? 24);
const seed = Number(Deno.env.get("SURVIVAL_SEED") ?? 1);
const only = Deno.env.get("SURVIVAL_ONLY");
const count = 3;
/** A step moves some 190 KB: it then takes long enough for hosts to fail within, and to come back. */
const rate = "5mbit";

async function inFolder<T>(body: (folder: string) => Promise<T>): Promise<T> {
  const folder = Deno.makeTempDirSync();
  try {
    return await body(folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

let known: Promise<ReadonlyMap<number, number>> | undefined;
/** The losses of one rank that nothing disturbs. */
function undisturbed(): Promise<ReadonlyMap<number, number>> {
  return known ??= inFolder(async (folder) => {
    let losses = new Map<number, number>();
    await withHosts({ count: 1 }, async (hosts) => {
      const ended = await startTraining(hosts, 0, folder, { devices: "0" }).within(120);
      losses = lossesOf(ended.stdout);
      assertDone(ended, losses);
    });
    assert.equal(losses.size, steps);
    return losses;
  });
}

const parities: readonly (readonly string[])[] = [["0,0,0,0"], ["0,0", "0,0"], ["0", "0", "0", "0"], ["0,0", "0"]];
for (const devices of only === undefined ? parities : []) {
  const ranks = devices.map((list) => list.split(",").length).join(" + ");
  const name = `${devices.length} ${
    devices.length === 1 ? "host" : "hosts"
  } with ${ranks} ranks: the losses of one rank`;
  testHosts(name, { count: devices.length }, async (hosts) => {
    const reference = await undisturbed();
    await inFolder(async (folder) => {
      const running = hosts.map((_, i) => startTraining(hosts, i, folder, { devices: devices[i] }));
      const ended = await Promise.all(running.map((one) => one.within(180)));
      for (const one of ended) assertDone(one, reference);
      assert.equal(new Set(ended.flatMap(({ stdout }) => [...lossesOf(stdout).keys()])).size, steps);
    });
  });
}

const came: Round[] = [];
const options: HostsOptions = { count, rate };
for (let round = 0; round < rounds; round++) {
  if (only !== undefined && Number(only) !== round) continue;
  const fault = faultOf(round, seed, count);
  testHosts(`Round ${round} of seed ${seed}: ${describe(fault)}`, options, async (hosts) => {
    const reference = await undisturbed();
    const result = await inFolder((folder) => survive(hosts, fault, folder, reference));
    console.log(`round ${round}: ${describe(fault)}; it returned ${result.returned}; ${result.seconds.toFixed(1)} s`);
    if (fault.back !== undefined) came.push(result);
  });
}

if (only === undefined) {
  testHosts("Of the hosts that came back most did so before the others were done", { count: 1 }, () => {
    const inTime = came.filter(({ returned }) => returned === "in time").length;
    console.log(`${inTime} of ${came.length} hosts that came back were there at the end`);
    assert.ok(2 * inTime > came.length, `${inTime} of ${came.length}`);
    return Promise.resolve();
  });
}
