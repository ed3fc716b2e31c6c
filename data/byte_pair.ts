/**
 * Byte-level byte-pair encoding (Sennrich et al., 2016; bytes as in GPT-2): text is split into words by a pattern, a
 * word's UTF-8 bytes are merged pair by pair in the order in which the merges were learnt.
 * @module
 */

/**
 * A pattern as tokenizers are written in: `\s` and `\d` are Unicode's there. JavaScript's differ (U+0085 is no white space to
 * it, U+FEFF is).
 */
export function compilePattern(source: string): RegExp {
  const classes: Record<string, string> = { s: "p{White_Space}", S: "P{White_Space}", d: "p{Nd}", D: "P{Nd}" };
  return new RegExp(source.replace(/\\(.)/gs, (_, escaped: string) => `\\${classes[escaped] ?? escaped}`), "gu");
}

/** GPT-2's pattern for words. No word has white space behind a character that is none. */
export const gpt2Pattern: RegExp = compilePattern(
  String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`,
);

/** A vocabulary with its merges. */
export interface BytePairModel {
  /** Bytes of each id; undefined for ids of special tokens. */
  readonly bytes: readonly (Uint8Array | undefined)[];
  /** Id of each single byte. */
  readonly byteIds: readonly number[];
  /** Pairs in order of precedence: left id, right id, id of the whole. */
  readonly merges: readonly (readonly [number, number, number])[];
  /** How text is cut into words; undefined: not at all. */
  readonly patterns: readonly RegExp[];
  /** A word that is in the vocabulary as a whole is taken as it is (Llama 3). */
  readonly ignoreMerges: boolean;
}

/** Words whose ids are remembered; real text repeats few. */
const cachedWords = 65536;
/** Longer words are not remembered. */
const cachedLength = 32;

const utf8 = new TextEncoder();

/** Makes the function from text to ids. */
export function bytePairEncoder(model: BytePairModel): (text: string) => number[] {
  const size = model.bytes.length;
  const merges = new Map<number, [rank: number, id: number]>();
  model.merges.forEach(([left, right, id], rank) => {
    const key = left * size + right;
    if (!merges.has(key)) merges.set(key, [rank, id]);
  });
  const wholes = model.ignoreMerges
    ? new Map(model.bytes.flatMap((bytes, id) => bytes ? [[latin1(bytes), id] as const] : []))
    : undefined;

  const encodeWord = (word: string): number[] => {
    const bytes = utf8.encode(word);
    const whole = wholes?.get(latin1(bytes));
    if (whole !== undefined) return [whole];
    const ids = Array.from(bytes, (byte) => model.byteIds[byte]);
    return bytes.length > 256 ? mergeLong(ids, merges, size) : mergeShort(ids, merges, size);
  };
  const cache = new Map<string, number[]>();
  return (text) => {
    const result: number[] = [];
    for (const word of words(text, model.patterns)) {
      let ids = cache.get(word);
      if (!ids) {
        ids = encodeWord(word);
        if (word.length <= cachedLength) {
          if (cache.size >= cachedWords) cache.clear();
          cache.set(word, ids);
        }
      }
      for (const id of ids) result.push(id);
    }
    return result;
  };
}

/** Merges by looking for the best pair again and again: best for the few bytes of a word. */
function mergeShort(ids: number[], merges: Map<number, [number, number]>, size: number): number[] {
  while (ids.length > 1) {
    let best: [number, number] | undefined;
    let at = -1;
    for (let i = 0; i + 1 < ids.length; i++) {
      const merge = merges.get(ids[i] * size + ids[i + 1]);
      if (merge && (!best || merge[0] < best[0])) {
        best = merge;
        at = i;
      }
    }
    if (!best) break;
    ids.splice(at, 2, best[1]);
  }
  return ids;
}

/** The same result for words of thousands of bytes: merges rank by rank, passing over the word once per rank. */
function mergeLong(ids: number[], merges: Map<number, [number, number]>, size: number): number[] {
  for (;;) {
    let rank = Infinity;
    for (let i = 0; i + 1 < ids.length; i++) {
      const merge = merges.get(ids[i] * size + ids[i + 1]);
      if (merge && merge[0] < rank) rank = merge[0];
    }
    if (rank === Infinity) return ids;
    const merged: number[] = [];
    for (let i = 0; i < ids.length; i++) {
      const merge = i + 1 < ids.length ? merges.get(ids[i] * size + ids[i + 1]) : undefined;
      if (merge && merge[0] === rank) {
        merged.push(merge[1]);
        i++;
      } else merged.push(ids[i]);
    }
    ids = merged;
  }
}

/** Cuts text by each pattern in turn; what a pattern does not match stays, as a word of its own. */
export function words(text: string, patterns: readonly RegExp[]): string[] {
  let pieces = text === "" ? [] : [text];
  for (const pattern of patterns) {
    pieces = pieces.flatMap((piece) => {
      const cut: string[] = [];
      let at = 0;
      for (const match of piece.matchAll(pattern)) {
        if (match[0] === "") continue;
        if (match.index > at) cut.push(piece.slice(at, match.index));
        cut.push(match[0]);
        at = match.index + match[0].length;
      }
      if (at < piece.length) cut.push(piece.slice(at));
      return cut;
    });
  }
  return pieces;
}

/** Bytes as a string of as many characters: a key for maps. */
export function latin1(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}
