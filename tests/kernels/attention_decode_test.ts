/** Attention over a cache, token by token and in blocks, against plain arithmetic in double precision. */

import assert from "node:assert/strict";
import type { Graph } from "../../graph/graph.ts";
import type { DataType, Tensor } from "../../graph/tensor.ts";
import { attentionDecode, type AttentionDecodeAttributes } from "../../kernels/attention_decode.ts";
import { type Overrides, runOn, scaledMax, withDevice } from "./harness.ts";

type Shape = Omit<AttentionDecodeAttributes, "positions">;

/** Causal attention over all rows of packed queries, keys and values. */
function attend(qkv: Float32Array, { heads, keyValueHeads, headSize }: Shape): Float32Array {
  const width = (heads + 2 * keyValueHeads) * headSize;
  const rows = qkv.length / width;
  const y = new Float32Array(rows * heads * headSize);
  for (let row = 0; row < rows; row++) {
    for (let head = 0; head < heads; head++) {
      const keyAt = (heads + Math.floor(head * keyValueHeads / heads)) * headSize;
      const scores = Array.from({ length: row + 1 }, (_, j) => {
        let sum = 0;
        for (let i = 0; i < headSize; i++) sum += qkv[row * width + head * headSize + i] * qkv[j * width + keyAt + i];
        return sum / Math.sqrt(headSize);
      });
      const top = Math.max(...scores);
      const weights = scores.map((score) => Math.exp(score - top));
      const total = weights.reduce((a, b) => a + b);
      for (let i = 0; i < headSize; i++) {
        const valueAt = keyAt + keyValueHeads * headSize + i;
        const sum = weights.reduce((sum, weight, j) => sum + weight * qkv[j * width + valueAt], 0);
        y[(row * heads + head) * headSize + i] = sum / total;
      }
    }
  }
  return y;
}

/** Appends the blocks' attention over one pair of caches; the results in order. */
function build(graph: Graph, shape: Shape, blocks: readonly number[], positions: number, qkv: Float32Array) {
  const { heads, keyValueHeads, headSize } = shape;
  const width = (heads + 2 * keyValueHeads) * headSize;
  const dtype = headSize % 4 === 0 ? graph.activationType : "f32";
  const cache = (name: string) => graph.tensor(name, [positions, keyValueHeads * headSize], "output", { dtype });
  const [keys, values] = [cache("keys"), cache("values")];
  const inputs = new Map<Tensor, Float32Array | Uint32Array>();
  const outputs: Record<string, Tensor> = {};
  let start = 0;
  for (const rows of blocks) {
    const x = graph.tensor("qkv", [rows, width], "input", { dtype: width % 4 === 0 ? graph.activationType : "f32" });
    const position = graph.tensor("position", [1], "input", { dtype: "u32" });
    inputs.set(x, qkv.subarray(start * width, (start + rows) * width)).set(position, Uint32Array.of(start));
    const given = { outputs: [undefined, keys, values] };
    [outputs[start]] = graph.add(attentionDecode, [x, position], { ...shape, positions }, given);
    start += rows;
  }
  return { inputs, outputs };
}

const gpu: Overrides = { type: "gpu" };
const plain: Overrides = { subgroupSize: 4 };
const cases: [Shape, number[], Overrides, DataType][] = [
  [{ heads: 4, keyValueHeads: 4, headSize: 8 }, [1, 1, 16, 1], {}, "f32"],
  [{ heads: 4, keyValueHeads: 2, headSize: 32 }, [16, 1, 64, 16], {}, "f32"],
  [{ heads: 6, keyValueHeads: 2, headSize: 64 }, [64, 16, 3], {}, "f32"],
  [{ heads: 4, keyValueHeads: 2, headSize: 32 }, [16, 1, 64, 16], {}, "bf16"],
  [{ heads: 4, keyValueHeads: 2, headSize: 32 }, [16, 1, 64, 16], gpu, "f32"],
  [{ heads: 2, keyValueHeads: 2, headSize: 32 }, [16, 64, 1], gpu, "f16"],
  [{ heads: 4, keyValueHeads: 2, headSize: 32 }, [16, 1, 64, 16], plain, "f32"],
  [{ heads: 2, keyValueHeads: 1, headSize: 6 }, [16, 1, 16], {}, "f32"],
  [{ heads: 4, keyValueHeads: 2, headSize: 32 }, [16, 1, 64, 16], { subgroupSize: 8 }, "f32"],
  [{ heads: 2, keyValueHeads: 1, headSize: 6 }, [16, 1, 16], plain, "f32"],
  [{ heads: 2, keyValueHeads: 1, headSize: 66 }, [16, 1, 16], {}, "f32"],
  [{ heads: 2, keyValueHeads: 1, headSize: 160 }, [16, 1, 16], {}, "f32"],
];

Deno.test("attention over a cache gives every row what it gets in whole sequences, in all families and types", () =>
  withDevice(async (device) => {
    for (const [shape, blocks, overrides, activationType] of cases) {
      if ((overrides.subgroupSize ?? 0) > device.capabilities.subgroupSize) continue;
      const { heads, keyValueHeads, headSize } = shape;
      const rows = blocks.reduce((a, b) => a + b);
      const qkv = Float32Array.from(
        { length: rows * (heads + 2 * keyValueHeads) * headSize },
        (_, i) => Math.sin(i * 12.9898) * (1 + Math.cos(i * 0.37)),
      );
      const positions = rows + 3;
      const found = await runOn(device, (graph) => build(graph, shape, blocks, positions, qkv), {
        overrides,
        activationType,
      });
      const expected = attend(qkv, shape);
      const all = new Float32Array(expected.length);
      for (const [start, part] of Object.entries(found)) all.set(part, Number(start) * heads * headSize);
      const limit = { f32: 2e-6, f16: 2e-3, bf16: 2e-2 }[activationType as "f32"];
      const error = scaledMax(all, expected);
      const what = `${JSON.stringify(shape)} ${blocks} ${JSON.stringify(overrides)} ${activationType}`;
      assert.ok(error < limit, `${what}: ${error}`);
    }
  }));
