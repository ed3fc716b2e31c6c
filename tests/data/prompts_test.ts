import assert from "node:assert/strict";
import { readPrompts } from "../../data/prompts.ts";
import { UserError } from "../../errors.ts";

function withFile<T>(text: string, body: (path: string) => T): T {
  const path = Deno.makeTempFileSync();
  Deno.writeTextFileSync(path, text);
  try {
    return body(path);
  } finally {
    Deno.removeSync(path);
  }
}

Deno.test("readPrompts() reads lines of text, JSON strings and JSON objects, and skips blank lines", () => {
  const text = '\uFEFFCall me \n\r\n"two\\nlines"\r\n{"prompt": "The \\"sea\\"", "id": 3}\n\n  4 {brace\n""\n';
  assert.deepEqual(withFile(text, readPrompts), ["Call me ", "two\nlines", 'The "sea"', "  4 {brace", ""]);
});

Deno.test("readPrompts() says which line is wrong, and how", () => {
  const cases: [string, RegExp][] = [
    ["", /^\S+ holds no prompts: write one on each line$/],
    ["\n  \n", /holds no prompts/],
    ['a\n\n"Call me, he said\n', /^Line 3 of \S+ begins like JSON but is none \(.+\): write it as a JSON string$/],
    ['{"text": "a"}', /^Line 1 of \S+ has no "prompt" that is a string$/],
    ['{"prompt": 7}', /^Line 1 of \S+ has no "prompt" that is a string$/],
  ];
  for (const [text, message] of cases) {
    withFile(text, (path) =>
      assert.throws(() => readPrompts(path), (error: Error) => {
        assert.ok(error instanceof UserError);
        assert.match(error.message, message);
        return true;
      }));
  }
  assert.throws(
    () => readPrompts("nowhere.txt"),
    /^UserError: Cannot read the prompts in nowhere.txt: there is no such/,
  );
});
