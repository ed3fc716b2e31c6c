/**
 * A very short calibration of a device, in the Worker that opens it: products as large as a block's, an elementwise op,
 * tiny dispatches, copies.
 * @module
 */

import type { Device } from "../gpu/device.ts";
import { openDevice } from "../gpu/open.ts";
import type { Selection } from "../gpu/select.ts";
import { Graph } from "../graph/graph.ts";
import { Program } from "../graph/program.ts";
import type { Precision, Tensor } from "../graph/tensor.ts";
import { matmul } from "../kernels/matmul.ts";
import { residualAdd } from "../kernels/residual_add.ts";
import { assumed, type Hardware, type MeasuredWork } from "./hardware.ts";

/** A product takes about this long at a tenth of the multiply-add rate, in seconds; then it is long enough to time. */
const productSeconds = 0.05;
const elements = 2 ** 22;
/** Dispatches of one run, to find the overhead of one. */
const tinyDispatches = 128;
const rounds = 3;

/** Opens the device and measures it. */
export async function measureHardware(selection: Selection, { width, precision }: MeasuredWork): Promise<Hardware> {
  const device = await openDevice({ selection });
  try {
    const { flopsPerSecond } = device.capabilities;
    const rows = Math.round(productSeconds * flopsPerSecond / 10 / (8 * width * width) / 64) * 64;
    const M = Math.min(4096, Math.max(128, rows));
    const graph = new Graph();
    const tensor = (name: string, shape: number[], dtype: Precision = "f32"): Tensor =>
      graph.tensor(name, shape, "output", { dtype });
    const type = width % 4 === 0 ? precision : "f32";
    const [a, b, c] = [[M, width], [4 * width, width], [M, 4 * width]].map((shape, i) => tensor("abc"[i], shape, type));
    const [x, y] = [tensor("x", [elements]), tensor("y", [elements])];
    const [s, t] = [tensor("s", [64]), tensor("t", [64])];
    graph.segment("product", () => void graph.add(matmul, [a, b], { layout: "NT" }, { outputs: [c] }));
    graph.segment("sum", () => void graph.add(residualAdd, [x, x], {}, { outputs: [y] }));
    graph.segment("tiny", () => {
      for (let i = 0; i < tinyDispatches; i++) graph.add(residualAdd, [s, s], {}, { outputs: [t] });
    });
    const program = await Program.create(device, graph);
    const product = await secondsOf(device, () => program.run("product"));
    const sum = await secondsOf(device, () => program.run("sum"));
    const tiny = await secondsOf(device, () => program.run("tiny"));
    const data = new Float32Array(elements);
    const write = await secondsOf(device, () => program.write(x, data));
    const read = await secondsOf(device, async () => void await program.readInto(x, data));
    const few = new Float32Array(1);
    const wait = await secondsOf(device, async () => void await program.readInto(s, few));
    program.destroy();
    return {
      capabilities: device.capabilities,
      productFlops: 2 * M * 4 * width * width / product,
      memoryRate: 12 * elements / sum,
      readRate: 4 * elements / read,
      writeRate: 4 * elements / write,
      dispatchSeconds: tiny / tinyDispatches,
      waitSeconds: wait,
      meetSeconds: assumed[device.capabilities.type].meetSeconds,
    };
  } finally {
    await device.destroy();
  }
}

/** Least time of a few runs, behind two that compile and are timed by the program itself. */
async function secondsOf(device: Device, body: () => Promise<void> | void): Promise<number> {
  let best = Infinity;
  for (let round = -2; round < rounds; round++) {
    device.drain();
    const start = performance.now();
    await body();
    device.drain();
    if (round >= 0) best = Math.min(best, (performance.now() - start) / 1e3);
  }
  return Math.max(best, 1e-7);
}
