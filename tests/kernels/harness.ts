/** Runs a graph once on the test machine's adapter: for tests of ops. */

import type { Capabilities } from "../../gpu/capabilities.ts";
import type { Device } from "../../gpu/device.ts";
import { openDevice } from "../../gpu/open.ts";
import { Graph } from "../../graph/graph.ts";
import { Program } from "../../graph/program.ts";
import { type DataType, elementCount, type Tensor } from "../../graph/tensor.ts";

/** What a test may change of the device: pretend to be a GPU, to have no subgroups, small bindings… */
export type Overrides = Partial<Capabilities>;

/** Opens a device for the length of `body`. */
export async function withDevice<T>(body: (device: Device) => Promise<T>, overrides: Overrides = {}): Promise<T> {
  const device = await openDevice();
  device.capabilities = { ...device.capabilities, ...overrides };
  try {
    return await body(device);
  } finally {
    await device.destroy();
  }
}

type Numbers = Float32Array | Uint32Array | Int32Array;

/**
 * Builds a graph with one segment, uploads `inputs`, runs the segment `runs` times and reads `outputs` back.
 * `build` returns the tensors to read; those that are activations must be written last or copied by the caller
 * (the memory of an activation may be used again after its last reader).
 */
export async function runOn(
  device: Device,
  build: (graph: Graph) => { inputs: Map<Tensor, Numbers>; outputs: Record<string, Tensor> },
  options: { overrides?: Overrides; runs?: number; activationType?: DataType } = {},
): Promise<Record<string, Numbers>> {
  const before = device.capabilities;
  device.capabilities = { ...before, ...options.overrides };
  const graph = new Graph(options.activationType);
  let built: ReturnType<typeof build> | undefined;
  graph.segment("run", () => built = build(graph));
  // A tensor that is read back must keep its memory to the end.
  const read = Object.values(built!.outputs);
  const keep = { name: "keep", infer: () => [], lower: () => [] };
  graph.segment("run", () => graph.add(keep, [...read, ...built!.inputs.keys()], {}));
  const program = await Program.create(device, graph);
  try {
    for (let i = 0; i < (options.runs ?? 1); i++) {
      for (const [tensor, data] of built!.inputs) program.write(tensor, data);
      program.run("run");
    }
    const results: Record<string, Numbers> = {};
    for (const [name, tensor] of Object.entries(built!.outputs)) {
      const count = elementCount(tensor);
      const target = tensor.dtype === "u32"
        ? new Uint32Array(count)
        : tensor.dtype === "i32"
        ? new Int32Array(count)
        : new Float32Array(count);
      results[name] = await program.readInto(tensor, target);
    }
    return results;
  } finally {
    program.destroy();
    device.capabilities = before;
  }
}

/** `max|a-b| / max|b|`, the measure of the fixtures (divided by 1 where b is all zero). */
export function scaledMax(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) throw new Error(`${actual.length} numbers instead of ${expected.length}`);
  let largest = 0;
  let error = 0;
  for (let i = 0; i < expected.length; i++) {
    largest = Math.max(largest, Math.abs(expected[i]));
    const difference = Math.abs(actual[i] - expected[i]);
    error = difference > error || !(difference === difference) ? difference : error;
  }
  return error / (largest || 1);
}
