/**
 * Pieces of WGSL from which the fast attention kernels are made: vectors of threads in named variables, and loops over rows
 * that all threads of a workgroup read.
 * @module
 */

/** The measures of a kernel. */
export interface AttentionShape {
  /** Elements of a vector: 4, or 1 where the head size is no multiple of four. */
  readonly width: 1 | 4;
  /** Vectors of a head. */
  readonly vectors: number;
  /** Threads of a workgroup. */
  readonly threads: number;
  /** Queries (or keys) that a thread has. */
  readonly own: number;
  /** Rows of the streams that one turn of the loop treats. */
  readonly steps: number;
  /** Lanes that load different vectors and hand them round; 0: through workgroup memory, `tileRows` rows at a time. */
  readonly lanes: number;
  /** How many of these lanes load one row: a power of two that divides `vectors`; at most `steps` rows are loaded at once. */
  readonly across: number;
  readonly tileRows: number;
  /** qkv, y and dy are read from textures. */
  readonly images: boolean;
  /**
   * Each lane takes rows and vectors in an order of its own, in which it has one of another lane by `subgroupShuffleXor`: software
   * drivers need one instruction for that, and two for a broadcast, unless 16 lanes have loaded from buffers, which leaves what
   * they load in memory.
   */
  readonly skewed: boolean;
}

/** `vectors` vectors from `column` on of each row of a sequence, walked by the loop. */
export interface Stream {
  readonly name: string;
  readonly binding: Operand;
  readonly column: string;
  /**
   * A turn uses the rows twice. They are multiplied by `one`, which compilers do not know to be 1, so that they are handed round
   * twice: kept for the second time, they fill the first cache.
   */
  readonly twice?: boolean;
}

/** A tensor whose rows are read. */
export type Operand = "qkv" | "y" | "dy" | "keys" | "values";

const strides: Record<Operand, string> = {
  qkv: "stride",
  y: "yStride",
  dy: "yStride",
  keys: "cacheStride",
  values: "cacheStride",
};

/** The vector of an operand at a row and a column, in vectors. */
export function load({ images }: AttentionShape, operand: Operand, row: string, column: string): string {
  return images ? `load_${operand}(${column}, ${row})` : `load_${operand}((${row}) * ${strides[operand]} + ${column})`;
}

/** The place of vector `vector` in row `step` of a stream; `again` where the turn uses it for the second time. */
export type StreamValue = (stream: number, step: number, vector: number, again?: boolean) => string;

/** `[make(0), …, make(count - 1)]`. */
export function range<T>(count: number, make: (i: number) => T): T[] {
  return Array.from({ length: count }, (_, i) => make(i));
}

/** The vector type. */
export function typeOf({ width }: AttentionShape): string {
  return width === 4 ? "vec4f" : "f32";
}

/** A loop whose body runs at least once. Software drivers run the body of a `for` once more, with all lanes masked off. */
export function atLeastOnce(name: string, begin: string, end: string, step: number, body: readonly string[]): string[] {
  return [
    `var ${name} = ${begin};`,
    "loop {",
    ...body,
    `continuing { ${name} += ${step}u; break if ${name} >= ${end}; }`,
    "}",
  ];
}

/**
 * A loop over rows `begin` to `end` of the streams; `body(value)` makes the lines for `steps` rows from `j` on. Where lanes hand round, `around.before` comes
 * before each `lanes` rows, from `part` on, and `around.after` behind each turn.
 */
export function walk(
  shape: AttentionShape,
  streams: readonly Stream[],
  body: (value: StreamValue) => string[],
  around?: { readonly before: readonly string[]; readonly after: readonly string[] },
): { lines: string[]; shared: string } {
  const { lanes, across, threads, vectors, steps, tileRows, skewed } = shape;
  if (lanes === 0) {
    const size = tileRows * vectors;
    return {
      shared: streams.map(({ name }) => `var<workgroup> ${name}Tile: array<${typeOf(shape)}, ${size}>;`).join("\n"),
      lines: [
        `for (var tile = begin - begin % ${tileRows}u; tile < end; tile += ${tileRows}u) {`,
        "workgroupBarrier();",
        `for (var f = local; f < ${size}u; f += ${threads}u) {`,
        `let rowAt = first + min(tile + f / ${vectors}u, last);`,
        ...streams.map(({ name, binding, column }) =>
          `${name}Tile[f] = ${load(shape, binding, "rowAt", `${column} + f % ${vectors}u`)};`
        ),
        "}",
        "workgroupBarrier();",
        `for (var inner = 0u; inner < ${tileRows}u; inner += ${steps}u) {`,
        "let j = tile + inner;",
        ...body((stream, step, vector) => `${streams[stream].name}Tile[(inner + ${step}u) * ${vectors}u + ${vector}u]`),
        "}",
        "}",
      ],
    };
  }
  const rows = lanes / across;
  const lines = streams.flatMap(({ name, binding, column, twice }) =>
    range(steps / rows, (block) => [
      `let ${name}Row${block} = first + min(j + ${block * rows}u + laneRow, last);`,
      ...range(vectors / across, (part) => {
        const value = load(shape, binding, `${name}Row${block}`, `${column} + ${part * across}u + laneVector`);
        const loaded = `${name}${block}_${part}`;
        return [`let ${loaded} = ${value};`, ...(twice ? [`let ${loaded}_again = ${loaded} * one;`] : [])];
      }).flat(),
    ]).flat()
  );
  lines.push(...body((stream, step, vector, again) => {
    const { name } = streams[stream];
    const loaded = `${name}${Math.floor(step / rows)}_${Math.floor(vector / across)}${again ? "_again" : ""}`;
    const from = step % rows * across + vector % across;
    if (!skewed) return `subgroupBroadcast(${loaded}, ${from}u)`;
    return from === 0 ? loaded : `subgroupShuffleXor(${loaded}, ${from}u)`;
  }));
  const start = `begin - begin % ${steps}u`;
  // Loads from buffers are loops of their own in software drivers; around those, this form is the faster one.
  if (!skewed && !around) {
    return { shared: "", lines: [`for (var j = ${start}; j < end; j += ${steps}u) {`, ...lines, "}"] };
  }
  if (!around) return { shared: "", lines: atLeastOnce("j", start, "end", steps, lines) };
  const turns = atLeastOnce("j", "part", `part + ${lanes}u`, steps, [...lines, ...around.after]);
  return {
    shared: "",
    lines: atLeastOnce("part", `begin - begin % ${lanes}u`, "end", lanes, [...around.before, ...turns]),
  };
}

