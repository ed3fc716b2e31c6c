import assert from "node:assert/strict";
import fc from "fast-check";
import { gpt2Pattern, words } from "../../data/byte_pair.ts";
import { countWords, trainBytePair } from "../../data/byte_pair_training.ts";
import {
  bytePairTokenizer,
  byteTokenizer,
  gpt2Tokenizer,
  loadTokenizer,
  streamDecoder,
  tokenizerFromJson,
} from "../../data/tokenizer.ts";
import { readBytePair } from "../../data/tokenizer_json.ts";
import { UserError } from "../../errors.ts";

const sample = "The whale, the whale! A thousand whales' tails; the whale's tail. Ça va — 鯨 😀\n\n  the end";
const gpt2 = await gpt2Tokenizer();

async function trained(size: number) {
  const model = trainBytePair(await countWords([sample, sample]), { vocabularySize: size });
  return bytePairTokenizer("trained", model, [{ id: model.bytes.length - 1, content: "<|endoftext|>" }]);
}

Deno.test("gpt2Tokenizer() gives the ids of Hugging Face's tokenizers (0.23.3) on awkward text", () => {
  const vectors: [string, number[]][] = JSON.parse(
    Deno.readTextFileSync(new URL("../fixtures/tokenizers/gpt2.json", import.meta.url)),
  );
  assert.equal(vectors.length, 10);
  for (const [text, ids] of vectors) assert.deepEqual(Array.from(gpt2.encode(text)), ids, text);
  assert.equal(gpt2.vocabularySize, 50257);
  assert.equal(gpt2.endOfText, 50256);
});

Deno.test("every tokenizer gives back the exact bytes of any text", async () => {
  for (const tokenizer of [byteTokenizer(), gpt2, await trained(300)]) {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 60 }), (text) => {
        const ids = Array.from(tokenizer.encode(text));
        assert.deepEqual(tokenizer.decodeBytes(ids), new TextEncoder().encode(text));
        assert.ok(ids.every((id) => id < tokenizer.vocabularySize));
      }),
      { numRuns: 200 },
    );
  }
});

Deno.test("patterns have Unicode's white space and digits, as in Hugging Face's tokenizers (0.23.3)", async () => {
  const pieces = (text: string) => words(text, [gpt2Pattern]);
  // U+0085 is white space and U+FEFF is none: JavaScript has it the other way round.
  assert.deepEqual(pieces("a\u007f\u0085 b\ufeff c"), ["a", "\u007f", "\u0085", " b", "\ufeff", " c"]);
  const json = JSON.parse((await trained(300)).files()["tokenizer.json"]);
  json.pre_tokenizer = {
    type: "Sequence",
    pretokenizers: [
      { type: "Split", behavior: "Isolated", invert: false, pattern: { Regex: "\\d{2}|\\\\s|\\S+|\\s+" } },
      { type: "ByteLevel", add_prefix_space: false, use_regex: false },
    ],
  };
  const { patterns } = readBytePair(json, "x")!.model;
  assert.deepEqual(words("٣٤٥\u0085\\s", patterns), ["٣٤", "٥", "\u0085", "\\s"]);
});

Deno.test("encode() of a very long word equals that of a short one's rule", async () => {
  const tokenizer = await trained(290);
  const word = "whale".repeat(60);
  const long = Array.from(tokenizer.encode(word));
  const short = Array.from(tokenizer.encode("whale".repeat(40)));
  assert.equal(tokenizer.decode(long), word);
  assert.deepEqual(long.slice(0, 20), short.slice(0, 20));
});

Deno.test("trainBytePair() merges the most frequent pair first and stops when no pair occurs twice", async () => {
  const model = trainBytePair(await countWords(["abab abab ab", "abab"]), { vocabularySize: 5000 });
  const [a, b] = [97, 98];
  assert.deepEqual(model.merges[0], [a, b, 256]);
  assert.deepEqual(model.merges[1], [256, 256, 257]);
  assert.ok(model.bytes.length < 5000);
  await assert.rejects(async () => trainBytePair(await countWords(["a"]), { vocabularySize: 100 }), UserError);
});

