/** `muster plan --nodes`: its tables, its JSON, what it refuses. */

import assert from "node:assert/strict";

const entry = new URL("../../cli.ts", import.meta.url).pathname;
const gpus = ["--ranks", "2", "--tflops", "1", "--vocab-size", "256", "--layers", "2"];

async function plan(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", entry, "plan", ...args],
    env: { NO_COLOR: "1" },
    stdin: "null",
  }).output();
  const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: decode(stdout), stderr: decode(stderr) };
}

Deno.test("muster plan --nodes prints what it predicts for 1, 2, 4, … machines and for each algorithm", async () => {
  const given = ["--nodes", "6", "--link", "25Gbit,30us", "--batch-size", "24"];
  const { code, stdout, stderr } = await plan(...given, ...gpus);
  assert.equal(code, 0, stderr);
  assert.match(
    stdout,
    /^batch +24 sequences .*\n[\s\S]*^machines 6, .* as f32\nlink +25 Gbit\/s, 30 µs; .* 9\.6 Gbit\/s$/m,
  );
  assert.match(stdout, /\nPredicted, .*nothing here was measured/);
  const [, weak, strong] = stdout.split(/^machines +batch .*\n/m);
  for (const table of [weak, strong]) {
    assert.deepEqual([...table.matchAll(/^(\d+) .*%$/gm)].map(([, count]) => count), ["1", "2", "4", "6"]);
  }
  assert.match(weak, /^1 +4 .* 100%\n2 +8 /);
  assert.match(strong, /^1 +24 .* 100%\n2 +24 /);
  for (const algorithm of ["auto", "ring", "doubling", "halving"]) {
    assert.match(stdout, new RegExp(`^\\*? +dp 2 +${algorithm} .*iB$`, "m"));
  }
  assert.match(stdout, /\n\* .* a step on 6 machines, .*\n {2}train with --nodes 6 --dp /);
  for (const line of stdout.split("\n")) assert.ok(line.length <= 120, line);
});

Deno.test("muster plan --nodes --json has every prediction, marked as such", async () => {
  const flags = ["--nodes", "1000", "--link", "1Gbit,1ms,2GB/s", "--grad-compression", "bf16", "--batch-size", "4000"];
  const { code, stdout, stderr } = await plan(...flags, ...gpus, "--json");
  assert.equal(code, 0, stderr);
  const { machines, meshes, pick } = JSON.parse(stdout);
  assert.equal(machines.predicted, true);
  assert.equal(machines.gradCompression, "bf16");
  assert.equal(machines.nodes, 1000);
  assert.deepEqual([machines.link.bytesPerSecond, machines.link.threadBytesPerSecond], [125e6, 2e9]);
  const counts = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000];
  for (const table of [machines.weak, machines.strong]) {
    assert.deepEqual(table.map((one: { machines: number }) => one.machines), counts);
  }
  assert.equal(machines.combinations.length, meshes.length);
  for (const one of [...machines.weak, ...machines.strong, ...machines.combinations]) {
    const { hiddenMilliseconds, exposedMilliseconds, communicationMilliseconds, milliseconds } = one;
    assert.ok(Math.abs(hiddenMilliseconds + exposedMilliseconds - communicationMilliseconds) < 1e-6);
    assert.ok(milliseconds > exposedMilliseconds);
  }
  const [best] = machines.combinations;
  assert.deepEqual([pick.dp, pick.pp, pick.tp], [best.dp, best.pp, best.tp]);
});

Deno.test("muster plan refuses machines that make no sense, in one sentence", async () => {
  const cases: [string[], RegExp][] = [
    [["--link", "1Gbit,1ms"], /--link is of what goes between machines: say with --nodes how many/],
    [["--nodes", "0"], /--nodes is "0", but must be a whole number, at least 1/],
    [["--nodes", "2", "--link", "fast"], /--link is "fast", which has no latency: write .* like 25Gbit,30us/],
    [
      ["--nodes", "2", "--grad-compression", "int4"],
      /--grad-compression is int4, but must be one of none, f16, bf16, int8/,
    ],
    [["--nodes", "1000"], /--batch-size 4 is less than one sequence for each of --nodes 1000 machines/],
  ];
  for (const [args, message] of cases) {
    const { code, stdout, stderr } = await plan(...args, ...gpus);
    assert.equal(code, 2, stderr);
    assert.match(stderr, message);
    assert.match(stderr, /^muster: [^\n]+\n$/);
    assert.equal(stdout, "");
  }
});
