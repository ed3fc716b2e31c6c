/** Training on several hosts of which one fails: what is done to it, and what must come of it. */

import assert from "node:assert/strict";
import type { TrainEvent } from "../../train/events.ts";
import type { Host } from "./hosts.ts";
import { secret } from "./member.ts";
import type { Ended, Running } from "./running.ts";

/** What happens to a host. */
export interface Fault {
  /** Its process is killed, or stopped; its cable is pulled; or both at once, as when the power fails. */
  readonly kind: "kill" | "stop" | "cut" | "power";
  readonly host: number;
  /** The step after which it happens. */
  readonly step: number;
  /** Seconds until it is started again, goes on, or has its cable back; undefined: never. */
  readonly back: number | undefined;
}

/** Steps of a run. */
export const steps = 60;
/** Largest difference of a loss from that of one rank: sums are made in another order. */
const tolerance = 1e-4;
/** Seconds without a sign of life behind which a host is lost. */
const peerTimeoutSeconds = 3;
/** Seconds in which a round must be over. */
const roundSeconds = 120;
/** Seconds in which who comes back must find the others; they may be done. */
const rendezvousSeconds = 20;

const kinds: readonly Fault["kind"][] = ["kill", "stop", "cut", "power"];
/** Never; before the others miss it; long after. */
const backs: readonly Fault["back"][] = [undefined, 1, 2 * peerTimeoutSeconds];

/** Numbers from 0 to 1 (mulberry32). */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The fault of a round: kinds and returns in turn, host and step by chance. */
export function faultOf(round: number, seed: number, hosts: number): Fault {
  const random = randomNumbers(seed + 1000 * round);
  return {
    kind: kinds[round % kinds.length],
    back: backs[Math.floor(round / kinds.length) % backs.length],
    host: Math.floor(random() * hosts),
    step: 2 + Math.floor(random() * (steps / 2)),
  };
}

/** A fault in words. */
export function describe({ kind, host, step, back }: Fault): string {
  const what = { kill: "is killed", stop: "is stopped", cut: "is cut off", power: "loses its power" }[kind];
  const again = { kill: "started again", stop: "goes on", cut: "is linked again", power: "started again" }[kind];
  return `host${host} ${what} behind step ${step}${back === undefined ? "" : `, and ${again} after ${back} s`}`;
}

const text = Array.from({ length: 300 }, (_, i) => `${i}. the whale swam for ${i % 7} days\n`).join("");
const settings = Object.entries({
  data: "text.txt",
  layers: 2,
  heads: 2,
  width: 32,
  "sequence-length": 16,
  // Shared out evenly among 1, 2, 3 and 4.
  "batch-size": 12,
  steps,
  "eval-interval": 0,
  "eval-batches": 1,
  "checkpoint-interval": 20,
}).flatMap(([name, value]) => [`--${name}`, String(value)]);

/** A folder of a host's own in `parent`, with the text in it. */
function folderOf(parent: string, host: Host): string {
  const folder = `${parent}/${host.name}`;
  Deno.mkdirSync(folder, { recursive: true });
  Deno.writeTextFileSync(`${folder}/text.txt`, text);
  return folder;
}

/** Starts the training on a host; `life` tells its run folders apart. */
export function startTraining(
  hosts: readonly Host[],
  i: number,
  parent: string,
  { devices, life = 1 }: { readonly devices: string; readonly life?: number },
): Running {
  const together = hosts.length === 1 ? [] : [
    ["--nodes", hosts.length],
    ["--rendezvous", `${hosts[0].address}:29500`],
    ["--min-nodes", Math.min(2, hosts.length)],
    ["--peer-timeout", peerTimeoutSeconds],
    ["--rendezvous-timeout", rendezvousSeconds],
    ["--commit-steps", 5],
  ].flat().map(String);
  const folder = folderOf(parent, hosts[i]);
  return hosts[i].muster(["train", "--json", ...settings, "--devices", devices, "--out", `run${life}`, ...together], {
    cwd: folder,
    env: { MUSTER_CACHE: `${folder}/cache`, MUSTER_SECRET: secret, LP_NUM_THREADS: "1" },
  });
}

/** The events that a run has told. */
export function eventsOf(stdout: string): TrainEvent[] {
  return stdout.split("\n").filter((line) => line.startsWith("{") && line.endsWith("}")).map((line) =>
    JSON.parse(line)
  );
}

/** The loss of each step; of a step that was made again the last. */
export function lossesOf(stdout: string): Map<number, number> {
  return new Map(eventsOf(stdout).flatMap((event) => event.event === "step" ? [[event.step, event.loss]] : []));
}

/** Every loss that was told of a step, also before it was made again, is that of one rank. */
export function assertLosses(stdout: string, reference: ReadonlyMap<number, number>): void {
  for (const event of eventsOf(stdout)) {
    if (event.event !== "step") continue;
    const expected = reference.get(event.step)!;
    assert.ok(Math.abs(event.loss - expected) < tolerance, `step ${event.step}: ${event.loss}, not ${expected}`);
  }
}

