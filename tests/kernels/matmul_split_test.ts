import assert from "node:assert/strict";
import { type Capabilities, genericCapabilities, type ProductVariant } from "../../gpu/capabilities.ts";
import type { Device } from "../../gpu/device.ts";
import { Graph } from "../../graph/graph.ts";
import { makePlan } from "../../graph/plan.ts";
import type { Tensor } from "../../graph/tensor.ts";
import { matmul } from "../../kernels/matmul.ts";
import type { MatmulLayout } from "../../kernels/matmul_register.ts";
import { type Overrides, runOn, scaledMax, withDevice } from "./harness.ts";
import { allProducts, gelu, random, reference } from "./matmul_reference.ts";

const families: Record<string, readonly [variant: ProductVariant, overrides: Overrides]> = {
  "broadcast": [{ family: "broadcast", rows: 32, columns: 4 }, {}],
  "broadcast from images": [{ family: "broadcast", rows: 32, columns: 4, images: true }, {}],
  "direct": [{ family: "direct", rows: 8, columns: 4 }, { subgroupSize: 0 }],
  "tiles": [
    { family: "tile", rows: 4, columns: 1, tile: { rows: 32, columns: 32, steps: 16, unroll: 4 } },
    { type: "gpu" },
  ],
};

type Shape = readonly [M: number, N: number, K: number];

/** The third can be images, which the others cannot; the fourth goes by scalars, the last has fewer rows than any variant. */
const shapes: readonly Shape[] = [[36, 40, 1852], [64, 34, 2048], [64, 64, 1856], [33, 35, 1861], [4, 64, 1852]];

function operands([M, N, K]: Shape, layout: MatmulLayout) {
  const a = random(M * K, 1), b = random(N * K, 2);
  // Numbers that bf16 holds exactly.
  for (const numbers of [a, b]) numbers.forEach((x, i) => numbers[i] = Math.round(x * 128) / 128);
  return { a, b, bias: random(N, 3), x: random(M * N, 4), product: reference(layout, a, b, M, N, K) };
}

/** Products with every epilogue, of operands that are given. */
function declare(graph: Graph, [M, N, K]: Shape, layout: MatmulLayout, dtype: "f32" | "bf16") {
  const a = graph.tensor("a", layout === "TN" ? [K, M] : [M, K], "input", { dtype });
  const b = graph.tensor("b", layout === "NT" ? [N, K] : [K, N], "input", { dtype });
  const bias = graph.tensor("bias", [N], "input");
  const x = graph.tensor("x", [M, N], "input");
  const sum = graph.tensor("sum", [M, N], "output");
  const columns = graph.tensor("columns", [N], "output");
  const sums = layout === "TN";
  // Parameters' gradients are f32, results have the graph's type.
  const [y] = graph.add(matmul, [a, b, bias, x], { layout, bias: true, addend: true });
  const [, activated] = graph.add(matmul, [a, b, bias], { layout, bias: true, activation: "gelu" });
  const [dx] = graph.add(matmul, [a, b, x, x], { layout, addend: true, activation: "geluGradient" });
  graph.add(matmul, [a, b], { layout, accumulate: true, ...(sums ? { sums } : {}) }, {
    outputs: sums ? [sum, columns] : [sum],
  });
  return { inputs: [a, b, bias, x], outputs: { y, activated, dx, sum, ...(sums ? { columns } : {}) } };
}

function expected([, N, K]: Shape, { b, bias, x, product }: ReturnType<typeof operands>, runs: number) {
  const columns = Float64Array.from({ length: N }, (_, n) => {
    let total = 0;
    for (let k = 0; k < K; k++) total += b[k * N + n];
    return runs * total;
  });
  return {
    y: product.map((sum, i) => sum + bias[i % N] + x[i]),
    activated: product.map((sum, i) => gelu(sum + bias[i % N])[0]),
    dx: product.map((sum, i) => (sum + x[i]) * gelu(x[i])[1]),
    sum: product.map((sum) => runs * sum),
    columns,
  };
}

