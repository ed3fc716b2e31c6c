/**
 * WGSL of the attention kernels. Three families:
 *
 * - `broadcast` (software drivers with subgroups of 8 or more): a thread has one query (or key) in named vectors; eight
 *   lanes load eight different vectors of the keys and values and hand them round. 13 GF on lavapipe, against 2.5
 *   without the hand-round.
 * - `tile` (GPUs): blocks of keys and values go through workgroup memory.
 * - `direct`: rolled loops over private arrays; for any head size and no feature at all.
 * @module
 */

import type { Capabilities } from "../gpu/capabilities.ts";
import { type Kernel, kernel } from "../graph/dispatch.ts";
import directForward from "./attention_direct_forward.wgsl" with { type: "text" };
import directKey from "./attention_direct_key_gradient.wgsl" with { type: "text" };
import directQuery from "./attention_direct_query_gradient.wgsl" with { type: "text" };
import forwardText from "./attention_forward.wgsl" with { type: "text" };
import keyText from "./attention_key_gradient.wgsl" with { type: "text" };
import queryText from "./attention_query_gradient.wgsl" with { type: "text" };

/** The three kernels of attention. */
export type AttentionPart = "forward" | "query_gradient" | "key_gradient";

/** A kernel and how many queries or keys its workgroup has. */
export interface AttentionKernel {
  readonly kernel: Kernel;
  readonly threads: number;
}

/** Head sizes beyond this leave the families with named vectors: 3 vectors of 64 loads take seconds to compile. */
const largestNamedHead = 80;
/** Keys in workgroup memory at a time (two operands of 16 x 80 floats: 10 KiB). */
const tileKeys = 16;

function range<T>(count: number, make: (i: number) => T): T[] {
  return Array.from({ length: count }, (_, i) => make(i));
}

/** A sequence of rows, each of `vectors` vec4 at `base + index * stride`, walked by the loop. */
interface Stream {
  readonly name: string;
  readonly buffer: string;
  readonly base: string;
  readonly stride: string;
}

interface Family {
  readonly tile: boolean;
  readonly threads: number;
  readonly vectors: number;
  /** Rows of the streams that one turn of the loop treats. */
  readonly steps: number;
}

/** A loop over rows `begin` to `end` of two streams; `body(value)` makes the lines for `steps` rows from `j` on. */
function walk(
  family: Family,
  streams: readonly [Stream, Stream],
  body: (value: (stream: number, step: number, vector: number) => string) => string[],
): { lines: string[]; shared: string } {
  const { tile, threads, vectors, steps } = family;
  if (tile) {
    const shared = streams.map(({ name }) => `var<workgroup> ${name}Tile: array<vec4f, ${tileKeys * vectors}>;`).join(
      "\n",
    );
    const fill = streams.map(({ name, buffer, base, stride }) =>
      `${name}Tile[f] = ${buffer}[${base} + min(block + f / ${vectors}u, last) * ${stride} + f % ${vectors}u];`
    );
    return {
      shared,
      lines: [
        `for (var block = begin - begin % ${tileKeys}u; block < end; block += ${tileKeys}u) {`,
        "workgroupBarrier();",
        `for (var f = local; f < ${tileKeys * vectors}u; f += ${threads}u) {`,
        ...fill,
        "}",
        "workgroupBarrier();",
        `for (var inner = 0u; inner < ${tileKeys}u; inner += ${steps}u) {`,
        "let j = block + inner;",
        ...body((stream, step, vector) => `${streams[stream].name}Tile[(inner + ${step}u) * ${vectors}u + ${vector}u]`),
        "}",
        "}",
      ],
    };
  }
  const loads = Math.ceil(steps * vectors / 8);
  return {
    shared: "",
    lines: [
      ...range(loads, (l) => [
        `let step${l} = (${8 * l}u + lane) / ${vectors}u;`,
        `let part${l} = (${8 * l}u + lane) % ${vectors}u;`,
      ]).flat(),
      `for (var j = begin - begin % ${steps}u; j < end; j += ${steps}u) {`,
      ...range(loads, (l) => [
        `let r${l} = min(j + step${l}, last);`,
        ...streams.map(({ name, buffer, base, stride }) =>
          `let ${name}${l} = ${buffer}[${base} + r${l} * ${stride} + part${l}];`
        ),
      ]).flat(),
      ...body((stream, step, vector) => {
        const flat = step * vectors + vector;
        return `subgroupBroadcast(${streams[stream].name}${flat >> 3}, ${flat & 7}u)`;
      }),
      "}",
    ],
  };
}

