import assert from "node:assert/strict";
import { Graph, type OpDefinition } from "../../graph/graph.ts";
import { appendRecomputing } from "../../graph/recompute.ts";
import type { Tensor } from "../../graph/tensor.ts";

const op: OpDefinition = { name: "op", infer: ([x]) => [{ shape: x.shape }], lower: () => [] };

Deno.test("appendRecomputing() repeats just what makes a discarded tensor, in order, once, and reads nothing discarded", () => {
  const graph = new Graph();
  const x = graph.tensor("x", [64], "input");
  const made: Record<string, Tensor> = {};
  graph.segment("train", () => {
    const add = (name: string, inputs: Tensor[], outputs?: Tensor[]) => {
      [made[name]] = graph.add(op, inputs, {}, { name, ...(outputs ? { outputs } : {}) });
    };
    add("a", [x]);
    add("b", [made.a]);
    // In place, behind what made b.
    add("b in place", [made.b], [made.b]);
    add("c", [made.b, made.a]);
    add("unneeded", [made.c]);
    add("kept", [made.c]);
  });
  const forward = graph.segments.get("train")!;
  const discarded = new Set([made.a, made.b, made.c, made.unneeded]);
  graph.segment("backward", () => {
    graph.add(op, [made.kept, made.c], {}, { name: "first" });
    graph.add(op, [made.b], {}, { name: "second" });
  });
  graph.rewrite("backward", (ops) => appendRecomputing(graph, forward, ops, discarded));
  const ops = graph.segments.get("backward")!;
  assert.deepEqual(ops.map(({ name }) => name), ["a", "b", "b in place", "c", "first", "second"]);
  for (const { inputs, outputs } of ops) {
    for (const tensor of [...inputs, ...outputs]) assert.ok(!discarded.has(tensor), tensor.name);
  }
  const [a, b, inPlace, c, first, second] = ops;
  assert.equal(b.inputs[0], a.outputs[0]);
  assert.equal(inPlace.inputs[0], b.outputs[0]);
  assert.equal(inPlace.outputs[0], b.outputs[0]);
  assert.deepEqual(c.inputs, [b.outputs[0], a.outputs[0]]);
  assert.deepEqual(first.inputs, [made.kept, c.outputs[0]]);
  assert.equal(second.inputs[0], b.outputs[0]);
});