/** The run came to its end. */
export function assertDone({ code, stdout, stderr }: Ended, reference: ReadonlyMap<number, number>): void {
  assert.equal(code, 0, `${stderr.slice(-2000)}\n${stdout.slice(-2000)}`);
  assertLosses(stdout, reference);
  const done = eventsOf(stdout).find((event) => event.event === "done");
  assert.ok(done && done.event === "done" && done.step === steps, stdout.slice(-1000));
  const expected = reference.get(steps)!;
  assert.ok(Math.abs(done.loss - expected) < tolerance, `the end: ${done.loss}, not ${expected}`);
}

/** Where the last checkpoint is. */
export function lastCheckpoints(parent: string): string[] {
  const name = `step-${String(steps).padStart(8, "0")}`;
  const found = [...Deno.readDirSync(parent)].flatMap((host) =>
    [...Deno.readDirSync(`${parent}/${host.name}`)].filter(({ name }) => name.startsWith("run"))
      .map((run) => `${parent}/${host.name}/${run.name}/checkpoints/${name}`)
  );
  return found.filter((path) => {
    try {
      return Deno.statSync(path).isDirectory;
    } catch {
      return false;
    }
  });
}

/** The last checkpoint is there and whole. */
export async function assertCheckpoint(host: Host, parent: string): Promise<void> {
  const paths = lastCheckpoints(parent);
  assert.ok(paths.length > 0, "There is no checkpoint of the last step");
  for (const path of paths) {
    const args = ["eval", "--checkpoint", path, "--data", "text.txt", "--sequences", "4", "--json"];
    const env = { MUSTER_CACHE: `${parent}/${host.name}/cache`, LP_NUM_THREADS: "1" };
    const { code, stdout, stderr } = await host.muster(args, { cwd: `${parent}/${host.name}`, env }).within(60);
    assert.equal(code, 0, stderr);
    assert.ok(JSON.parse(stdout).loss < 3, stdout);
  }
}

const pause = (seconds: number) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

/** What came of a round. */
export interface Round {
  /** The host that failed: it was there at the end; it came back when the others were done; it did not come back. */
  readonly returned: "in time" | "too late" | "not";
  readonly seconds: number;
}

/** Trains on all hosts, has one fail, and checks all that must be true then. */
export async function survive(
  hosts: readonly Host[],
  fault: Fault,
  parent: string,
  reference: ReadonlyMap<number, number>,
): Promise<Round> {
  const start = performance.now();
  const running = hosts.map((_, i) => startTraining(hosts, i, parent, { devices: "0" }));
  const { kind, step, back } = fault;
  const failing = hosts[fault.host];
  await Promise.any(running.map((one) => one.until(new RegExp(`"event":"step","step":${step},`), 60)));
  if (kind === "cut" || kind === "power") failing.cut();
  if (kind === "stop") failing.signal("SIGSTOP");
  if (kind === "kill" || kind === "power") failing.signal("SIGKILL");
  let failed: Running | undefined = running[fault.host];
  const comeBack = async () => {
    if (back === undefined) return;
    await pause(back);
    if (kind === "stop") failing.signal("SIGCONT");
    if (kind === "cut" || kind === "power") failing.restore();
    if (kind === "kill" || kind === "power") {
      failed = startTraining(hosts, fault.host, parent, { devices: "0", life: 2 });
    }
  };
  const returning = comeBack();
  const survivors = running.filter((_, i) => i !== fault.host);
  const ended = await Promise.all(survivors.map((one) => one.within(roundSeconds)));
  await returning;
  for (const one of ended) assertDone(one, reference);
  // Who reports steps depends on who leads; together all must be there.
  const told = new Set(running.flatMap((one) => [...lossesOf(one.text.stdout).keys()]));
  assert.equal(told.size, steps);
  let returned: Round["returned"] = "not";
  if (back === undefined && kind !== "cut") {
    failing.signal("SIGKILL");
    await failed.within(10);
    assertLosses(failed.text.stdout, reference);
  } else {
    const last = await failed.within(rendezvousSeconds + 20);
    assertLosses(last.stdout, reference);
    if (last.code === 0) {
      assert.ok(back !== undefined, "A host that was alone went on");
      assertDone(last, reference);
      returned = "in time";
    } else {
      // It found nobody: a fault of machines, in a sentence.
      assert.equal(last.code, 1, last.stderr);
      assert.match(last.stderr, /^muster: \S.*$/m);
      if (back !== undefined) returned = "too late";
    }
  }
  for (const host of hosts) host.restore();
  const survivor = hosts.find((host) => host !== failing)!;
  await assertCheckpoint(survivor, parent);
  for (const host of hosts) {
    for (let tries = 0; host.processes().length > 0; tries++) {
      assert.ok(tries < 20, `${host.name} still has processes`);
      await pause(0.1);
    }
  }
  return { returned, seconds: (performance.now() - start) / 1000 };
}
