import assert from "node:assert/strict";
import { circles, longFiles, orphanKernels, wrongImports } from "../../tools/structure.ts";

const imports = (record: Record<string, string[]>) => new Map(Object.entries(record));

Deno.test("wrongImports() lets a room import those below it, and data only by those who read it", () => {
  assert.deepEqual(
    wrongImports(imports({
      "cli.ts": ["cli/main.ts"],
      "cli/main.ts": ["train/a.ts", "data/b.ts", "errors.ts"],
      "train/a.ts": ["kernels/c.ts", "gpu/d.ts", "train/e.ts"],
      "tests/x.ts": ["train/a.ts", "tools/y.ts"],
    })),
    [],
  );
  assert.deepEqual(
    wrongImports(imports({
      "gpu/d.ts": ["graph/g.ts"],
      "kernels/c.ts": ["data/b.ts"],
      "data/b.ts": ["train/a.ts"],
      "train/a.ts": ["tools/y.ts"],
      "errors.ts": ["gpu/d.ts"],
    })),
    [
      "gpu/d.ts must not import graph/g.ts",
      "kernels/c.ts must not import data/b.ts",
      "data/b.ts must not import train/a.ts",
      "train/a.ts must not import tools/y.ts",
      "errors.ts must not import gpu/d.ts",
    ],
  );
});

Deno.test("circles() finds each circle once and none in a lattice", () => {
  assert.deepEqual(circles(imports({ a: ["b", "c"], b: ["d"], c: ["d"], d: [] })), []);
  assert.deepEqual(circles(imports({ a: ["b"], b: ["c"], c: ["b"] })), ["b → c → b"]);
  assert.deepEqual(circles(imports({ a: ["a"] })), ["a → a"]);
});

Deno.test("longFiles() and orphanKernels() name what breaks the rules", () => {
  const long = "x\n".repeat(400);
  assert.deepEqual(longFiles(new Map([["a.ts", long], ["b.ts", `// Long because: a table\n${long}`], ["c.ts", "x"]])), [
    "a.ts has 401 lines",
  ]);
  assert.deepEqual(
    orphanKernels(["kernels/a.wgsl", "kernels/b.wgsl"], new Map([["kernels/a.ts", 'import t from "./a.wgsl"']])),
    ["kernels/b.wgsl is used by no module beside it"],
  );
});
