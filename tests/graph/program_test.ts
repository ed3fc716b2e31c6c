import assert from "node:assert/strict";
import { matmul } from "../../kernels/matmul.ts";
import { residualAdd } from "../../kernels/residual_add.ts";
import { windowOf } from "../../graph/dispatch.ts";
import { Graph, type OpDefinition } from "../../graph/graph.ts";
import { imageOf } from "../../graph/images.ts";
import { Program } from "../../graph/program.ts";
import { withDevice } from "../kernels/harness.ts";

Deno.test("Program cuts dispatches that take long, groups the rest, and computes the same bits", () =>
  withDevice(async (device) => {
    const graph = new Graph();
    const size = 1536;
    const a = graph.tensor("a", [size, size], "input");
    const b = graph.tensor("b", [size, size], "input");
    const c = graph.tensor("c", [size, size], "output");
    const small = graph.tensor("small", [64, 64], "input");
    graph.segment("run", () => {
      graph.add(matmul, [a, b], { layout: "NN" }, { outputs: [c] });
      let x = small;
      for (let i = 0; i < 20; i++) [x] = graph.add(residualAdd, [x, small], {});
    });
    const program = await Program.create(device, graph);
    program.write(a, Float32Array.from({ length: size * size }, (_, i) => Math.sin(i)));
    program.write(b, Float32Array.from({ length: size * size }, (_, i) => Math.cos(i)));
    program.run("run");
    const first = await program.read(c);
    program.run("run");
    const submits = program.predict("run").length;
    const dispatches = program.predict("run").flat().length;
    program.run("run");
    assert.deepEqual(await program.read(c), first);
    // The product alone takes some 200 ms on two cores: no submit may hold it whole. The sums join one submit.
    const [product] = program.profile("run");
    if (product.milliseconds > 150) {
      assert.ok(dispatches > 21, `${dispatches} dispatches`);
      assert.ok(submits >= 2 && submits <= dispatches - 19, `${submits} submits`);
    }
    program.destroy();
  }));

Deno.test("Program computes the same with tiny chunks of memory", () =>
  withDevice(async (device) => {
    const graph = new Graph();
    const x = graph.tensor("x", [4096], "input");
    const y = graph.tensor("y", [4096], "output");
    graph.segment("run", () => {
      let sum = x;
      for (let i = 0; i < 5; i++) [sum] = graph.add(residualAdd, [sum, x], {}, i === 4 ? { outputs: [y] } : {});
    });
    const program = await Program.create(device, graph);
    assert.ok(program.buffers.length > 1);
    program.write(x, Float32Array.from({ length: 4096 }, (_, i) => i));
    program.run("run");
    assert.deepEqual(await program.read(y), Float32Array.from({ length: 4096 }, (_, i) => 6 * i));
    const part = await program.readInto(y, new Float32Array(3), 1500);
    assert.deepEqual(part, Float32Array.of(9000, 9006, 9012));
    program.destroy();
  }, { chunkBytes: 4096 }));

Deno.test("Program.create() frees what it has made when a kernel does not compile", () =>
  withDevice(async (device) => {
    const build = (code: string) => {
      const graph = new Graph();
      const [a, b] = ["a", "b"].map((name) => graph.tensor(name, [64, 64], "input"));
      const broken: OpDefinition<object> = {
        name: "broken",
        infer: ([a]) => [{ shape: a.shape }],
        lower: ({ inputs, outputs }) => [{
          kernel: { file: "test", variant: "", code },
          windows: [imageOf(windowOf(inputs[0])), windowOf(outputs[0])],
          uniforms: [],
          workgroups: [1, 1, 1],
          flops: 0,
          bytes: 0,
        }],
      };
      graph.segment("run", () => {
        graph.add(matmul, [a, b], { layout: "NN" });
        graph.add(broken, [a], {});
      });
      return graph;
    };
    // What the device keeps for itself is made here.
    (await Program.create(device, build("@compute @workgroup_size(1) fn main() {}"))).destroy();
    const alive = new Set<GPUBuffer | GPUTexture>();
    let made = 0;
    const watch = <T extends GPUBuffer | GPUTexture>(memory: T): T => {
      const destroy = memory.destroy.bind(memory);
      alive.add(memory);
      made++;
      return Object.assign(memory, {
        destroy: () => {
          alive.delete(memory);
          destroy();
        },
      });
    };
    const { createBuffer, createImage } = device;
    device.createBuffer = (...all) => watch(createBuffer.apply(device, all));
    device.createImage = (...all) => watch(createImage.apply(device, all));
    await assert.rejects(Program.create(device, build("fn main() { nothing }")), /^MachineError: Cannot compile test/);
    assert.ok(made >= 4, `${made} buffers and textures`);
    assert.equal(alive.size, 0);
  }));
