import assert from "node:assert/strict";
import { kernelCases } from "../../bench/kernel_cases.ts";
import { median, roofline } from "../../bench/roofline.ts";
import { type BenchResult, select } from "../../bench/run.ts";
import { ceilingLines, kernelLine, stepLines } from "../../cli/bench.ts";
import { UserError } from "../../errors.ts";
import { runMuster } from "../cli/program.ts";

const top = new URL("../../", import.meta.url);

Deno.test("every op that kernels/ exports has an entry for muster bench and deno bench, its gradient too", async () => {
  const timed = new Set(kernelCases().map(({ definition }) => definition.name));
  const withGradient = new Set(
    kernelCases().filter(({ gradient }) => gradient !== false).map((c) => c.definition.name),
  );
  // What its gradient does is to hand the upstream on.
  withGradient.add("residualAdd");
  const found: string[] = [];
  for (const { name } of Deno.readDirSync(new URL("kernels", top))) {
    if (!name.endsWith(".ts")) continue;
    const exported: Record<string, unknown> = await import(new URL(`kernels/${name}`, top).href);
    for (const value of Object.values(exported)) {
      if (typeof value !== "object" || value === null || !("infer" in value && "lower" in value)) continue;
      const { name: op } = value as unknown as { name: string };
      found.push(op);
      assert.ok(timed.has(op), `kernels/${name}: bench/kernel_cases.ts has no case of ${op}`);
      if ("gradient" in value) assert.ok(withGradient.has(op), `bench/kernel_cases.ts has no gradient of ${op}`);
    }
  }
  assert.ok(found.length >= 20, found.join());
  const names = kernelCases().map(({ name }) => name);
  assert.equal(new Set(names).size, names.length);
});

Deno.test("roofline(): a kernel is bound by what takes it longer at the ceilings, and its share is that time over its own", () => {
  const ceilings = { flopsPerSecond: 1e11, bytesPerSecond: 1e10 };
  // 10 flop a byte is where both meet.
  const product = roofline({ flops: 2e9, bytes: 1e7, milliseconds: 50 }, ceilings);
  assert.equal(product.bound, "arithmetic");
  for (const [value, expected] of [[product.gflops, 40], [product.gigabytes, 0.2], [product.share, 0.4]]) {
    assert.ok(Math.abs(value - expected) < 1e-12);
  }
  const sum = roofline({ flops: 1e6, bytes: 1.2e7, milliseconds: 2 }, ceilings);
  assert.equal(sum.bound, "memory");
  assert.ok(Math.abs(sum.share - 0.6) < 1e-12);
  // The same by min(peak, intensity · bandwidth).
  for (const { flops, bytes } of [{ flops: 3e8, bytes: 7e7 }, { flops: 9e8, bytes: 1e6 }]) {
    const { gflops, share } = roofline({ flops, bytes, milliseconds: 20 }, ceilings);
    const attainable = Math.min(ceilings.flopsPerSecond, flops / bytes * ceilings.bytesPerSecond);
    assert.ok(Math.abs(gflops * 1e9 / attainable - share) < 1e-12);
  }
  assert.equal(median([5, 1, 9]), 5);
});

Deno.test("select(): all but medium by default, else what is named; an unknown name is told with those there are", () => {
  const all = select([]);
  assert.deepEqual([all.ceilings, all.cases.length, all.workloads], [true, kernelCases().length, ["small"]]);
  const some = select(["gelu", "matmul", "medium"]);
  assert.deepEqual([...new Set(some.cases.map(({ definition }) => definition.name))].sort(), ["gelu", "matmul"]);
  assert.deepEqual([some.ceilings, some.workloads], [false, ["medium"]]);
  assert.throws(
    () => select(["mathmul"]),
    (error) => error instanceof UserError && /mathmul.*matmul/.test(error.message),
  );
});

Deno.test("the table fits 80 columns", () => {
  const ceilings = {
    f32FlopsPerSecond: 82e12,
    f16FlopsPerSecond: null,
    copyBytesPerSecond: 9e11,
    readBytesPerSecond: 9.5e11,
    dispatchSeconds: 2e-6,
    submitSeconds: 4e-5,
    uploadBytesPerSecond: 1e10,
    readBackBytesPerSecond: 5e9,
  };
  const name = kernelCases().map(({ name }) => `${name} gradient`).reduce((a, b) => b.length > a.length ? b : a);
  const kernel = {
    name,
    op: "matmul",
    flops: 1,
    bytes: 1,
    ceilings: { flopsPerSecond: 1, bytesPerSecond: 1 },
    ...{ milliseconds: 1234.5, gflops: 98765, gigabytes: 1234, bound: "arithmetic", share: 1.02 } as const,
  };
  const step = {
    workload: "medium",
    milliseconds: 8000,
    tokensPerSecond: 1234567,
    modelFlops: 1.9e11,
    kernelFlops: 1.9e11,
    modelFlopsUtilization: 0.3,
    outsideGpu: null,
    losses: [10, 9],
  };
  const lines = [...ceilingLines(ceilings), kernelLine(kernel), ...stepLines(step)];
  for (const line of lines) assert.ok(line.length <= 80, `${line.length}: ${line}`);
  assert.match(lines.join("\n"), /82\.0 TFLOP\/s[\s\S]*not on this device[\s\S]*of the peak \(MFU\)/);
});

Deno.test("muster bench fillZero --json measures the op beside its ceilings and says so in JSON; mistakes end with 2", async () => {
  const { code, stdout, stderr } = await runMuster(["bench", "fillZero", "--json"]);
  assert.equal(code, 0, stderr);
  const { deno, device, kernels, steps, ...rest }: BenchResult & { deno: string } = JSON.parse(stdout);
  assert.equal(deno, Deno.version.deno);
  assert.ok(device.length > 0 && rest.subgroupSize >= 0);
  assert.deepEqual(steps, []);
  assert.equal(kernels.length, 1);
  const [{ name, op, milliseconds, flops, bytes, ceilings, bound, share, gigabytes }] = kernels;
  assert.deepEqual([name, op, flops, bytes, bound], ["fillZero 4096x3072", "fillZero", 0, 4 * 4096 * 3072, "memory"]);
  assert.ok(Math.abs(share - bytes / ceilings.bytesPerSecond / (milliseconds / 1e3)) < 1e-9);
  assert.ok(Math.abs(gigabytes - bytes / milliseconds / 1e6) < 1e-9);
  assert.ok(ceilings.flopsPerSecond > 1e8);
  const wrong = await runMuster(["bench", "nothing"]);
  assert.equal(wrong.code, 2);
  assert.match(wrong.stderr, /^muster: There is nothing to measure by the name nothing: ceilings, kernels, step, /);
  const many = await runMuster(["bench", "ceilings", "--devices", "0,0"]);
  assert.equal(many.code, 2);
  assert.match(many.stderr, /one GPU at a time/);
});
