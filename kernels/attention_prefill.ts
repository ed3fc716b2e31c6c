/**
 * WGSL of attention of a block of tokens over a cache of keys and values, in three families as in `attention_kernels.ts`:
 * - `broadcast` (software drivers with subgroups of 8 or more): lanes load different vectors and hand them round;
 * - `tile` (GPUs): keys and values go through workgroup memory;
 * - `direct`: rolled loops over private arrays, for all else.
 * @module
 */

import type { Capabilities } from "../gpu/capabilities.ts";
import { type Kernel, kernel } from "../graph/dispatch.ts";
import type { DataType } from "../graph/tensor.ts";
import text from "./attention_prefill.wgsl" with { type: "text" };
import directText from "./attention_prefill_direct.wgsl" with { type: "text" };

/** A kernel and how many queries its workgroup has. */
export interface PrefillKernel {
  readonly kernel: Kernel;
  readonly block: number;
}

/** The measures of a kernel whose vectors have names. */
interface Shape {
  /** Vectors of a head. */
  readonly vectors: number;
  readonly threads: number;
  /** Queries of a thread. */
  readonly own: number;
  /** Keys that one turn of the loop treats. */
  readonly steps: number;
  /** Lanes that hand round; 0: through workgroup memory, `steps` rows at a time. */
  readonly lanes: number;
}

/** Heads of more vectors take a direct kernel: named ones would not fit registers. */
const mostVectors = 32;
/** Rows of keys, and of values, in workgroup memory. */
const tileRows = 16;

function range<T>(count: number, make: (i: number) => T): T[] {
  return Array.from({ length: count }, (_, i) => make(i));
}

/** Sums of queries times keys, the online softmax, and sums of weights times values: of keys `j` to `j + steps - 1`. */
function turn({ own, steps, vectors }: Shape, key: Place, value: Place): string[] {
  const all = (make: (r: number, u: number) => string) => range(own, (r) => range(steps, (u) => make(r, u))).flat();
  return [
    ...all((r, u) => `var s${r}_${u} = 0.0;`),
    ...range(vectors, (i) => [
      ...range(steps, (u) => `let k${i}_${u} = ${key(u, i)};`),
      ...[..."xyzw"].flatMap((c) => all((r, u) => `s${r}_${u} = fma(q${r}_${i}.${c}, k${i}_${u}.${c}, s${r}_${u});`)),
    ]).flat(),
    ...range(own, (r) => [
      ...range(steps, (u) => `s${r}_${u} = select(-1e30, s${r}_${u}, j + ${u}u <= position${r});`),
      `let t${r} = max(m${r}, ${range(steps, (u) => `s${r}_${u}`).reduce((x, y) => `max(${x}, ${y})`)});`,
      `let c${r} = exp2(m${r} - t${r});`,
      ...range(steps, (u) => `let w${r}_${u} = exp2(s${r}_${u} - t${r});`),
      `sum${r} = fma(sum${r}, c${r}, ${range(steps, (u) => `w${r}_${u}`).join(" + ")});`,
      `m${r} = t${r};`,
      ...range(vectors, (i) => `a${r}_${i} *= c${r};`),
    ]).flat(),
    ...range(vectors, (i) => [
      ...range(steps, (u) => `let v${i}_${u} = ${value(u, i)};`),
      ...all((r, u) => `a${r}_${i} = fma(vec4f(w${r}_${u}), v${i}_${u}, a${r}_${i});`),
    ]).flat(),
  ];
}

/** Where vector `vector` of row `step` of a turn is. */
type Place = (step: number, vector: number) => string;

/** The loop over all keys that the workgroup needs. */
function loop(shape: Shape): string[] {
  const { lanes, steps, threads, vectors } = shape;
  if (lanes === 0) {
    const tile = (name: string): Place => (u, i) => `${name}[(inner + ${u}u) * ${vectors}u + ${i}u]`;
    return [
      `for (var tile = 0u; tile <= last; tile += ${tileRows}u) {`,
      "workgroupBarrier();",
      `for (var f = local; f < ${tileRows * vectors}u; f += ${threads}u) {`,
      `let at = keyAt + min(tile + f / ${vectors}u, last) * stride + f % ${vectors}u;`,
      "keyTile[f] = load_keys(at);",
      "valueTile[f] = load_values(at);",
      "}",
      "workgroupBarrier();",
      `for (var inner = 0u; inner < ${tileRows}u; inner += ${steps}u) {`,
      "let j = tile + inner;",
      ...turn(shape, tile("keyTile"), tile("valueTile")),
      "}",
      "}",
    ];
  }
  const loads = Math.ceil(steps * vectors / lanes);
  const handed = (name: string): Place => (u, i) => {
    const flat = u * vectors + i;
    return `subgroupBroadcast(${name}${Math.floor(flat / lanes)}, ${flat % lanes}u)`;
  };
  return [
    `for (var j = 0u; j <= last; j += ${steps}u) {`,
    ...range(loads, (l) => [
      `let at${l} = keyAt + min(j + (${lanes * l}u + lane) / ${vectors}u, last) * stride + (${
        lanes * l
      }u + lane) % ${vectors}u;`,
      `let key${l} = load_keys(at${l});`,
      `let value${l} = load_values(at${l});`,
    ]).flat(),
    ...turn(shape, handed("key"), handed("value")),
    "}",
  ];
}