const sumOf = (v: string) => `(${v}.x + ${v}.y) + (${v}.z + ${v}.w)`;

/** Lines that set `name<step>` to the product of own vectors `own<i>` with row `step` of a stream. */
function products(
  name: string,
  own: string,
  steps: number,
  vectors: number,
  value: (u: number, i: number) => string,
): string[] {
  return range(steps, (u) => [
    `var ${name}v${u} = vec4f(0.0);`,
    ...range(vectors, (i) => `${name}v${u} = fma(${own}${i}, ${value(u, i)}, ${name}v${u});`),
    `let ${name}${u} = ${sumOf(`${name}v${u}`)};`,
  ]).flat();
}

/** Lines that add `steps` products of a scalar and a vector to a sum; fma, as in the matrix product. */
function sumInto(sum: string, steps: number, factors: (u: number) => [scalar: string, vector: string]): string[] {
  return range(steps, (u) => {
    const [scalar, vector] = factors(u);
    return `${sum} = fma(vec4f(${scalar}), ${vector}, ${sum});`;
  });
}

const keyStreams: readonly [Stream, Stream] = [
  { name: "k", buffer: "qkv", base: "keyAt", stride: "stride" },
  { name: "v", buffer: "qkv", base: "valueAt", stride: "stride" },
];

function forwardBody(family: Family) {
  const { vectors, steps } = family;
  const loop = walk(family, keyStreams, (value) => [
    ...products("x", "q", steps, vectors, (u, i) => value(0, u, i)),
    ...range(steps, (u) => `let s${u} = select(-1e30, x${u}, j + ${u}u <= query);`),
    `let mn = max(m, ${range(steps, (u) => `s${u}`).reduce((a, b) => `max(${a}, ${b})`)});`,
    "let c = exp(m - mn);",
    ...range(steps, (u) => `let w${u} = exp(s${u} - mn);`),
    `sum = sum * c + ${range(steps, (u) => `w${u}`).join(" + ")};`,
    "m = mn;",
    ...range(vectors, (i) => [`a${i} *= c;`, ...sumInto(`a${i}`, steps, (u) => [`w${u}`, value(1, u, i)])]).flat(),
  ]);
  return {
    shared: loop.shared,
    body: [
      ...range(vectors, (i) => `let q${i} = qkv[queryAt + ${i}u] * p.scale;`),
      ...range(vectors, (i) => `var a${i} = vec4f(0.0);`),
      ...loop.lines,
    ],
    store: range(vectors, (i) => `y[yAt + ${i}u] = a${i} * r;`),
  };
}

function queryBody(family: Family) {
  const { vectors, steps } = family;
  const loop = walk(family, keyStreams, (value) => [
    ...products("x", "q", steps, vectors, (u, i) => value(0, u, i)),
    ...products("z", "g", steps, vectors, (u, i) => value(1, u, i)),
    ...range(
      steps,
      (u) => `let ds${u} = select(0.0, exp(min(x${u} - lse, 80.0)) * (z${u} - d) * p.scale, j + ${u}u <= query);`,
    ),
    ...range(vectors, (i) => sumInto(`a${i}`, steps, (u) => [`ds${u}`, value(0, u, i)])).flat(),
  ]);
  return {
    shared: loop.shared,
    body: [
      ...range(vectors, (i) => `let q${i} = qkv[queryAt + ${i}u] * p.scale;`),
      ...range(vectors, (i) => `let g${i} = dy[dyAt + ${i}u];`),
      ...range(vectors, (i) => `var a${i} = vec4f(0.0);`),
      ...loop.lines,
    ],
    store: range(vectors, (i) => `dqkv[queryAt + ${i}u] = a${i};`),
  };
}

