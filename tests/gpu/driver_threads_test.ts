/** Threads of lavapipe: how many for devices and cores, and that a device is opened with them. */

import assert from "node:assert/strict";
import { prepareThreads, threadsOf } from "../../gpu/driver_threads.ts";

Deno.test("one software device has two threads for each core, several have their share of the cores", () => {
  const cases: [cores: number, devices: number, threads: number | undefined][] = [
    [2, 1, 4],
    [16, 1, 32],
    // Mesa takes no more than 32: shares would be unequal among 17 cores.
    [17, 1, undefined],
    [1, 1, undefined],
    [2, 2, 1],
    [8, 2, 4],
    [2, 4, 1],
  ];
  assert.deepEqual(cases.map(([cores, devices]) => threadsOf(cores, devices)), cases.map(([, , threads]) => threads));
});

/** Opens the device in a process of its own: which it is, what was set, and how many threads that brought. */
async function open(wanted: string | undefined): Promise<{ name: string; set?: string; threads: number }> {
  const module = new URL("../../gpu/open.ts", import.meta.url).href;
  const program = `const count = () => [...Deno.readDirSync("/proc/self/task")].length;
    const before = count();
    const { capabilities: { name } } = await (await import(${JSON.stringify(module)})).openDevice();
    console.log(JSON.stringify({ name, set: Deno.env.get("LP_NUM_THREADS"), threads: count() - before }));
    Deno.exit();`;
  const { LP_NUM_THREADS: _, ...environment } = Deno.env.toObject();
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["eval", program],
    clearEnv: true,
    env: wanted === undefined ? environment : { ...environment, LP_NUM_THREADS: wanted },
  }).output();
  assert.ok(stdout.length > 0, new TextDecoder().decode(stderr));
  return JSON.parse(new TextDecoder().decode(stdout));
}

Deno.test({
  name: "lavapipe makes as many threads as are asked for, and the user's number stays",
  ignore: Deno.build.os !== "linux",
  fn: async () => {
    const [one, six, own] = [await open("1"), await open("6"), await open(undefined)];
    const expected = threadsOf(navigator.hardwareConcurrency, 1);
    assert.deepEqual([one.set, six.set, own.set], ["1", "6", expected?.toString()]);
    if (!one.name.startsWith("llvmpipe")) return;
    // Each that computes comes with one that would draw, and the driver may be loaded twice.
    const each = (six.threads - one.threads) / 5;
    assert.ok(each >= 2, `${one.threads} and ${six.threads} threads`);
    if (expected) assert.equal(own.threads - one.threads, each * (expected - 1));
  },
});

Deno.test("several devices have their share also where one was opened alone before, and the other way round", () => {
  const variable = "LP_NUM_THREADS";
  const before = Deno.env.get(variable);
  // Under a number that the user has set nothing changes.
  const expected = (devices: number) => before ?? threadsOf(navigator.hardwareConcurrency, devices)?.toString();
  try {
    for (const devices of [1, 2, 1, 4]) {
      prepareThreads(devices);
      assert.equal(Deno.env.get(variable), expected(devices));
    }
  } finally {
    if (before === undefined) Deno.env.delete(variable);
    else Deno.env.set(variable, before);
  }
});
