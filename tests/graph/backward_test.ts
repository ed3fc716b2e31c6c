import assert from "node:assert/strict";
import { backward } from "../../graph/backward.ts";
import { Graph, type OpDefinition } from "../../graph/graph.ts";
import type { Tensor } from "../../graph/tensor.ts";

const nothing = () => [];

/** `y = x w`, as far as gradients go. */
const scale: OpDefinition<unknown> = {
  name: "scale",
  infer: ([x]) => [{ shape: x.shape }],
  gradient(backward, op) {
    const dy = backward.gradientOf(op.outputs[0])!;
    const [x, w] = op.inputs;
    if (backward.needs(x)) {
      backward.give(x, backward.add(scaleGradient, [dy, w], {}, { name: `d${x.name}` })[0]);
    }
    if (backward.needs(w)) {
      const into = w.role === "parameter" ? { outputs: [backward.accumulator(w)] } : {};
      const [dw] = backward.add(scaleGradient, [dy, x], {}, { name: `d${w.name}`, ...into });
      if (w.role !== "parameter") backward.give(w, dw);
    }
  },
  lower: nothing,
};
const scaleGradient: OpDefinition<unknown> = { name: "dscale", infer: ([dy]) => [{ shape: dy.shape }], lower: nothing };
const add: OpDefinition<unknown> = { name: "sum", infer: ([a]) => [{ shape: a.shape }], lower: nothing };
const sum = (graph: Graph, a: Tensor, b: Tensor) => graph.add(add, [a, b], {})[0];

Deno.test("backward() sums where a tensor is used twice, accumulates parameters, and skips what nobody needs", () => {
  const graph = new Graph();
  const input = graph.tensor("input", [4], "input");
  const [w1, w2, w3] = ["w1", "w2", "w3"].map((name) => graph.tensor(name, [4], "parameter"));
  const [g1, g2, g3] = ["g1", "g2", "g3"].map((name) => graph.tensor(name, [4], "gradient"));
  graph.segment("train", () => {
    const [h] = graph.add(scale, [input, w1], {}, { name: "h" });
    const [left] = graph.add(scale, [h, w2], {}, { name: "left" });
    const [right] = graph.add(scale, [left, h], {}, { name: "right" });
    graph.add(scale, [input, w3], {}, { name: "unused" });
    const seed = graph.tensor("seed", [4], "input");
    backward(graph, new Map([[right, seed]]), new Map([[w1, g1], [w2, g2], [w3, g3]]), sum);
  });
  const ops = graph.segments.get("train")!.slice(4);
  const described = ops.map(({ name, inputs, outputs }) =>
    `${outputs[0].name} = ${name}(${inputs.map((t) => t.name).join(", ")})`
  );
  assert.deepEqual(described, [
    "dleft = dleft(seed, h)",
    "dh = dh(seed, left)",
    "dh#2 = dh(dleft, w2)",
    "sum = sum(dh, dh#2)",
    "g2 = dw2(dleft, h)",
    "g1 = dw1(sum, input)",
  ]);
});

Deno.test("backward() returns the gradients of inputs that are asked for", () => {
  const graph = new Graph();
  const x = graph.tensor("x", [4], "input");
  const other = graph.tensor("other", [4], "input");
  const w = graph.tensor("w", [4], "parameter");
  const seed = graph.tensor("seed", [4], "input");
  graph.segment("train", () => {
    const [y] = graph.add(scale, [x, w], {}, { name: "y" });
    const found = backward(graph, new Map([[y, seed]]), new Map(), sum, [x, other]);
    assert.equal(found.get(x)?.name, "dx");
    assert.equal(found.has(other), false);
  });
});