function keyBody(family: Family) {
  const { vectors, steps } = family;
  const streams: readonly [Stream, Stream] = [
    { name: "q", buffer: "qkv", base: "queryAt", stride: "stride" },
    { name: "g", buffer: "dy", base: "dyAt", stride: "dyStride" },
  ];
  const loop = walk(family, streams, (value) => [
    ...range(steps, (u) => [
      `let at${u} = (first + min(j + ${u}u, last)) * p.heads + head;`,
      `let valid${u} = j + ${u}u >= key && j + ${u}u < T;`,
    ]).flat(),
    ...products("x", "k", steps, vectors, (u, i) => value(0, u, i)),
    ...products("z", "v", steps, vectors, (u, i) => value(1, u, i)),
    ...range(steps, (u) => [
      `let w${u} = select(0.0, exp(min(x${u} - logSumExp[at${u}], 80.0)), valid${u});`,
      `let ds${u} = w${u} * (z${u} - delta[at${u}]) * p.scale;`,
    ]).flat(),
    ...range(vectors, (i) => sumInto(`dk${i}`, steps, (u) => [`ds${u}`, value(0, u, i)])).flat(),
    ...range(vectors, (i) => sumInto(`dv${i}`, steps, (u) => [`w${u}`, value(1, u, i)])).flat(),
  ]);
  return {
    shared: loop.shared,
    body: [
      ...range(vectors, (i) => `let k${i} = qkv[keyAt + ${i}u] * p.scale;`),
      ...range(vectors, (i) => `let v${i} = qkv[valueAt + ${i}u];`),
      ...range(vectors, (i) => `var dk${i} = vec4f(0.0);`),
      ...range(vectors, (i) => `var dv${i} = vec4f(0.0);`),
      "for (var member = 0u; member < groupSize; member += 1u) {",
      "let head = keyValueHead * groupSize + member;",
      `let queryAt = first * stride + head * ${vectors}u;`,
      `let dyAt = first * dyStride + head * ${vectors}u;`,
      ...loop.lines,
      "}",
    ],
    store: range(vectors, (i) => [`dqkv[keyAt + ${i}u] = dk${i};`, `dqkv[valueAt + ${i}u] = dv${i};`]).flat(),
  };
}

const parts = {
  forward: { make: forwardBody, text: forwardText, direct: directForward },
  query_gradient: { make: queryBody, text: queryText, direct: directQuery },
  key_gradient: { make: keyBody, text: keyText, direct: directKey },
};

/** The kernel for one part of attention with heads of `headSize`, in the family that suits the device. */
export function attentionKernel(capabilities: Capabilities, part: AttentionPart, headSize: number): AttentionKernel {
  const { make, text, direct } = parts[part];
  const vector = headSize % 4 === 0;
  const tile = capabilities.type === "gpu";
  const broadcast = !tile && capabilities.subgroupSize >= 8 && capabilities.subgroupSize <= 64;
  if (!vector || headSize > largestNamedHead || !(tile || broadcast)) {
    const made = kernel(`kernels/attention_direct_${part}.wgsl`, direct, {
      TYPE: vector ? "vec4f" : "f32",
      VALUES: vector ? headSize / 4 : headSize,
      TOTAL: vector ? sumOf("v") : "v",
    });
    return { kernel: made, threads: 32 };
  }
  const vectors = headSize / 4;
  // More rows a turn share the rescaling of the sums; fewer keep the number of loads, and so compile time, down.
  const wide = vectors > 8 && part !== "forward";
  const family: Family = {
    tile,
    threads: tile ? 64 : Math.max(8, capabilities.subgroupSize),
    vectors,
    steps: wide ? 2 : 4,
  };
  const { shared, body, store } = make(family);
  const made = kernel(`kernels/attention_${part}.wgsl`, text, {
    THREADS: family.threads,
    VECTORS: vectors,
    LANE: tile ? "" : ",\n  @builtin(subgroup_invocation_id) invocation: u32",
    SHARED: shared,
    BODY: (tile ? "  " : "  let lane = invocation & 7u;\n  ") + body.join("\n  "),
    STORE: `    ${store.join("\n    ")}`,
  });
  return { kernel: { ...made, variant: `${tile ? "tile" : "broadcast"} head=${headSize}` }, threads: family.threads };
}
