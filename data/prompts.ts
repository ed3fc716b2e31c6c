/**
 * Files of prompts: one on each line, as plain text or as JSON.
 * @module
 */

import { messageOf, UserError } from "../errors.ts";

/** The prompt on a line, or what is wrong with it. */
function parseLine(line: string): string {
  if (!/^\s*["{]/.test(line)) return line;
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    throw new Error(`begins like JSON but is none (${messageOf(error)}): write it as a JSON string`);
  }
  const prompt = typeof value === "object" && value !== null ? (value as { prompt?: unknown }).prompt : value;
  if (typeof prompt !== "string") throw new Error(`has no "prompt" that is a string`);
  return prompt;
}

/**
 * The prompts of a file, one for each line that is not blank. A line that begins with a quote is a JSON string, one that
 * begins with a brace a JSON object with the field `prompt`: such prompts may contain line breaks.
 */
export function readPrompts(path: string): string[] {
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
  } catch (error) {
    const reason = error instanceof Deno.errors.NotFound ? "there is no such file" : messageOf(error);
    throw new UserError(`Cannot read the prompts in ${path}: ${reason}`);
  }
  const prompts: string[] = [];
  text.replace(/^\uFEFF/, "").split(/\r?\n/).forEach((line, i) => {
    if (line.trim() === "") return;
    try {
      prompts.push(parseLine(line));
    } catch (error) {
      throw new UserError(`Line ${i + 1} of ${path} ${messageOf(error)}`);
    }
  });
  if (prompts.length === 0) throw new UserError(`${path} holds no prompts: write one on each line`);
  return prompts;
}
