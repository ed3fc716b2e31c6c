import assert from "node:assert/strict";
import { blockRowsOf, type Turn, type TurnOptions, turnsOf } from "../../train/turns.ts";

/** A model for the test: the next token depends on the tokens that it has in its positions. */
const nextOf = (seen: readonly number[]) => (seen.reduce((sum, id, i) => sum + id * (i + 3), 7) * 31) % 11;

/** Runs texts through turns, with caches as a model has them: by slot, each position written before it is read. */
function run(prompts: number[][], options: TurnOptions): { made: number[][]; turns: Turn[] } {
  const caches: number[][] = Array.from({ length: options.slots }, () => []);
  const made: number[][] = prompts.map(() => []);
  const waiting: (number | undefined)[] = new Array(options.slots).fill(undefined);
  const turns: Turn[] = [];
  const sizes = blockRowsOf(prompts, options);
  const chosen = (slot: number) => {
    const token = waiting[slot];
    assert.notEqual(token, undefined, "each choice is asked for once, behind its turn");
    waiting[slot] = undefined;
    return token!;
  };
  for (const turn of turnsOf(prompts, options, chosen)) {
    const { slot, text, tokens, rows, position } = turn;
    turns.push(turn);
    assert.ok(tokens.length >= 1 && tokens.length <= rows && rows <= 2 * tokens.length);
    assert.ok(position + rows <= options.positions, "no row is behind the model's positions");
    assert.ok(sizes.includes(rows), "the sizes of blocks are known before");
    assert.ok(position <= caches[slot].length, "no position is skipped");
    assert.equal(turn.begins, !turns.slice(0, -1).some((earlier) => earlier.text === text));
    caches[slot] = [...caches[slot].slice(0, position), ...tokens];
    if (!turn.chooses) continue;
    assert.equal(turn.made, made[text].length);
    waiting[slot] = nextOf(caches[slot]);
    made[text].push(waiting[slot]!);
  }
  return { made, turns };
}

/** One text alone, read token by token: what is to be found. */
function alone(prompt: number[], { tokens, positions, endOfText }: TurnOptions): number[] {
  const ids = [...prompt];
  let first = Math.max(0, ids.length - positions);
  let position = 0;
  const made: number[] = [];
  while (made.length < tokens) {
    if (position === positions) {
      first += Math.ceil(positions / 2);
      position = 0;
    }
    position++;
    if (first + position < ids.length) continue;
    const next = nextOf(ids.slice(first, first + position));
    made.push(next);
    if (next === endOfText) break;
    ids.push(next);
  }
  return made;
}

const long = (length: number) => Array.from({ length }, (_, i) => i % 7);
const prompts = [
  [1],
  [5, 2, 9, 4, 4],
  [3, 3],
  long(23),
  [8, 1, 6],
  [2],
  [10, 0],
  long(16),
  long(15),
  long(17),
  long(100),
];

Deno.test("turnsOf() gives every text what it gets alone, however many are under way and where positions run out", () => {
  for (const positions of [1, 2, 7, 8, 64, 100]) {
    for (const endOfText of [undefined, 4]) {
      for (const slots of [1, 2, 3, 7]) {
        const options = { slots, tokens: 19, positions, endOfText };
        const { made } = run(prompts, options);
        assert.deepEqual(made, prompts.map((prompt) => alone(prompt, options)), `${positions} ${endOfText} ${slots}`);
      }
    }
  }
});

Deno.test("turnsOf() has slots take turns and gives a slot that is free to the next text in line", () => {
  const { turns } = run([[1], [2], [3], [4, 4, 4]], { slots: 3, tokens: 2, positions: 8, endOfText: undefined });
  assert.deepEqual(turns.map(({ slot, text }) => `${slot}:${text}`), [
    ...["0:0", "1:1", "2:2"],
    ...["0:0", "1:1", "2:2"],
    ...["0:3", "0:3", "0:3", "0:3"],
  ]);
  assert.deepEqual(turns.slice(-4).map(({ chooses }) => chooses), [false, false, true, true]);
});

Deno.test("turnsOf() reads prompts in few blocks, of which half is used at least", () => {
  const blocks = (length: number, positions = 1024) =>
    run([long(length)], { slots: 1, tokens: 1, positions, endOfText: undefined }).turns.map(({ rows }) => rows);
  assert.deepEqual(blocks(1), [1]);
  assert.deepEqual(blocks(7), new Array(7).fill(1));
  assert.deepEqual(blocks(15), [16]);
  assert.deepEqual(blocks(17), [16, 1]);
  assert.deepEqual(blocks(600), [256, 256, 64, 16, 16].slice(0, blocks(600).length));
  assert.deepEqual(blocks(1000), [256, 256, 256, 256]);
  assert.deepEqual(blocks(127, 128), [64, 64]);
  assert.deepEqual(blocks(100, 100), [64, 16, 16, 1, 1, 1, 1]);
});
