/**
 * Generation with a model's program: blocks of tokens of a text in, logits for the next out.
 * @module
 */

import { decodeSegments } from "./decode_graph.ts";
import type { ModelProgram } from "./model_program.ts";

const word = new Uint32Array(1);

/** Tokens of a text on their way through the model. */
export interface TokenBlock {
  readonly tokens: Uint32Array;
  /** Position of the first; all positions before it have been taken. */
  readonly position: number;
  /** Rows of the block, one of the program's `blockRows`: what is left behind the tokens computes what nobody reads. */
  readonly rows: number;
  /** Of the text. */
  readonly slot: number;
}

/** Takes a block of tokens. `position + rows` must not exceed the model's positions. */
export async function takeTokens({ program, model: { decode } }: ModelProgram, block: TokenBlock): Promise<void> {
  const { tokens, position, rows, slot } = block;
  const input = decode?.tokens.get(rows);
  if (!input) throw new Error(`The program was built without blocks of ${rows} tokens`);
  program.write(input, tokens);
  word[0] = position;
  program.write(decode!.position, word);
  await program.run(decodeSegments.blocks(rows, slot));
}

/**
 * Computes the logits behind the last token of the block, which was taken just before. Ranks that share the vocabulary must
 * all call it; those that give `target`, `[vocabulary rows of all]`, get them.
 */
export async function computeLogits(
  { program, model: { decode } }: ModelProgram,
  { tokens, rows, slot }: TokenBlock,
  target?: Float32Array,
): Promise<void> {
  const name = decodeSegments.head(rows, slot);
  if (rows > 1) {
    word[0] = tokens.length - 1;
    program.write(decode!.last, word);
  }
  await program.run(name);
  if (target) await program.readInto(decode!.logits.get(name)!, target);
}
