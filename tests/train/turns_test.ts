import assert from "node:assert/strict";
import { type Turn, type TurnOptions, turnsOf } from "../../train/turns.ts";

/** A model for the test: the next token depends on the tokens that it has in its positions. */
const nextOf = (seen: readonly number[]) => (seen.reduce((sum, id, i) => sum + id * (i + 3), 7) * 31) % 11;

/** Runs texts through turns, with caches as a model has them: by slot, each position written before it is read. */
function run(prompts: number[][], options: TurnOptions): { made: number[][]; turns: Turn[] } {
  const caches: number[][] = Array.from({ length: options.slots }, () => []);
  const made: number[][] = prompts.map(() => []);
  const waiting: (number | undefined)[] = new Array(options.slots).fill(undefined);
  const turns: Turn[] = [];
  const chosen = (slot: number) => {
    const token = waiting[slot];
    assert.notEqual(token, undefined, "each choice is asked for once, behind its turn");
    waiting[slot] = undefined;
    return token!;
  };
  for (const turn of turnsOf(prompts, options, chosen)) {
    const { slot, text, token, position } = turn;
    turns.push(turn);
    assert.ok(position < options.positions);
    assert.ok(position <= caches[slot].length, "no position is skipped");
    assert.equal(turn.begins, !turns.slice(0, -1).some((earlier) => earlier.text === text));
    caches[slot] = [...caches[slot].slice(0, position), token];
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

const prompts = [[1], [5, 2, 9, 4, 4], [3, 3], Array.from({ length: 23 }, (_, i) => i % 7), [8, 1, 6], [2], [10, 0]];

Deno.test("turnsOf() gives every text what it gets alone, however many are under way and where positions run out", () => {
  for (const positions of [1, 2, 7, 8, 100]) {
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
