import assert from "node:assert/strict";
import fc from "fast-check";
import { openModelFolder, openSafetensors, writeSafetensors } from "../../data/safetensors.ts";
import { UserError } from "../../errors.ts";
import { readReference } from "../fixtures.ts";

async function inFolder<T>(body: (folder: string) => T | Promise<T>): Promise<T> {
  const folder = Deno.makeTempDirSync();
  try {
    return await body(folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

function file(header: unknown, data: Uint8Array = new Uint8Array(0), claimed?: number): Uint8Array<ArrayBuffer> {
  const json = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const bytes = new Uint8Array(8 + json.length + data.length);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(claimed ?? json.length), true);
  bytes.set(json, 8);
  bytes.set(data, 8 + json.length);
  return bytes;
}

Deno.test("openSafetensors() reads what PyTorch's library wrote", () => {
  const path = new URL("../fixtures/llama_tied_tiny/model.safetensors", import.meta.url);
  const reader = openSafetensors(path.pathname);
  for (const [name, { shape, data }] of readReference(path)) {
    assert.deepEqual(reader.tensors.get(name)!.shape, shape);
    const read = new Float32Array(data.length);
    reader.readInto(name, read);
    assert.deepEqual(read, data);
    const part = new Float32Array(3);
    reader.readInto(name, part, 2);
    assert.deepEqual(part, data.slice(2, 5));
  }
  reader.close();
});

Deno.test("writeSafetensors() round-trips, aligned to eight bytes", () =>
  inFolder(async (folder) => {
    const path = `${folder}/x.safetensors`;
    const tensors = [
      { name: "a", shape: [2, 3], data: Float32Array.of(1, -2, 3.5, 0, 1e-30, 1e30) },
      { name: "scalar", shape: [], data: Float32Array.of(7) },
    ];
    const hash = await writeSafetensors(path, tensors);
    assert.match(hash, /^[0-9a-f]{64}$/);
    assert.equal(new DataView(Deno.readFileSync(path).buffer).getBigUint64(0, true) % 8n, 0n);
    const reader = openSafetensors(path);
    for (const { name, data } of tensors) {
      const read = new Float32Array(data.length);
      reader.readInto(name, read);
      assert.deepEqual(read, data);
    }
    reader.close();
  }));

Deno.test("readInto() converts f16 and bf16 exactly", () =>
  inFolder((folder) => {
    const values = [1, -2.5, 65504, 6e-8, 0, Infinity];
    const f16 = new Uint8Array(new Float16Array(values).buffer);
    const bf16 = new Uint8Array(Uint16Array.of(0x3f80, 0xc020, 0x7f80).buffer);
    const data = new Uint8Array([...f16, ...bf16]);
    Deno.writeFileSync(
      `${folder}/model.safetensors`,
      file({
        half: { dtype: "F16", shape: [6], data_offsets: [0, 12] },
        brain: { dtype: "BF16", shape: [3], data_offsets: [12, 18] },
      }, data),
    );
    const reader = openModelFolder(folder);
    const half = new Float32Array(6), brain = new Float32Array(3);
    reader.readInto("half", half);
    reader.readInto("brain", brain);
    reader.close();
    assert.deepEqual(half, Float32Array.from(new Float16Array(values)));
    assert.deepEqual(brain, Float32Array.of(1, -2.5, Infinity));
  }));

Deno.test("openModelFolder() reads shards, and names what is missing", () =>
  inFolder(async (folder) => {
    await writeSafetensors(`${folder}/model-00001-of-00002.safetensors`, [{
      name: "a",
      shape: [2],
      data: Float32Array.of(1, 2),
    }]);
    await writeSafetensors(`${folder}/model-00002-of-00002.safetensors`, [{
      name: "b",
      shape: [1],
      data: Float32Array.of(3),
    }]);
    const index = { weight_map: { a: "model-00001-of-00002.safetensors", b: "model-00002-of-00002.safetensors" } };
    const path = `${folder}/model.safetensors.index.json`;
    Deno.writeTextFileSync(path, JSON.stringify(index));
    const reader = openModelFolder(folder);
    const b = new Float32Array(1);
    reader.readInto("b", b);
    assert.equal(b[0], 3);
    reader.close();
    Deno.writeTextFileSync(
      path,
      JSON.stringify({ weight_map: { ...index.weight_map, c: "model-00002-of-00002.safetensors" } }),
    );
    assert.throws(() => openModelFolder(folder), /has no tensor c/);
    Deno.writeTextFileSync(path, JSON.stringify({ weight_map: { a: "../../etc/passwd" } }));
    assert.throws(() => openModelFolder(folder), UserError);
    Deno.removeSync(`${folder}/model-00002-of-00002.safetensors`);
    Deno.writeTextFileSync(path, JSON.stringify(index));
    assert.throws(() => openModelFolder(folder), /model-00002-of-00002/);
  }));

Deno.test("openSafetensors() refuses every lie of a header by name", () =>
  inFolder((folder) => {
    const path = `${folder}/bad.safetensors`;
    const one = { dtype: "F32", shape: [2], data_offsets: [0, 8] };
    const eight = new Uint8Array(8);
    const cases: [Uint8Array<ArrayBuffer>, RegExp][] = [
      [new Uint8Array(3), /only 3 bytes/],
      [file({}, eight, 1e9), /claims 1000000000 bytes/],
      [file({}, eight, 2 ** 52), /claims/],
      [file("{", eight), /no JSON/],
      [file("[]"), /no JSON object/],
      [file({ x: 3 }, eight), /described by no object/],
      [file({ x: { ...one, dtype: "F99" } }, eight), /unknown type "F99"/],
      [file({ x: { ...one, shape: [-2] } }, eight), /shape/],
      [file({ x: { ...one, shape: [1.5] } }, eight), /shape/],
      [file({ x: { ...one, data_offsets: [0] } }, eight), /offsets/],
      [file({ x: { ...one, data_offsets: [8, 0] } }, eight), /bytes 8 to 0/],
      [file({ x: one }, new Uint8Array(4)), /may be truncated/],
      [file({ x: { ...one, shape: [3] } }, eight), /has 8 bytes/],
      [file({ x: { ...one, shape: [2 ** 40, 2 ** 40] } }, eight), /has 8 bytes/],
      [file({ x: one, y: { ...one, data_offsets: [4, 12] } }, new Uint8Array(12)), /begins at byte 4 instead of 8/],
      [file({ x: one }, new Uint8Array(12)), /4 bytes follow/],
    ];
    for (const [bytes, message] of cases) {
      Deno.writeFileSync(path, bytes);
      assert.throws(() => openSafetensors(path), (error: Error) => {
        assert.ok(error instanceof UserError && message.test(error.message), `${error.message} for ${message}`);
        return true;
      });
    }
  }));

Deno.test("openSafetensors() of a file with any bytes changed is valid or a UserError", () =>
  inFolder((folder) => {
    const path = `${folder}/x.safetensors`;
    const good = file(
      { a: { dtype: "F32", shape: [2], data_offsets: [0, 8] }, __metadata__: { format: "pt" } },
      new Uint8Array(8),
    );
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 }),
        fc.nat(good.length),
        (edits, cut) => {
          const bytes = good.slice(0, cut % 3 === 0 ? cut : good.length);
          for (const [at, value] of edits) {
            if (at < bytes.length) bytes[at] = value;
          }
          Deno.writeFileSync(path, bytes);
          try {
            openSafetensors(path).close();
          } catch (error) {
            assert.ok(error instanceof UserError, String(error));
          }
        },
      ),
      { numRuns: 300 },
    );
  }));
