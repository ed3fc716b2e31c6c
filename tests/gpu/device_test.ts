import assert from "node:assert/strict";
import { MachineError } from "../../errors.ts";
import { openDevice, requestDevice } from "../../gpu/open.ts";
import { withDevice } from "../kernels/harness.ts";

Deno.test("Device reads back what was written, in one piece and in many", () =>
  withDevice(async (device) => {
    const buffer = device.createBuffer(40 * 2 ** 20);
    const data = Uint32Array.from({ length: 10 * 2 ** 20 }, (_, i) => i * 2654435761);
    device.write(buffer, 0, data);
    const whole = new Uint32Array(data.length);
    await device.readBack(buffer, 0, whole);
    assert.deepEqual(whole, data);
    const few = new Uint32Array(3);
    for (let i = 0; i < 50; i++) {
      device.write(buffer, 400, Uint32Array.of(i, i + 1, i + 2));
      await device.readBack(buffer, 400, few);
      assert.deepEqual(few, Uint32Array.of(i, i + 1, i + 2));
    }
    buffer.destroy();
  }));

Deno.test("pipeline() leaves no compilation to the first dispatch", () =>
  withDevice(async (device) => {
    // Loads take long to compile; a text that no driver has in its cache.
    const loads = Array.from({ length: 24 }, (_, i) =>
      `sum += data[(${i}u * p.stride + ${Math.random()} * p.scale) % 7u];`);
    const code = `struct Parameters { stride: u32, scale: u32 }
@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> data: array<vec4f>;
@compute @workgroup_size(8) fn main() { var sum = vec4f(); ${loads.join(" ")} data[0] = sum; }`
      .replaceAll(/([\d.e-]+) \* p\.scale/g, (_, x) =>
        `${Math.floor(Number(x) * 1e6)}u * p.scale`);
    const started = performance.now();
    const pipeline = await device.pipeline({ file: "test", variant: "", code }, "b");
    const compiled = performance.now();
    const [uniform, buffer] = [GPUBufferUsage.UNIFORM, GPUBufferUsage.STORAGE].map((u) => device.createBuffer(256, u));
    const group = device.gpu.createBindGroup({
      layout: device.bindGroupLayout("b"),
      entries: [uniform, buffer].map((buffer, binding) => ({ binding, resource: { buffer } })),
    });
    const encoder = device.gpu.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(1);
    pass.end();
    const before = performance.now();
    device.gpu.queue.submit([encoder.finish()]);
    device.drain();
    const first = performance.now() - before;
    device.check();
    assert.ok(first < (compiled - started) / 3, `${compiled - started} ms to compile, ${first} ms to run first`);
  }));

Deno.test("pipeline() of bad WGSL names file, line and variant", () =>
  withDevice(async (device) => {
    const source = {
      file: "kernels/bad.wgsl",
      variant: "WIDTH=4",
      code: "@compute @workgroup_size(1)\nfn main() {\n  let a = b;\n}",
    };
    await assert.rejects(device.pipeline(source, "b"), (error: Error) => {
      assert.ok(error instanceof MachineError);
      assert.match(error.message, /^Cannot compile kernels\/bad\.wgsl:3:11 \(WIDTH=4\) on /);
      return true;
    });
    device.check();
  }));

Deno.test("check() throws what WebGPU keeps to itself", () =>
  withDevice(async (device) => {
    const layout = device.bindGroupLayout("b");
    const buffer = device.createBuffer(256);
    device.gpu.createBindGroup({ layout, entries: [{ binding: 0, resource: { buffer } }] });
    device.drain();
    await device.settle();
    assert.throws(() => device.check(), MachineError);
    buffer.destroy();
  }));

Deno.test("openDevice() measures what adapters only state", () =>
  withDevice((device) => {
    const { name, type, subgroupSize, flopsPerSecond, bindingLimit, chunkBytes } = device.capabilities;
    assert.ok(name.length > 0);
    assert.ok(type === "cpu" || type === "gpu");
    assert.ok(subgroupSize === 0 || Number.isInteger(Math.log2(subgroupSize)));
    assert.ok(flopsPerSecond > 1e8);
    assert.ok(chunkBytes <= bindingLimit && chunkBytes <= 128 * 2 ** 20);
    return Promise.resolve();
  }));

Deno.test("openDevice() does without subgroups when told to", async () => {
  const device = await openDevice({ subgroups: false });
  assert.equal(device.capabilities.subgroupSize, 0);
  await device.destroy();
});

Deno.test("a device has every feature that is granted, whichever is refused; one that cannot be opened is named", async () => {
  const wanted = ["a", "b", "c"];
  /** An adapter that refuses some sets of features, and what came of asking it. */
  const ask = async (refuses: (features: readonly string[]) => boolean) => {
    const open = new Set<readonly string[]>();
    const adapter = {
      limits: {},
      info: { description: "Liar" },
      requestDevice({ requiredFeatures }: { requiredFeatures: readonly string[] }) {
        if (refuses(requiredFeatures)) return Promise.reject(new TypeError("no"));
        open.add(requiredFeatures);
        return Promise.resolve({ features: requiredFeatures, destroy: () => open.delete(requiredFeatures) });
      },
    };
    const device = await requestDevice(adapter as unknown as GPUAdapter, wanted);
    assert.deepEqual([...open], [device.features], "others were left open");
    return [...device.features].join("");
  };
  assert.equal(await ask(() => false), "abc");
  assert.equal(await ask((features) => features.includes("a")), "bc");
  assert.equal(await ask((features) => features.includes("b")), "ac");
  assert.equal(await ask((features) => features.includes("c")), "ab");
  assert.equal(await ask((features) => features.length > 1), "a");
  assert.equal(await ask((features) => features.length > 0), "");
  await assert.rejects(ask(() => true), { name: "MachineError", message: /^Liar cannot be opened: no; / });
});