Deno.test("files() and tokenizerFromJson() are inverse", async () => {
  for (const tokenizer of [byteTokenizer(), gpt2, await trained(300)]) {
    const again = await tokenizerFromJson("tokenizer.json", tokenizer.files()["tokenizer.json"]);
    assert.deepEqual(Array.from(again.encode(sample)), Array.from(tokenizer.encode(sample)));
    assert.equal(again.vocabularySize, tokenizer.vocabularySize);
    assert.equal(again.endOfText, tokenizer.endOfText);
  }
});

Deno.test("tokenizerFromJson() reads Llama 3's form: a split pattern, merges as pairs, ignore_merges", async () => {
  const json = JSON.parse((await trained(300)).files()["tokenizer.json"]);
  json.pre_tokenizer = {
    type: "Sequence",
    pretokenizers: [
      { type: "Split", behavior: "Isolated", invert: false, pattern: { Regex: "(?i:'s|'t)|\\p{L}+|\\p{N}{1,3}|\\s+" } },
      { type: "ByteLevel", add_prefix_space: false, use_regex: false },
    ],
  };
  json.model.ignore_merges = true;
  const tokenizer = await tokenizerFromJson("x", JSON.stringify(json));
  assert.equal(tokenizer.decode(Array.from(tokenizer.encode(sample))), sample);
});

Deno.test("tokenizerFromJson() reads a SentencePiece-like model through the library", async () => {
  const vocab = { "<unk>": 0, "▁": 1, "▁a": 2, a: 3, b: 4, "▁ab": 5 };
  const json = {
    version: "1.0",
    added_tokens: [],
    normalizer: {
      type: "Sequence",
      normalizers: [{ type: "Prepend", prepend: "▁" }, { type: "Replace", pattern: { String: " " }, content: "▁" }],
    },
    pre_tokenizer: null,
    post_processor: null,
    decoder: {
      type: "Sequence",
      decoders: [{ type: "Replace", pattern: { String: "▁" }, content: " " }, { type: "Fuse" }, {
        type: "Strip",
        content: " ",
        start: 1,
        stop: 0,
      }],
    },
    model: { type: "BPE", unk_token: "<unk>", fuse_unk: true, byte_fallback: false, vocab, merges: ["▁ a", "▁a b"] },
  };
  const tokenizer = await tokenizerFromJson("x", JSON.stringify(json));
  assert.deepEqual(Array.from(tokenizer.encode("ab a")), [5, 2]);
  assert.equal(tokenizer.vocabularySize, 6);
});

Deno.test("tokenizerFromJson() refuses damaged files with a sentence", async () => {
  const good = JSON.parse((await trained(300)).files()["tokenizer.json"]);
  const change = (edit: (json: typeof good) => void) => {
    const copy = structuredClone(good);
    edit(copy);
    return JSON.stringify(copy);
  };
  const cases: [string, RegExp][] = [
    ['{"model":', /is no JSON/],
    ["[]", /has no model/],
    [change((json) => delete json.model.vocab), /no vocab/],
    [change((json) => json.model.merges.push(["zz", "qq"])), /which is no token/],
    [change((json) => json.model.merges.push("three parts here")), /is no merge/],
    [change((json) => json.model.vocab["b"] = json.model.vocab["a"]), /have the id/],
    [change((json) => json.model.vocab["a"] = -1), /no whole number/],
    [change((json) => json.added_tokens[0].id = "x"), /added token/],
  ];
  for (const [text, message] of cases) await assert.rejects(tokenizerFromJson("bad.json", text), message);
});

Deno.test("loadTokenizer() names what it knows where there is no such tokenizer", async () => {
  await assert.rejects(
    loadTokenizer("/nowhere/x"),
    (error: Error) => error instanceof UserError && /byte, gpt2/.test(error.message),
  );
});

Deno.test("streamDecoder() holds back bytes until a character is whole", () => {
  const tokenizer = byteTokenizer();
  const decoder = streamDecoder(tokenizer);
  const pieces = Array.from(tokenizer.encode("a鯨😀"), (id) => decoder.push(id));
  assert.deepEqual(pieces, ["a", "", "", "鯨", "", "", "", "😀"]);
  assert.equal(decoder.flush(), "");
});
