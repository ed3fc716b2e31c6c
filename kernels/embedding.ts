/**
 * Token and position embedding: `x[n] = table[tokens[n]] (+ positions[n mod T + start])`.
 *
 * tokens u32 [N]; table [V, C]; positions [P, C]; start u32 [1]; x [N, C]. 8 N C bytes.
 *
 * The gradient of the table needs no atomics and is deterministic: the host sorts the rows by token (`sortTokens`), and
 * each run of equal tokens is summed by one thread per column. A table over the binding limit is cut between rows; each
 * piece has a dispatch that skips the tokens of others.
 * @module
 */

import { ceilDivide, kernel, rowRanges, windowOf } from "../graph/dispatch.ts";
import type { OpDefinition } from "../graph/graph.ts";
import { elementCount, rowCount, rowSize, type Tensor } from "../graph/tensor.ts";
import gradientText from "./embedding_gradient.wgsl" with { type: "text" };
import text from "./embedding.wgsl" with { type: "text" };
import positionText from "./position_gradient.wgsl" with { type: "text" };

/** Constants. */
export interface EmbeddingAttributes {
  readonly sequenceLength: number;
  /** Token id of the table's first row, where the table is split over ranks; other tokens give 0. 0 if left out. */
  readonly firstToken?: number;
  /** False where another rank adds the positions, whose gradients are the same everywhere. */
  readonly addPositions?: boolean;
  /** The last input is the position of the first row. */
  readonly start?: boolean;
  /** What `sortTokens` made of the tokens; needed for the gradient. */
  readonly scatter?: { readonly order: Tensor; readonly runs: Tensor };
}

function valuesOf(tensor: Tensor): { type: string; values: number } {
  const columns = rowSize(tensor);
  return columns % 4 === 0 ? { type: "vec4f", values: columns / 4 } : { type: "f32", values: columns };
}

/** Inputs `[tokens, table, positions?, start?]`, output `[x]`. */
export const embedding: OpDefinition<EmbeddingAttributes> = {
  name: "embedding",
  infer: ([tokens, table]) => [{ shape: [elementCount(tokens), rowSize(table)] }],
  gradient(backward, op) {
    const [tokens, table, positions] = op.inputs;
    const { scatter, sequenceLength } = op.attributes;
    const dx = backward.gradientOf(op.outputs[0])!;
    if (positions?.role === "parameter") {
      const shape = positions.shape;
      backward.add(positionGradient, [dx], { sequenceLength, shape }, {
        name: `${op.name}.dpositions`,
        outputs: [backward.accumulator(positions)],
      });
    }
    if (!scatter) throw new Error("The gradient of an embedding needs its tokens sorted");
    const { firstToken = 0 } = op.attributes;
    backward.add(embeddingGradient, [tokens, scatter.order, scatter.runs, dx], { shape: table.shape, firstToken }, {
      name: `${op.name}.dtable`,
      outputs: [backward.accumulator(table)],
    });
  },
  lower({ inputs: [tokens, table, ...rest], outputs: [x], attributes }, target) {
    const start = attributes.start ? rest[rest.length - 1] : undefined;
    const positions = rest.length > (start ? 1 : 0) ? rest[0] : undefined;
    const { type, values } = valuesOf(table);
    const { firstToken = 0, addPositions = true } = attributes;
    const types = [tokens, table, positions, start, x].map((tensor) => tensor?.dtype);
    const made = kernel("kernels/embedding.wgsl", text, { TYPE: type }, types);
    return rowRanges(target, [x]).flatMap((range) =>
      rowRanges(target, [table]).map((rows) => ({
        kernel: made,
        windows: [
          windowOf(tokens, range),
          windowOf(table, rows),
          positions && windowOf(positions),
          start && windowOf(start),
          windowOf(x, range),
        ],
        uniforms: [
          values,
          attributes.sequenceLength,
          range.start,
          firstToken + rows.start,
          rows.count,
          positions && addPositions ? 1 : 0,
          start ? 1 : 0,
          // The first piece of the table also answers for tokens that are in none.
          rows.start === 0 ? firstToken : 0,
          rows.start === 0 ? rowCount(table) : 2 ** 32 - 1,
        ],
        workgroups: [ceilDivide(values, 32), range.count, 1] as const,
        flops: 0,
        bytes: 8 * range.count * rowSize(x),
      }))
    );
  },
};

/** Inputs `[tokens, order, runs, dx]`, output `[dTable]`, accumulated into. */
const embeddingGradient: OpDefinition<{ readonly shape: readonly number[]; readonly firstToken: number }> = {
  name: "embeddingGradient",
  infer: (_, { shape }) => [{ shape }],
  lower({ inputs: [tokens, order, runs, dx], outputs: [dTable], attributes: { firstToken } }, target) {
    const { type, values } = valuesOf(dTable);
    const types = [tokens, order, runs, dx, dTable].map(({ dtype }) => dtype);
    const made = kernel("kernels/embedding_gradient.wgsl", gradientText, { TYPE: type }, types);
    return rowRanges(target, [dx]).flatMap((range) =>
      rowRanges(target, [dTable]).map((rows) => ({
        kernel: made,
        windows: [windowOf(tokens), windowOf(order), windowOf(runs), windowOf(dx, range), windowOf(dTable, rows)],
        uniforms: [values, range.start, range.count, firstToken + rows.start, rows.count],
        workgroups: [ceilDivide(values, 32), elementCount(tokens), 1] as const,
        flops: range.count * rowSize(dx),
        bytes: 8 * range.count * rowSize(dx),
      }))
    );
  },
};

/** Input `[dx]`, output `[dPositions]`, accumulated into. */
const positionGradient: OpDefinition<{ readonly sequenceLength: number; readonly shape: readonly number[] }> = {
  name: "positionGradient",
  infer: (_, { shape }) => [{ shape }],
  lower({ inputs: [dx], outputs: [dPositions], attributes: { sequenceLength } }, target) {
    const { type, values } = valuesOf(dx);
    return rowRanges(target, [dx]).map((range) => ({
      kernel: kernel("kernels/position_gradient.wgsl", positionText, { TYPE: type }, [dx.dtype, dPositions.dtype]),
      windows: [windowOf(dx, range), windowOf(dPositions)],
      uniforms: [values, range.start, range.count, sequenceLength],
      workgroups: [ceilDivide(values, 32), sequenceLength, 1] as const,
      flops: range.count * rowSize(dx),
      bytes: 4 * range.count * rowSize(dx),
    }));
  },
};

/**
 * Sorts the indices of `tokens` by token, then by index (a counting sort), into `order`, and writes the length of each
 * run of equal tokens at the run's first place in `runs`, 0 elsewhere. `counts` is scratch of at least one more element
 * than the vocabulary. Allocates nothing.
 */
export function sortTokens(tokens: Uint32Array, order: Uint32Array, runs: Uint32Array, counts: Uint32Array): void {
  counts.fill(0);
  runs.fill(0);
  for (let i = 0; i < tokens.length; i++) counts[tokens[i] + 1]++;
  for (let v = 1; v < counts.length; v++) {
    const length = counts[v];
    if (length > 0) runs[counts[v - 1]] = length;
    counts[v] += counts[v - 1];
  }
  for (let i = 0; i < tokens.length; i++) order[counts[tokens[i]]++] = i;
}
