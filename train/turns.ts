/**
 * Whose turn it is: which tokens of which text go through the model next.
 *
 * Texts under way have a slot each, and slots take turns, a block of a prompt's tokens or a new token at a time; a text that
 * is finished makes room for the next that waits. Every rank goes through the same turns by itself: all that it must be told
 * are the tokens chosen.
 * @module
 */

import type { TokenBlock } from "./decode.ts";

/** Rows that blocks of tokens may have: few sizes, since each has a graph of its own. */
const blockSizes = [1, 16, 64, 256] as const;

/**
 * Rows of the block for the first of `tokens` tokens to be read, where the model has `room` positions left: of the largest
 * that they fill to a half, so that less is computed in vain than a second block would take.
 */
function rowsFor(tokens: number, room: number): number {
  return blockSizes.findLast((rows) => rows <= room && 2 * tokens >= rows) ?? 1;
}

/** The sizes of blocks that `turnsOf` may ask for. */
export function blockRowsOf(
  prompts: readonly (readonly number[])[],
  { tokens, positions }: Pick<TurnOptions, "tokens" | "positions">,
): number[] {
  const found = new Set([1]);
  const read = (count: number) => {
    for (let at = 0; at < count;) {
      const rows = rowsFor(count - at, positions - at);
      found.add(rows);
      at += Math.min(rows, count - at);
    }
  };
  for (const { length } of prompts) {
    read(Math.min(length, positions));
    // Where positions run out, the last half is read anew.
    if (length + tokens > positions) read(positions + 1 - Math.ceil(positions / 2));
  }
  return [...found].sort((a, b) => a - b);
}

/** What the turns depend on. */
export interface TurnOptions {
  /** Texts under way at once. */
  readonly slots: number;
  /** Tokens to add to each. */
  readonly tokens: number;
  /** Positions of the model. */
  readonly positions: number;
  /** The token that ends a text early. */
  readonly endOfText: number | undefined;
}

/** Tokens of a text on their way through the model. */
export interface Turn extends TokenBlock {
  /** Index of the text. */
  readonly text: number;
  /** New tokens that the text has so far. */
  readonly made: number;
  /** True if this is the text's first turn. */
  readonly begins: boolean;
  /** True if a new token is to be chosen behind them. */
  readonly chooses: boolean;
}

/** True if `token`, the `made`-th new one, is its text's last. */
export function isLast(token: number, made: number, { tokens, endOfText }: TurnOptions): boolean {
  return made === tokens || token === endOfText;
}

interface Text {
  readonly index: number;
  readonly ids: number[];
  /** Where the model's positions begin: behind the first tokens of a text longer than these. */
  first: number;
  position: number;
  made: number;
}

/**
 * The turns of texts that begin with `prompts` (none empty), in order. `chosen` tells the token that the last turn of a
 * slot chose, once for each. Where the positions run out, the last half of the text is read anew.
 */
export function* turnsOf(
  prompts: readonly (readonly number[])[],
  options: TurnOptions,
  chosen: (slot: number, text: number) => number,
): Generator<Turn> {
  const { slots, positions } = options;
  const underWay: (Text | undefined)[] = new Array(slots).fill(undefined);
  let begun = 0;
  const begin = (): Text | undefined => {
    if (begun === prompts.length) return undefined;
    const index = begun++;
    const ids = [...prompts[index]];
    return { index, ids, first: Math.max(0, ids.length - positions), position: 0, made: 0 };
  };
  do {
    for (let slot = 0; slot < slots; slot++) {
      let text = underWay[slot];
      if (text && text.first + text.position === text.ids.length) {
        const token = chosen(slot, text.index);
        if (isLast(token, ++text.made, options)) text = undefined;
        else text.ids.push(token);
      }
      const begins = text === undefined;
      text ??= begin();
      underWay[slot] = text;
      if (!text) continue;
      if (text.position === positions) {
        text.first += Math.ceil(positions / 2);
        text.position = 0;
      }
      const { index, ids, first, position, made } = text;
      const left = ids.length - first - position;
      const rows = rowsFor(left, positions - position);
      const tokens = Uint32Array.from(ids.slice(first + position, first + position + rows));
      text.position += tokens.length;
      yield { slot, text: index, tokens, rows, position, made, begins, chooses: tokens.length === left };
    }
  } while (underWay.some(Boolean));
}
