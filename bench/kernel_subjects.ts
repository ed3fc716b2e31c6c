/**
 * Cases of ops made ready on a device: the op itself, and its gradient with all that belongs to it.
 * @module
 */

import type { Device } from "../gpu/device.ts";
import { backward } from "../graph/backward.ts";
import { Graph } from "../graph/graph.ts";
import { Program } from "../graph/program.ts";
import { elementCount, type Tensor } from "../graph/tensor.ts";
import { addTensors } from "../kernels/residual_add.ts";
import type { KernelCase, Operand } from "./kernel_cases.ts";
import type { Subject } from "./timing.ts";

/** An op or its gradient. */
export interface KernelSubject extends Subject {
  /** The op's name. */
  readonly op: string;
  readonly flops: number;
  readonly bytes: number;
}

/** The subjects of a case, which share their tensors. */
export interface PreparedCase {
  readonly subjects: readonly KernelSubject[];
  readonly destroy: () => void;
}

/** Values that neither fade nor grow, of a wave that is repeated. */
const wave = Float32Array.from({ length: 2 ** 16 }, (_, i) => Math.sin(i * 12.9898) * 0.5);

function waves(elements: number): Float32Array {
  const values = new Float32Array(elements);
  for (let i = 0; i < elements; i += wave.length) values.set(wave.subarray(0, elements - i), i);
  return values;
}

/** True if `case` has a gradient to time. */
export function hasGradient({ definition, gradient }: KernelCase): boolean {
  return definition.gradient !== undefined && gradient !== false;
}

function buildGraph(test: KernelCase) {
  const graph = new Graph();
  const operands = new Map<Tensor, Operand>();
  const declare = (operand: Operand): Tensor => {
    const { shape, dtype = "f32", parameter, values } = operand;
    const role = parameter ? "parameter" : values ? "constant" : "input";
    const tensor = graph.tensor(`x${operands.size}`, shape, role, { dtype });
    operands.set(tensor, operand);
    return tensor;
  };
  const inputs = test.operands.map(declare);
  const attributes = test.attributes(<T>(operand: Operand) => declare(operand) as T);
  const { first, count } = test.inPlace ?? { first: 0, count: 0 };
  let outputs: Tensor[] = [];
  graph.segment("forward", () => {
    outputs = graph.add(test.definition, inputs, attributes, { outputs: inputs.slice(first, first + count) });
  });
  if (hasGradient(test)) {
    const upstream = declare({ shape: outputs[0].shape });
    const accumulators = new Map(
      inputs.filter(({ role }) => role === "parameter")
        .map((tensor) => [tensor, graph.tensor(`d${tensor.name}`, tensor.shape, "gradient")]),
    );
    const wanted = inputs.filter(({ role }) => role === "input");
    const forward = graph.segments.get("forward")!;
    graph.segment("gradient", () => {
      backward(graph, new Map([[outputs[0], upstream]]), accumulators, addTensors, wanted, forward);
    });
  }
  return { graph, operands };
}

/** Makes a case ready: its program is compiled, its operands filled, its dispatches measured and cut. */
export async function prepareCase(device: Device, test: KernelCase): Promise<PreparedCase> {
  const { graph, operands } = buildGraph(test);
  const program = await Program.create(device, graph);
  for (const [tensor, { values }] of operands) program.write(tensor, values ?? waves(elementCount(tensor)));
  const subjects: KernelSubject[] = [];
  for (const segment of graph.segments.keys()) {
    const dispatches = program.plan.segments.get(segment)!.flatMap(({ dispatches }) => dispatches);
    const sum = (kind: "flops" | "bytes") => dispatches.reduce((sum, dispatch) => sum + dispatch[kind], 0);
    // The first run compiles, the second is timed dispatch by dispatch.
    await program.run(segment);
    await program.run(segment);
    subjects.push({
      name: segment === "forward" ? test.name : `${test.name} gradient`,
      op: test.definition.name,
      flops: sum("flops"),
      bytes: sum("bytes"),
      run: () => void program.run(segment),
    });
  }
  return { subjects, destroy: () => program.destroy() };
}
