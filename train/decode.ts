/**
 * Decoding with a model's program: tokens of a text in, one at a time, logits for the next out.
 * @module
 */

import { decodeSegments } from "./decode_graph.ts";
import type { ModelProgram } from "./model_program.ts";

const word = new Uint32Array(1);

/** Takes `token` at `position` of the text in `slot`, all of whose earlier positions have been taken. */
export async function takeToken(
  { program, model: { decode } }: ModelProgram,
  { token, position, slot = 0 }: { token: number; position: number; slot?: number },
): Promise<void> {
  if (!decode) throw new Error("The program was built without decoding");
  word[0] = token;
  program.write(decode.token, word);
  word[0] = position;
  program.write(decode.position, word);
  await program.run(decodeSegments.blocks(slot));
}

/**
 * Computes the logits behind the last token of the text in `slot`. Ranks that share the vocabulary must all call it; those
 * that give `target`, `[vocabulary rows of all]`, get them.
 */
export async function computeLogits(
  { program, model: { decode } }: ModelProgram,
  target?: Float32Array,
  slot = 0,
): Promise<void> {
  await program.run(decodeSegments.head(slot));
  if (target) await program.readInto(decode!.logits[slot], target);
}
