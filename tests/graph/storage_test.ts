import assert from "node:assert/strict";
import { kernel } from "../../graph/dispatch.ts";
import { fromHalves, toHalves } from "../../graph/halves.ts";
import type { DataType } from "../../graph/tensor.ts";
import { gelu } from "../../kernels/gelu.ts";
import { residualAdd } from "../../kernels/residual_add.ts";
import { runOn, withDevice } from "../kernels/harness.ts";

/** Numbers of every exponent and sign, halfway cases among them; NaN and infinity by bits. */
function hardNumbers(): Float32Array<ArrayBuffer> {
  const bits = new Uint32Array(65536);
  for (let i = 0; i < bits.length; i++) {
    bits[i] = (i << 16) | [0, 0x7fff, 0x8000, 0x8001, 0x1000, 0x3000, 0xffff, 1][i & 7];
  }
  return new Float32Array(bits.buffer);
}

const formats = ["bf16", "f16"] as const;

Deno.test("toHalves() and fromHalves() keep all that a half can be, and round to nearest even", () => {
  for (const format of formats) {
    const all = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const numbers = new Float32Array(65536);
    fromHalves(all, format, numbers);
    const back = toHalves(numbers, format);
    for (let i = 0; i < 65536; i++) assert.ok(back[i] === i || numbers[i] !== numbers[i], `${format} ${i}`);
  }
  assert.deepEqual([...toHalves(new Float32Array([1.00390625, 1.01171875, 3.4e38]), "bf16")], [0x3f80, 0x3f82, 0x7f80]);
  assert.deepEqual([...toHalves(new Float32Array([65519.9, 65520, 6e-8]), "f16")], [0x7bff, 0x7c00, 1]);
});

Deno.test("kernels round halves as the host does, for numbers of every exponent; too large ones are not finite", async () => {
  await withDevice(async (device) => {
    const values = hardNumbers();
    // Addition on the device may flush subnormal numbers.
    const counts = (value: number) => Math.abs(value) > 1.2e-38 || value === 0;
    for (const format of formats) {
      const { y } = await runOn(device, (graph) => {
        const [a, b] = ["a", "b"].map((name) => graph.tensor(name, [256, 256], "input"));
        const [y] = graph.add(residualAdd, [a, b], {});
        assert.equal(y.dtype, format);
        return { inputs: new Map([[a, values], [b, new Float32Array(65536).fill(-0)]]), outputs: { y } };
      }, { activationType: format });
      const expected = new Float32Array(65536);
      fromHalves(toHalves(values, format), format, expected);
      for (let i = 0; i < 65536; i++) {
        if (!Number.isFinite(expected[i])) assert.ok(!Number.isFinite(y[i]), `${format} of ${values[i]}: ${y[i]}`);
        else if (counts(values[i])) assert.equal(y[i], expected[i], `${format} of ${values[i]}`);
      }
    }
  });
});

Deno.test("an op on halves computes in f32: it is off by the rounding of input and output only", async () => {
  await withDevice(async (device) => {
    const values = Float32Array.from({ length: 4096 }, (_, i) => 5 * Math.sin(i * 12.9898));
    const run = async (type: DataType) => {
      const { y } = await runOn(device, (graph) => {
        const x = graph.tensor("x", [64, 64], "input", { dtype: type });
        const [y] = graph.add(gelu, [x], {});
        return { inputs: new Map([[x, values]]), outputs: { y } };
      }, { activationType: type });
      return y;
    };
    const exact = await run("f32");
    for (const [format, unit] of [["bf16", 2 ** -8], ["f16", 2 ** -11]] as const) {
      const got = await run(format);
      for (let i = 0; i < got.length; i++) {
        assert.ok(Math.abs(got[i] - exact[i]) <= 2.5 * unit * Math.max(Math.abs(values[i]), 0.01), `${format} ${i}`);
      }
    }
  });
});

Deno.test("rows that are no multiple of four stay f32, and a half cannot be stored alone", async () => {
  await withDevice(async (device) => {
    const { y } = await runOn(device, (graph) => {
      const x = graph.tensor("x", [5, 7], "input");
      const [y] = graph.add(gelu, [x], {});
      assert.equal(y.dtype, "f32");
      return { inputs: new Map([[x, new Float32Array(35)]]), outputs: { y } };
    }, { activationType: "bf16" });
    assert.equal(y.length, 35);
  });
  const text = "{{storage 1 x f32}}";
  assert.match(kernel("a", text, {}, ["bf16"]).code, /fn load_x/);
  assert.doesNotMatch(kernel("a", text, {}, ["bf16"]).code, /fn store_x/);
  assert.match(kernel("a", text).code, /fn store_x/);
  assert.throws(() => kernel("a", "{{storage 1 x vec3f}}", {}, ["f16"]), /cannot be seen as vec3f/);
});
