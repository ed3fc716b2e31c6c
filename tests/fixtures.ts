/** Reads the reference numbers of tests/fixtures. */

const root = new URL("./fixtures/", import.meta.url);

/** Numbers with their shape. */
export interface Reference {
  readonly shape: number[];
  readonly data: Float32Array | Int32Array;
}

/** All tensors of a safetensors file of f32 and i32 (a reader of its own: the product's reader is under test too). */
export function readReference(path: string | URL): Map<string, Reference> {
  const bytes = Deno.readFileSync(path);
  const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  const tensors = new Map<string, Reference>();
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const { dtype, shape, data_offsets: [from, to] } = entry as {
      dtype: string;
      shape: number[];
      data_offsets: number[];
    };
    const { buffer } = bytes.slice(8 + length + from, 8 + length + to);
    tensors.set(name, { shape, data: dtype === "F32" ? new Float32Array(buffer) : new Int32Array(buffer) });
  }
  return tensors;
}

/** One case of an op's fixture. */
export interface OpCase {
  readonly name: string;
  // deno-lint-ignore no-explicit-any -- each op's JSON has its own form
  readonly config: any;
  readonly given: Record<string, Reference>;
  readonly expected: Record<string, Reference>;
  /** Largest `scaledMax` allowed, by expected tensor. */
  readonly limits: Record<string, number>;
}

/** The cases of an op, from `tests/fixtures/ops` or another folder of that form. */
export function readOpCases(op: string, folder: URL = new URL("ops/", root)): OpCase[] {
  const description = JSON.parse(Deno.readTextFileSync(new URL(`${op}.json`, folder)));
  const tensors = readReference(new URL(`${op}.safetensors`, folder));
  // deno-lint-ignore no-explicit-any -- see above
  return description.cases.map((entry: any): OpCase => {
    const pick = (names: Record<string, unknown>) =>
      Object.fromEntries(Object.keys(names).map((name) => [name, tensors.get(`${entry.name}/${name}`)!]));
    const limits = Object.fromEntries(
      Object.keys(entry.expected).map((name) => [name, Math.max(4 * (entry.f32_error[name]?.scaled_max ?? 0), 2e-6)]),
    );
    return { name: entry.name, config: entry.config, given: pick(entry.given), expected: pick(entry.expected), limits };
  });
}

/** Folder of a model fixture. */
export function modelFolder(name: string): URL {
  return new URL(`${name}/`, root);
}