function body(shape: Shape): string[] {
  const { own, threads, vectors } = shape;
  return [
    ...range(own, (r) => [
      `let n${r} = block + ${r * threads}u + local;`,
      `let row${r} = min(n${r} / groupSize, p.rows - 1u);`,
      `let position${r} = first + row${r};`,
      `let head${r} = group.y * groupSize + n${r} % groupSize;`,
      `let queryAt${r} = (row${r} * (p.heads + 2u * p.keyValueHeads) + head${r}) * ${vectors}u;`,
      // Scores are logarithms to base 2.
      ...range(vectors, (i) => `let q${r}_${i} = load_qkv(queryAt${r} + ${i}u) * (p.scale * 1.4426950408889634);`),
      ...range(vectors, (i) => `var a${r}_${i} = vec4f(0.0);`),
      `var m${r} = -1e30;`,
      `var sum${r} = 0.0;`,
    ]).flat(),
    ...loop(shape),
    ...range(own, (r) => [
      `if (n${r} < p.rows * groupSize) {`,
      `let yAt = (row${r} * p.heads + head${r}) * ${vectors}u;`,
      ...range(vectors, (i) => `store_y(yAt + ${i}u, a${r}_${i} / sum${r});`),
      "}",
    ]).flat(),
  ];
}

function shapeOf({ type, subgroupSize }: Capabilities, headSize: number, queries: number): Shape | undefined {
  const vectors = headSize / 4;
  if (headSize % 4 !== 0 || vectors > mostVectors) return undefined;
  if (type === "gpu") return { vectors, threads: 64, own: 1, steps: 4, lanes: 0 };
  if (subgroupSize < 8 || subgroupSize > 64) return undefined;
  // A subgroup's loads serve all its queries: several for each thread, as long as there are so many.
  const own = Math.max(1, Math.min(4, Math.floor(64 / vectors), Math.floor(queries / subgroupSize)));
  return { vectors, threads: subgroupSize, own, steps: vectors > 8 ? 2 : 4, lanes: Math.min(16, subgroupSize) };
}

/**
 * The kernel for heads of `headSize`, where `queries` of them share a key/value head (rows times heads).
 *
 * @param types by binding, element types of the tensors
 */
export function prefillKernel(
  capabilities: Capabilities,
  headSize: number,
  queries: number,
  types: readonly DataType[],
): PrefillKernel {
  const file = "kernels/attention_prefill.wgsl";
  const shape = shapeOf(capabilities, headSize, queries);
  if (!shape) {
    const wide = headSize % 4 === 0;
    const constants = {
      TYPE: wide ? "vec4f" : "f32",
      VECTORS: wide ? headSize / 4 : headSize,
      TOTAL: wide ? "(x.x + x.y + x.z + x.w)" : "x",
    };
    const direct = text.replace("{{BODY}}", directText);
    return {
      kernel: kernel(file, direct, { ...constants, SHARED: "", THREADS: 32, BLOCK: 32, LANE: "" }, types),
      block: 32,
    };
  }
  const { own, threads, lanes, vectors } = shape;
  const block = own * threads;
  const tile = (name: string) => `var<workgroup> ${name}: array<vec4f, ${tileRows * vectors}>;`;
  return {
    kernel: kernel(file, text, {
      TYPE: "vec4f",
      VECTORS: vectors,
      THREADS: threads,
      BLOCK: block,
      LANE: lanes === 0 ? "" : ",\n  @builtin(subgroup_invocation_id) invocation: u32",
      SHARED: lanes === 0 ? [tile("keyTile"), tile("valueTile")].join("\n") : "",
      BODY: [...(lanes === 0 ? [] : [`let lane = invocation & ${lanes - 1}u;`]), ...body(shape)].join("\n  "),
    }, types),
    block,
  };
}
