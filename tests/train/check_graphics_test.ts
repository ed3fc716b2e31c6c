import assert from "node:assert/strict";
import type { DeviceDescription } from "../../gpu/list.ts";
import { checkDevices, checkDrivers } from "../../train/check_graphics.ts";
import { checkTraining } from "../../train/check_training.ts";

const states = (findings: readonly { state: string }[]) => findings.map(({ state }) => state);

Deno.test({
  name: "checkDrivers() tells a loader from none, and manifests that are there from those that are not",
  ignore: Deno.build.os !== "linux",
  fn: () => {
    const here = new URL(import.meta.url).pathname;
    assert.deepEqual(states(checkDrivers("1.3.239", [here])), ["ok", "ok"]);
    assert.deepEqual(states(checkDrivers("1.3.239", [here, "/nonexistent"])), ["ok", "warning"]);
    assert.deepEqual(states(checkDrivers("1.3.239", ["/nonexistent"])), ["ok", "failed"]);
    const neither = checkDrivers(null, []);
    assert.deepEqual(states(neither), ["failed", "failed"]);
    for (const { remedy } of neither) assert.match(remedy!, /^install a Vulkan driver \(.*\)$/);
    assert.deepEqual(states(checkDrivers(null, [here], false)), ["warning", "ok"]);
    const [{ found }] = checkDrivers();
    assert.match(found, /^1\.\d+\.\d+$/, "this machine has a loader");
  },
});

const device: DeviceDescription = {
  index: 0,
  name: "Fast Card",
  vendor: "NVIDIA",
  type: "discrete",
  driver: "driver 1",
  memoryBytes: 8 * 2 ** 30,
  freeBytes: undefined,
  pci: undefined,
  facts: {
    name: "Fast Card",
    vendor: "NVIDIA",
    software: false,
    features: ["subgroups"],
    subgroupSizes: [32, 32],
    limits: {
      maxBufferSize: 2 ** 30,
      maxStorageBufferBindingSize: 2 ** 30,
      maxStorageBuffersPerShaderStage: 8,
      maxComputeWorkgroupStorageSize: 32768,
      maxComputeInvocationsPerWorkgroup: 1024,
      maxComputeWorkgroupsPerDimension: 65535,
    },
  },
  reason: undefined,
};

Deno.test("checkDevices() tells GPUs that open, that do not, that offer too little, and that there are none", async () => {
  const look = (devices: readonly DeviceDescription[], fault?: string) =>
    checkDevices(() => Promise.resolve({ told: [devices], code: fault ? 1 : 0, fault }));
  const one = await look([device]);
  assert.deepEqual(states(one.findings), ["ok", "ok"]);
  assert.equal(one.findings[0].found, "Fast Card, discrete, driver 1, 8.00 GiB");
  assert.equal(
    one.findings[1].found,
    "subgroups of 32, no f16 (--precision bf16 works), bindings of 1.00 GiB, buffers of 1.00 GiB, workgroups of 1024 with 32 KiB",
  );

  const shut = { ...device, index: 1, facts: undefined, reason: "it cannot be told from the others" };
  const mixed = await look([device, shut]);
  assert.deepEqual(states(mixed.findings), ["ok", "ok", "failed"]);
  assert.match(mixed.findings[2].found, /it cannot be told from the others/);
  assert.deepEqual(mixed.usable, [device]);

  const limits = { ...device.facts!.limits, maxComputeInvocationsPerWorkgroup: 128 };
  const small = await look([{ ...device, type: "software", facts: { ...device.facts!, limits } }]);
  assert.deepEqual(states(small.findings), ["warning", "warning"]);
  assert.match(small.findings[1].found, /maxComputeInvocationsPerWorkgroup is 128, not 256/);

  assert.equal((await look([], "No GPU or software Vulkan driver was found")).findings[0].found, "none was found");
  const crashed = await checkDevices(() =>
    Promise.resolve({ told: [], code: 139, fault: "its process was ended by SIGSEGV" })
  );
  assert.equal(crashed.findings[0].found, "they cannot be listed: its process was ended by SIGSEGV");
  assert.match(crashed.findings[0].remedy!, /^update the graphics driver/);
  assert.deepEqual(crashed.usable, []);
});

Deno.test("checkTraining() passes the known losses and fails others, missing ones, and what is not a number", async () => {
  const known = [5.551568, 5.056271, 4.669102];
  const look = (losses: readonly number[], fault?: string) => {
    const told = losses.map((loss, i) => ({ event: "step", step: i + 1, loss }));
    return checkTraining(0, 1, () => Promise.resolve({ told, code: 0, fault }));
  };
  assert.equal((await look(known)).state, "ok");
  assert.equal((await look(known.map((loss) => loss * (1 + 5e-5)))).state, "ok");
  for (const i of [0, 1, 2]) {
    const off = await look(known.map((loss, j) => i === j ? loss * (1 + 2e-4) : loss));
    assert.equal(off.state, "failed");
    assert.match(off.found, /^its losses are .*, but must be 5\.5516, 5\.0563, 4\.6691$/);
  }
  assert.equal((await look(known.slice(0, 2))).state, "failed");
  assert.equal((await look([known[0], known[1], NaN])).state, "failed");
  const before = Deno.env.get("TMPDIR");
  Deno.env.set("TMPDIR", "/nonexistent");
  try {
    assert.match((await checkTraining(0)).found, /^the folder of temporary files cannot be written/);
  } finally {
    if (before === undefined) Deno.env.delete("TMPDIR");
    else Deno.env.set("TMPDIR", before);
  }
  assert.equal((await look(known, "it did not end within 1 s")).found, "it did not end within 1 s");
});