/** The grids' parts of the products' dispatches. */
function partsOf(capabilities: Capabilities, shape: Shape, layout: MatmulLayout, dtype: "f32" | "bf16"): number[] {
  return dispatches(capabilities, shape, layout, dtype).map(({ workgroups }) => workgroups[2]);
}

function dispatches(capabilities: Capabilities, shape: Shape, layout: MatmulLayout, dtype: "f32" | "bf16") {
  const graph = new Graph(dtype);
  graph.segment("run", () => void declare(graph, shape, layout, dtype));
  return makePlan(graph, capabilities).segments.get("run")![0].dispatches;
}

/** Runs the products twice and compares. */
async function check(device: Device, shape: Shape, layout: MatmulLayout, dtype: "f32" | "bf16"): Promise<void> {
  const given = operands(shape, layout);
  const wanted = expected(shape, given, 2);
  const results = await runOn(device, (graph) => {
    const { inputs, outputs } = declare(graph, shape, layout, dtype);
    const data = [given.a, given.b, given.bias, given.x];
    return { inputs: new Map(inputs.map((tensor: Tensor, i) => [tensor, data[i]])), outputs };
  }, { runs: 2, activationType: dtype });
  for (const [name, numbers] of Object.entries(results)) {
    const error = scaledMax(numbers, wanted[name as keyof typeof wanted]);
    // Results that are activations are rounded to 8 bits.
    const limit = dtype === "bf16" && ["y", "activated", "dx"].includes(name) ? 4e-3 : 2e-6;
    assert.ok(error < limit, `${layout} ${shape.join(" x ")}, ${name}: ${error}`);
  }
}

for (const [family, [variant, overrides]] of Object.entries(families)) {
  Deno.test(`products whose sums are cut into parts are right with all that follows them, ${family}`, () =>
    withDevice(async (device) => {
      const { capabilities } = device;
      for (const layout of ["NN", "NT", "TN"] as const) {
        for (const [s, shape] of shapes.entries()) {
          const dtype = s === 2 ? "bf16" : "f32";
          const forced = (split: number) => ({ ...capabilities, ...allProducts({ ...variant, split }) });
          const [{ workgroups: [width, height] }] = dispatches(forced(1), shape, layout, dtype);
          for (const parts of s === 0 ? [2, 4, 7] : [7]) {
            device.capabilities = forced(parts * width * height);
            const z = partsOf(device.capabilities, shape, layout, dtype);
            assert.deepEqual(z, [parts, 1, parts, 1, parts, 1, parts, 1]);
            await check(device, shape, layout, dtype);
          }
        }
      }
    }, overrides));
}

Deno.test("sums of operands that are laid out in pieces are cut into parts piece by piece", () =>
  withDevice(async (device) => {
    const shape = [64, 64, 1861] as const;
    // Twice 768 rows, in three parts, and 325, whole; four products.
    device.capabilities = {
      ...device.capabilities,
      ...allProducts({ ...families.tiles[0], split: 64 }),
      bindingLimit: 800 * 256,
    };
    assert.deepEqual(partsOf(device.capabilities, shape, "TN", "f32"), Array(4).fill([3, 1, 3, 1, 1]).flat());
    await check(device, shape, "TN", "f32");
  }, { type: "gpu" }));

Deno.test("on a GPU sums are cut where there are few workgroups, and only there", () => {
  const parts = (...shape: Shape) => partsOf({ ...genericCapabilities, type: "gpu" }, shape, "TN", "f32")[0];
  // 4 workgroups for 64; at least 256 terms in a part; 256 workgroups.
  assert.deepEqual([parts(128, 128, 8192), parts(128, 128, 1024), parts(1024, 1024, 8192)], [16, 4, 1]);
  assert.ok(partsOf(genericCapabilities, [128, 128, 8192], "TN", "f32").every((z) => z === 1));
});
