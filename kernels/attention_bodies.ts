/**
 * The bodies of the fast attention kernels (names and indices: the .wgsl files). Scores are logarithms to base 2.
 * @module
 */

import {
  atLeastOnce,
  type AttentionShape,
  declare,
  load,
  loadNamed,
  products,
  range,
  rowOf,
  storeNamed,
  type Stream,
  sums,
  walk,
} from "./attention_loops.ts";

/** Lines of a kernel's body, and declarations of workgroup memory. */
export interface AttentionBody {
  readonly lines: string[];
  readonly shared: string;
}

const keys: Stream = { name: "k", binding: "qkv", column: "keyColumn" };
const values: Stream = { name: "v", binding: "qkv", column: "valueColumn" };
const cached: readonly Stream[] = [
  { name: "k", binding: "keys", column: "keyColumn" },
  { name: "v", binding: "values", column: "keyColumn" },
];

const vector = (name: string) => (r: number, i: number) => `${name}${r}_${i}`;
const q = vector("q");
const g = vector("g");
const k = vector("k");
const v = vector("v");
const a = vector("a");
const dk = vector("dk");
const dv = vector("dv");

/** A thread's own queries: number `r` is row `row<r>at` at `position<r>` of head `head<r>`; row 0 is at position `start`. */
function ownQueries({ own, threads, vectors }: AttentionShape, start: string): string[] {
  return range(own, (r) => [
    `let n${r} = block + ${r * threads}u + local;`,
    `let position${r} = ${start} + n${r} / groupSize;`,
    `let inside${r} = position${r} < T;`,
    `let row${r}at = first + min(position${r}, last) - ${start};`,
    `let head${r} = group.y * groupSize + n${r} % groupSize;`,
    `let column${r} = head${r} * ${vectors}u;`,
  ]).flat();
}

const log2e = "1.4426950408889634";
const ln2 = "0.6931471805599453";

/** The largest of some numbers, in pairs: few behind one another. */
function largest(names: readonly string[]): string {
  if (names.length === 1) return names[0];
  const half = names.length / 2;
  return `larger(${largest(names.slice(0, half))}, ${largest(names.slice(half))})`;
}

/** Online softmax: sums are rescaled once a turn, when its largest score is known. */
export function forwardBody(shape: AttentionShape): AttentionBody {
  return softmaxBody(shape, "0u", [keys, values], (r) => [
    `let lse${r} = (m${r} + log2(sum${r})) * ${ln2};`,
    `if (inside${r}) { store_logSumExp(row${r}at * p.heads + head${r}, lse${r}); }`,
  ]);
}

/** The same of new queries, from position `start` on, over caches. */
export function prefillBody(shape: AttentionShape): AttentionBody {
  return softmaxBody(shape, "start", cached, () => []);
}

function softmaxBody(
  shape: AttentionShape,
  start: string,
  streams: readonly Stream[],
  statistics: (r: number) => string[],
): AttentionBody {
  const { own, steps } = shape;
  const all = (line: (r: number) => string) => range(own, line);
  const each = (line: (r: number, u: number) => string) => all((r) => range(steps, (u) => line(r, u)).join(" "));
  const loop = walk(shape, streams, (value) => [
    ...products(shape, "x", q, (u, i) => value(0, u, i)),
    ...each((r, u) => `let s${r}_${u} = select(-1e30, x${r}_${u}, j + ${rowOf(shape, u)} <= position${r});`),
    ...all((r) => `let t${r} = larger(m${r}, ${largest(range(steps, (u) => `s${r}_${u}`))});`),
    ...all((r) => `let c${r} = powerOf2(m${r} - t${r});`),
    ...each((r, u) => `let w${r}_${u} = powerOf2(s${r}_${u} - t${r});`),
    ...all((r) => `sum${r} = fma(sum${r}, c${r}, ${range(steps, (u) => `w${r}_${u}`).join(" + ")});`),
    ...all((r) => `m${r} = t${r};`),
    ...sums(shape, a, (r, u) => `w${r}_${u}`, (u, i) => value(1, u, i), (r) => `c${r}`),
  ]);
  return {
    shared: loop.shared,
    lines: [
      ...ownQueries(shape, start),
      ...loadNamed(
        shape,
        [{ name: q, load: (r) => `${load(shape, "qkv", `row${r}at`, `column${r} + at`)} * (p.scale * ${log2e})` }],
      ),
      ...declare(shape, a),
      ...range(own, (r) => [`var m${r} = -1e30;`, `var sum${r} = 0.0;`]).flat(),
      ...loop.lines,
      ...range(own, (r) => `let scale${r} = 1.0 / sum${r};`),
      ...storeNamed(shape, [{
        name: a,
        store: (r, v) => `store_y(row${r}at * yStride + column${r} + to, ${v} * scale${r});`,
      }]),
      ...range(own, statistics).flat(),
    ],
  };
}