/** Lines that name a thread's place among those that hand round. */
export function laneLines({ lanes, across }: AttentionShape): string[] {
  return [
    `let lane = invocation & ${lanes - 1}u;`,
    `let laneRow = lane / ${across}u;`,
    `let laneVector = lane & ${across - 1}u;`,
  ];
}

/** Which row of a turn a thread treats as number `step` of it. */
export function rowOf({ lanes, across, skewed }: AttentionShape, step: number): string {
  return skewed && lanes !== across ? `(${step}u ^ laneRow)` : `${step}u`;
}

/** Which vector of a row a thread treats as number `vector`. */
export function vectorOf({ skewed }: AttentionShape, vector: string): string {
  return skewed ? `(${vector} ^ laneVector)` : vector;
}

/** Lines that declare the vectors `name(r, i)`, all 0. */
export function declare(shape: AttentionShape, name: (r: number, i: number) => string): string[] {
  const { own, vectors } = shape;
  return range(own, (r) => range(vectors, (i) => `var ${name(r, i)} = ${typeOf(shape)}(0.0);`)).flat();
}

/**
 * Lines that set named vectors, `name(r, i)` for each of a thread's own rows, to what `load(r, "i")` gives. One load in a loop:
 * load instructions cost software drivers compile time, choices among named vectors cost little.
 */
export function loadNamed(
  shape: AttentionShape,
  sets: readonly { readonly name: (r: number, i: number) => string; readonly load: (r: number) => string }[],
  also: (r: number) => readonly string[] = () => [],
): string[] {
  const { own, vectors } = shape;
  return [
    ...sets.flatMap(({ name }) => declare(shape, name)),
    ...atLeastOnce("i", "0u", `${vectors}u`, 1, [
      `let at = ${vectorOf(shape, "i")};`,
      ...range(own, (r) => [
        ...sets.flatMap(({ name, load }, s) => [
          `let l${s}_${r} = ${load(r)};`,
          ...range(vectors, (i) => `${name(r, i)} = select(${name(r, i)}, l${s}_${r}, i == ${i}u);`),
        ]),
        ...also(r),
      ]).flat(),
    ]),
  ];
}

/** Lines that hand named vectors to `store(r, value)`, which may use `i`. */
export function storeNamed(
  shape: AttentionShape,
  sets: readonly {
    readonly name: (r: number, i: number) => string;
    readonly store: (r: number, v: string) => string;
  }[],
): string[] {
  const { own, vectors } = shape;
  return atLeastOnce("o", "0u", `${vectors}u`, 1, [
    `let to = ${vectorOf(shape, "o")};`,
    ...range(own, (r) =>
      sets.flatMap(({ name, store }, s) => [
        `var w${s}_${r} = ${name(r, 0)};`,
        ...range(vectors - 1, (i) => `w${s}_${r} = select(w${s}_${r}, ${name(r, i + 1)}, o == ${i + 1}u);`),
        `if (inside${r}) { ${store(r, `w${s}_${r}`)} }`,
      ])).flat(),
  ]);
}

const components = ["x", "y", "z", "w"];

/** Lines that set scalars `name(r, u)` to the products of own vectors `factor(r, i)` with row `u` of a stream. */
export function products(
  { own, steps, vectors, width }: AttentionShape,
  name: string,
  factor: (r: number, i: number) => string,
  value: (u: number, i: number) => string,
): string[] {
  return [
    ...range(own, (r) => range(steps, (u) => `var ${name}${r}_${u} = 0.0;`)).flat(),
    ...range(vectors, (i) => [
      ...range(steps, (u) => `let ${name}b${i}_${u} = ${value(u, i)};`),
      ...range(width, (c) => {
        const part = width === 4 ? `.${components[c]}` : "";
        return range(
          steps,
          (u) =>
            range(
              own,
              (r) => `${name}${r}_${u} = fma(${factor(r, i)}${part}, ${name}b${i}_${u}${part}, ${name}${r}_${u});`,
            ),
        ).flat();
      }).flat(),
    ]).flat(),
  ];
}

/** Lines that add to the vectors `sum(r, i)`, first multiplied by `before(r)`, each row of a stream times `scalar(r, u)`. */
export function sums(
  shape: AttentionShape,
  sum: (r: number, i: number) => string,
  scalar: (r: number, u: number) => string,
  value: (u: number, i: number) => string,
  before?: (r: number) => string,
): string[] {
  const { own, steps, vectors } = shape;
  return range(vectors, (i) => [
    ...range(steps, (u) => `let ${sum(0, i)}b${u} = ${value(u, i)};`),
    ...range(
      own,
      (r) =>
        range(
          steps,
          (u) =>
            `${sum(r, i)} = fma(${typeOf(shape)}(${scalar(r, u)}), ${sum(0, i)}b${u}, ${sum(r, i)}${
              before && u === 0 ? ` * ${before(r)}` : ""
            });`,
        ),
    ).flat(),
  ]).flat();
}
