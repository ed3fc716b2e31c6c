import assert from "node:assert/strict";
import fc from "fast-check";
import { expandCounts, expandNodeList } from "../../network/node_list.ts";

Deno.test("expandNodeList() writes out lists as scontrol does, and those with something behind the brackets", () => {
  // What `scontrol show hostnames` of Slurm 22.05 printed.
  const recorded: Record<string, string> = {
    x: "x",
    "n[1-2]": "n1 n2",
    "n[1,3]": "n1 n3",
    "a[9-11]": "a9 a10 a11",
    "a[09-11]": "a09 a10 a11",
    "a[1-2]b[01-03]": "a1b01 a1b02 a1b03 a2b01 a2b02 a2b03",
  };
  for (const [list, hosts] of Object.entries(recorded)) assert.equal(expandNodeList(list).join(" "), hosts);
  const gpus = Array.from({ length: 10 }, (_, i) => `gpu${String(i + 1).padStart(3, "0")}-ib`);
  assert.deepEqual(expandNodeList("n[1-2,7],gpu[001-010]-ib"), ["n1", "n2", "n7", ...gpus]);
  assert.deepEqual(expandNodeList("login.a-b.example,r[0-1]n[2]x"), ["login.a-b.example", "r0n2x", "r1n2x"]);
});

Deno.test("expandNodeList() gives back what was compressed", () => {
  const prefix = fc.stringMatching(/^[a-z][a-z-]{0,4}$/);
  const range = fc.record({ first: fc.nat(1200), count: fc.integer({ min: 1, max: 12 }), width: fc.nat(5) });
  const name = fc.record({
    prefix,
    ranges: fc.array(range, { minLength: 1, maxLength: 3 }),
    suffix: fc.constantFrom("", "-ib"),
  });
  fc.assert(fc.property(fc.array(name, { minLength: 1, maxLength: 4 }), (names) => {
    const hosts: string[] = [];
    const list = names.map(({ prefix, ranges, suffix }) => {
      const written = ranges.map(({ first, count, width }) => {
        const digits = (value: number) => String(value).padStart(width, "0");
        for (let i = first; i < first + count; i++) hosts.push(prefix + digits(i) + suffix);
        return count === 1 ? digits(first) : `${digits(first)}-${digits(first + count - 1)}`;
      });
      return `${prefix}[${written.join(",")}]${suffix}`;
    }).join(",");
    assert.deepEqual(expandNodeList(list), hosts);
  }));
});

Deno.test("expandNodeList() refuses what is no list, and lists too long to write out", () => {
  for (
    const list of [
      "",
      ",",
      "a,",
      ",a",
      "a[",
      "a]",
      "a[1",
      "a[]",
      "a[1-]",
      "a[3-1]",
      "a[1-2",
      "a[x]",
      "a[1,,2]",
      "a b",
      "a[[1]]",
    ]
  ) {
    assert.throws(() => expandNodeList(list), { name: "UserError", message: /Slurm's form/ }, list);
  }
  for (const list of ["a[1-9999999999]", "a[0-999]b[0-999]", "a[0-65000],b[0-65000]", "a[1-99999999999999999999]"]) {
    assert.throws(() => expandNodeList(list), { name: "UserError", message: /more than 65536/ }, list);
  }
});

Deno.test("expandCounts() repeats counts, and gives back what was compressed", () => {
  assert.deepEqual(expandCounts("3(x2),1"), [3, 3, 1]);
  const runs = fc.array(fc.tuple(fc.nat(99), fc.integer({ min: 1, max: 9 })), { minLength: 1, maxLength: 6 });
  fc.assert(fc.property(runs, (runs) => {
    const list = runs.map(([count, times]) => times === 1 ? `${count}` : `${count}(x${times})`).join(",");
    assert.deepEqual(expandCounts(list), runs.flatMap(([count, times]) => Array(times).fill(count)));
  }));
  for (const list of ["", "3(x)", "3(x0)", "x", "3,", "-1", "1(x9999999999)"]) {
    assert.throws(() => expandCounts(list), { name: "UserError", message: /not a list of counts/ }, list);
  }
});