/** `dq = scale Σ w (dy·v - delta) k`. */
export function queryBody(shape: AttentionShape): AttentionBody {
  const { own, steps } = shape;
  const loop = walk(shape, [{ ...keys, twice: true }, values], (value) => [
    ...products(shape, "x", q, (u, i) => value(0, u, i)),
    ...products(shape, "z", g, (u, i) => value(1, u, i)),
    ...range(
      own,
      (r) =>
        range(
          steps,
          (u) =>
            `let ds${r}_${u} = select(0.0, powerOf2(x${r}_${u} - lse${r}) * (z${r}_${u} - d${r}), j + ${
              rowOf(shape, u)
            } <= position${r});`,
        ),
    )
      .flat(),
    ...sums(shape, a, (r, u) => `ds${r}_${u}`, (u, i) => value(0, u, i, true)),
  ]);
  const dot = (x: string, y: string) => shape.width === 4 ? `dot(${x}, ${y})` : `${x} * ${y}`;
  return {
    shared: loop.shared,
    lines: [
      ...ownQueries(shape, "0u"),
      ...range(own, (r) => `var d${r} = 0.0;`),
      ...loadNamed(
        shape,
        [
          { name: q, load: (r) => `${load(shape, "qkv", `row${r}at`, `column${r} + at`)} * (p.scale * ${log2e})` },
          { name: g, load: (r) => load(shape, "dy", `row${r}at`, `column${r} + at`) },
        ],
        (r) => [`d${r} += ${dot(`l1_${r}`, load(shape, "y", `row${r}at`, `column${r} + at`))};`],
      ),
      ...range(own, (r) => [
        `let lse${r} = load_logSumExp(row${r}at * p.heads + head${r}) * ${log2e};`,
        `if (inside${r}) { store_delta(row${r}at * p.heads + head${r}, d${r}); }`,
      ]).flat(),
      ...declare(shape, a),
      ...loop.lines,
      ...storeNamed(shape, [{
        name: a,
        store: (r, v) => `store_dqkv(row${r}at * stride + column${r} + to, ${v} * p.scale);`,
      }]),
    ],
  };
}

/** `dk = scale Σ w (dy·v - delta) q`, `dv = Σ w dy`. */
export function keyBody(shape: AttentionShape): AttentionBody {
  const { own, steps, threads, vectors, lanes } = shape;
  const streams: readonly Stream[] = [
    { name: "q", binding: "qkv", column: "column", twice: true },
    { name: "g", binding: "dy", column: "column", twice: true },
  ];
  const at = (row: string) => `(first + min(${row}, last)) * p.heads + head`;
  const numbers = (row: string) => [`= load_logSumExp(${at(row)}) * ${log2e};`, `= load_delta(${at(row)});`];
  // Where lanes hand round, one load has the numbers of many rows. With 16 lanes it is dear, and serves several turns: those of a
  // turn come to the first lanes. With 8 the second loop costs more.
  const rotated = `(lane + ${steps}u) & ${lanes - 1}u`;
  const [lses, ds] = numbers("part + lane");
  const around = lanes < 16 ? undefined : {
    before: [`var lse ${lses}`, `var d ${ds}`],
    after: [`lse = subgroupShuffle(lse, ${rotated});`, `d = subgroupShuffle(d, ${rotated});`],
  };
  const [lse, d] = numbers(`j + lane % ${steps}u`);
  const statistics = [
    ...(lanes === 0 || around ? [] : [`let lse ${lse}`, `let d ${d}`]),
    ...range(steps, (u) => {
      const [lse, d] = numbers(`j + ${u}u`);
      const handed = (name: string) => `= subgroupShuffle(${name}, ${rowOf(shape, u)});`;
      return lanes === 0
        ? [`let lse${u} ${lse}`, `let d${u} ${d}`]
        : [`let lse${u} ${handed("lse")}`, `let d${u} ${handed("d")}`];
    }).flat(),
  ];
  const loop = walk(shape, streams, (value) => [
    ...statistics,
    ...range(steps, (u) => `let key${u} = j + ${rowOf(shape, u)};`),
    ...products(shape, "x", k, (u, i) => value(0, u, i)),
    ...products(shape, "z", v, (u, i) => value(1, u, i)),
    ...range(own, (r) =>
      range(steps, (u) => [
        `let w${r}_${u} = select(0.0, powerOf2(x${r}_${u} - lse${u}), key${u} >= position${r} && key${u} < T);`,
        `let ds${r}_${u} = w${r}_${u} * (z${r}_${u} - d${u});`,
      ]).flat()).flat(),
    ...sums(shape, dk, (r, u) => `ds${r}_${u}`, (u, i) => value(0, u, i, true)),
    ...sums(shape, dv, (r, u) => `w${r}_${u}`, (u, i) => value(1, u, i, true)),
  ], around);
  return {
    shared: loop.shared,
    lines: [
      ...range(own, (r) => [
        `let position${r} = block + ${r * threads}u + local;`,
        `let inside${r} = position${r} < T;`,
        `let row${r}at = first + min(position${r}, last);`,
      ]).flat(),
      ...loadNamed(
        shape,
        [
          { name: k, load: (r) => `${load(shape, "qkv", `row${r}at`, `keyColumn + at`)} * (p.scale * ${log2e})` },
          { name: v, load: (r) => load(shape, "qkv", `row${r}at`, "valueColumn + at") },
        ],
      ),
      ...declare(shape, dk),
      ...declare(shape, dv),
      ...atLeastOnce("member", "0u", "groupSize", 1, [
        "let head = group.y * groupSize + member;",
        `let column = head * ${vectors}u;`,
        ...loop.lines,
      ]),
      ...storeNamed(shape, [
        { name: dk, store: (r, v) => `store_dqkv(row${r}at * stride + keyColumn + to, ${v} * p.scale);` },
        { name: dv, store: (r, v) => `store_dqkv(row${r}at * stride + valueColumn + to, ${v});` },
      ]),
    ],
  };
}
