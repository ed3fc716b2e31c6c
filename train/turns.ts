/**
 * Whose turn it is: which token of which text goes through the model next.
 *
 * Texts under way have a slot each, and slots take turns, a token at a time; a text that is finished makes room for the
 * next that waits. Every rank goes through the same turns by itself: all that it must be told are the tokens chosen.
 * @module
 */

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

/** A token of a text on its way through the model. */
export interface Turn {
  readonly slot: number;
  /** Index of the text. */
  readonly text: number;
  readonly token: number;
  readonly position: number;
  /** New tokens that the text has so far. */
  readonly made: number;
  /** True if this is the text's first turn. */
  readonly begins: boolean;
  /** True if a new token is to be chosen behind it. */
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
      const { index, ids, first, made } = text;
      const position = text.position++;
      const token = ids[first + position];
      yield { slot, text: index, token, position, made, begins, chooses: first + position + 1 === ids.length };
    }
  } while (underWay.some(Boolean));
}
