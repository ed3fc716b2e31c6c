/**
 * Learns byte-pair merges from a corpus: the most frequent pair of neighbours becomes a token, again and again. Only the
 * counts of distinct words are kept, so the corpus may be larger than memory.
 * @module
 */

import { UserError } from "../errors.ts";
import { type BytePairModel, gpt2Pattern, words } from "./byte_pair.ts";

/** How to train. */
export interface BytePairTraining {
  /** Ids in all: 256 bytes, the merges, and one special token (`<|endoftext|>`, the last id). */
  readonly vocabularySize: number;
  /** Told after each merge. */
  readonly onProgress?: (done: number, total: number) => void;
}

interface Candidate {
  readonly count: number;
  readonly left: number;
  readonly right: number;
}

/** True if `a` is merged before `b`: more frequent, or of lower ids. */
function before(a: Candidate, b: Candidate): boolean {
  if (a.count !== b.count) return a.count > b.count;
  return a.left !== b.left ? a.left < b.left : a.right < b.right;
}

/** A binary heap whose top is merged next; entries may be stale. */
class Heap {
  readonly #items: Candidate[] = [];

  push(item: Candidate): void {
    const items = this.#items;
    let i = items.length;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!before(item, items[parent])) break;
      items[i] = items[parent];
      i = parent;
    }
    items[i] = item;
  }

  pop(): Candidate | undefined {
    const items = this.#items;
    const top = items[0];
    const last = items.pop();
    if (items.length === 0 || !last) return top;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= items.length) break;
      if (child + 1 < items.length && before(items[child + 1], items[child])) child++;
      if (!before(items[child], last)) break;
      items[i] = items[child];
      i = child;
    }
    items[i] = last;
    return top;
  }
}

/** Counts the words of a corpus. */
export async function countWords(texts: AsyncIterable<string> | Iterable<string>): Promise<Map<string, number>> {
  const counts = new Map<string, number>();
  for await (const text of texts) {
    for (const word of words(text, [gpt2Pattern])) counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  return counts;
}

/** Learns merges from word counts. Ends early, with fewer ids, when no pair occurs twice. */
export function trainBytePair(counts: ReadonlyMap<string, number>, options: BytePairTraining): BytePairModel {
  const { vocabularySize, onProgress } = options;
  if (!Number.isInteger(vocabularySize) || vocabularySize < 257 || vocabularySize > 1_000_000) {
    throw new UserError(
      `--vocab-size is ${vocabularySize}, but must be from 257 (256 bytes and <|endoftext|>) to 1000000`,
    );
  }
  const encoder = new TextEncoder();
  const entries = [...counts].map(([word, count]) => ({ ids: [...encoder.encode(word)], count }));
  const stride = vocabularySize;
  const pairs = new Map<number, { count: number; words: Set<number> }>();
  const heap = new Heap();
  const change = (left: number, right: number, by: number, word: number, touched?: Set<number>) => {
    const key = left * stride + right;
    const pair = pairs.get(key) ?? { count: 0, words: new Set<number>() };
    pairs.set(key, pair);
    pair.count += by;
    if (by > 0) pair.words.add(word);
    touched?.add(key);
  };
  entries.forEach(({ ids, count }, word) => {
    for (let i = 0; i + 1 < ids.length; i++) change(ids[i], ids[i + 1], count, word);
  });
  const offer = (key: number) => {
    const count = pairs.get(key)!.count;
    if (count > 1) heap.push({ count, left: Math.floor(key / stride), right: key % stride });
  };
  for (const key of pairs.keys()) offer(key);

  const bytes: (Uint8Array | undefined)[] = Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte));
  const merges: [number, number, number][] = [];
  const wanted = vocabularySize - 257;
  while (merges.length < wanted) {
    const top = heap.pop();
    if (!top) break;
    const key = top.left * stride + top.right;
    const pair = pairs.get(key);
    if (!pair || pair.count !== top.count) continue;
    const id = 256 + merges.length;
    merges.push([top.left, top.right, id]);
    bytes.push(Uint8Array.of(...bytes[top.left]!, ...bytes[top.right]!));
    const touched = new Set<number>();
    for (const word of pair.words) {
      const entry = entries[word];
      const { ids, count } = entry;
      const merged: number[] = [];
      for (let i = 0; i < ids.length; i++) {
        if (ids[i] === top.left && ids[i + 1] === top.right) {
          merged.push(id);
          i++;
        } else merged.push(ids[i]);
      }
      if (merged.length === ids.length) continue;
      for (let i = 0; i + 1 < ids.length; i++) change(ids[i], ids[i + 1], -count, word, touched);
      for (let i = 0; i + 1 < merged.length; i++) change(merged[i], merged[i + 1], count, word, touched);
      entry.ids = merged;
    }
    pairs.delete(key);
    touched.delete(key);
    for (const other of touched) {
      if (pairs.get(other)!.count <= 0) pairs.delete(other);
      else offer(other);
    }
    onProgress?.(merges.length, wanted);
  }
  bytes.push(undefined);
  return {
    bytes,
    byteIds: Array.from({ length: 256 }, (_, byte) => byte),
    merges,
    patterns: [gpt2Pattern],
    ignoreMerges: false,
  };
}
