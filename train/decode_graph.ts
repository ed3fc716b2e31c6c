/**
 * The segments of generation: a block of tokens of one text through the model's blocks that are here, with caches of keys
 * and values for each text that may be under way; and the logits behind its last token, which are left out where nobody
 * needs them. A block of one row decodes, larger ones read prompts.
 * @module
 */

import { collective } from "../graph/collective.ts";
import { rowSize, type Tensor } from "../graph/tensor.ts";
import { embedding } from "../kernels/embedding.ts";
import { outputProjection } from "../model/model.ts";
import { localSizes } from "../model/part.ts";
import { type GraphBuilder, keep } from "./graph_builder.ts";

/** Tensors of generation. */
export interface DecodeTensors {
  /** u32 [rows], by the rows of a block. */
  readonly tokens: ReadonlyMap<number, Tensor>;
  /** u32 [1]: position of the first token. */
  readonly position: Tensor;
  /** u32 [1]: the last row in use, where a block need not be full. */
  readonly last: Tensor;
  /** `[1, vocabulary rows]`, of all ranks that share the vocabulary, by head segment; none where the head is elsewhere. */
  readonly logits: ReadonlyMap<string, Tensor>;
}

/** Names of the segments of a slot, for blocks of so many rows. */
export const decodeSegments = {
  blocks: (rows: number, slot: number) => `blocks ${rows}.${slot}`,
  head: (rows: number, slot: number) => `head ${rows}.${slot}`,
} as const;

/** Builds them for every slot of the layout. */
export function buildDecode(builder: GraphBuilder): DecodeTensors {
  const { graph, parameters, layout: { parts: [part], indices: [index], slots }, options } = builder;
  const { configuration, blockRows = [1] } = options;
  const { maximumSequenceLength, headSize } = configuration;
  const { keyValueHeads } = localSizes(configuration, part.tensor);
  const words = (name: string, count: number) => graph.tensor(name, [count], "input", { dtype: "u32" });
  const tokens = new Map(blockRows.map((rows) => [rows, words("tokens", rows)]));
  const [position, last] = [words("position", 1), words("last", 1)];
  // Halves are stored four at a time.
  const dtype = headSize % 4 === 0 ? graph.activationType : "f32";
  const cache = (name: string) =>
    graph.tensor(name, [maximumSequenceLength, keyValueHeads * headSize], "output", { dtype });
  const logits = new Map<string, Tensor>();
  for (let slot = 0; slot < slots; slot++) {
    const caches = Array.from(
      { length: part.layers[1] - part.layers[0] },
      (_, i) => ({ keys: cache(`keys ${i}.${slot}`), values: cache(`values ${i}.${slot}`) }),
    );
    for (const [rows, own] of tokens) {
      const inputs = { tokens: own, decode: { position, caches } };
      let hidden!: Tensor;
      graph.segment(decodeSegments.blocks(rows, slot), () => {
        const before = part.embedding ? undefined : builder.receive("activations", index, part, slot, rows);
        hidden = builder.forward({ ...part, head: false }, inputs, rows, before);
        if (!part.head) builder.send("activations", index + 1, hidden);
      });
      if (!part.head) continue;
      const name = decodeSegments.head(rows, slot);
      graph.segment(name, () => {
        const [, end] = part.layers;
        // A row is looked up as a token is.
        if (rows > 1) [hidden] = graph.add(embedding, [last, hidden], { sequenceLength: 1 }, { name: "last row" });
        const headPart = { ...part, embedding: false, layers: [end, end] } as const;
        const normed = builder.forward(headPart, inputs, 1, hidden);
        let result = outputProjection({ graph, configuration, parameters, inputs }, normed);
        if (part.tensor.size > 1) {
          const shape = [1, rowSize(result) * part.tensor.size];
          [result] = graph.add(collective, [result], { kind: "allGather", group: "tensor", shape }, {
            name: "all-gather of the logits",
          });
        }
        graph.add(keep, [result], {});
        logits.set(name, result);
      });
    }
  }
  return { tokens, position, last, logits };
}
