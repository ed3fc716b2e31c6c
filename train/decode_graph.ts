/**
 * The segments of decoding: one token of one text through the blocks that are here, with caches of keys and values for
 * each text that may be under way; and the logits behind it, which are left out where nobody needs them.
 * @module
 */

import { collective } from "../graph/collective.ts";
import { rowSize, type Tensor } from "../graph/tensor.ts";
import { outputProjection } from "../model/model.ts";
import { localSizes } from "../model/part.ts";
import { type GraphBuilder, keep } from "./graph_builder.ts";

/** Tensors of decoding. */
export interface DecodeTensors {
  /** u32 [1] each. */
  readonly token: Tensor;
  readonly position: Tensor;
  /** `[1, vocabulary rows]`, of all ranks that share the vocabulary, by slot; none where the head is elsewhere. */
  readonly logits: readonly Tensor[];
}

/** Names of the segments of a slot. */
export const decodeSegments = {
  blocks: (slot: number) => `blocks ${slot}`,
  head: (slot: number) => `head ${slot}`,
} as const;

/** Builds them for every slot of the layout. */
export function buildDecode(builder: GraphBuilder): DecodeTensors {
  const { graph, parameters, layout: { parts: [part], indices: [index], slots }, options: { configuration } } = builder;
  const { maximumSequenceLength, headSize } = configuration;
  const { keyValueHeads } = localSizes(configuration, part.tensor);
  const token = graph.tensor("token", [1], "input", { dtype: "u32" });
  const position = graph.tensor("position", [1], "input", { dtype: "u32" });
  const cache = (name: string) => graph.tensor(name, [maximumSequenceLength, keyValueHeads * headSize], "output");
  const logits: Tensor[] = [];
  for (let slot = 0; slot < slots; slot++) {
    const caches = Array.from(
      { length: part.layers[1] - part.layers[0] },
      (_, i) => ({ keys: cache(`keys ${i}.${slot}`), values: cache(`values ${i}.${slot}`) }),
    );
    let hidden!: Tensor;
    graph.segment(decodeSegments.blocks(slot), () => {
      const before = part.embedding ? undefined : builder.receive("activations", index, part, slot);
      const inputs = { tokens: token, decode: { position, caches } };
      hidden = builder.forward({ ...part, head: false }, inputs, 1, before);
      if (!part.head) builder.send("activations", index + 1, hidden);
    });
    if (!part.head) continue;
    graph.segment(decodeSegments.head(slot), () => {
      const [, end] = part.layers;
      const last = builder.forward({ ...part, embedding: false, layers: [end, end] }, { tokens: token }, 1, hidden);
      let result = outputProjection({ graph, configuration, parameters }, last);
      if (part.tensor.size > 1) {
        const shape = [1, rowSize(result) * part.tensor.size];
        [result] = graph.add(collective, [result], { kind: "allGather", group: "tensor", shape }, {
          name: "all-gather of the logits",
        });
      }
      graph.add(keep, [result], {});
      logits.push(result);
    });
  }
  return { token, position, logits };
}
