/** `muster prepare`. */

import { prepare } from "../data/prepare.ts";
import { UserError } from "../errors.ts";
import { formatCount } from "../train/progress.ts";
import { print, printError, printJson } from "./output.ts";
import { numberOption, optionalNumber, type Options } from "./values.ts";

/** The command. */
export async function prepareCommand(inputs: readonly string[], options: Options): Promise<number> {
  const json = options.json === true;
  const trained = options.trainTokenizer === true;
  if (trained && options.tokenizer !== undefined) {
    throw new UserError("--train-tokenizer makes a tokenizer, --tokenizer names one: give one of them");
  }
  if (!trained && options.vocabSize !== undefined) {
    throw new UserError("--vocab-size is of a tokenizer that is trained: give --train-tokenizer too");
  }
  const output = String(options.out);
  const description = await prepare({
    inputs,
    output,
    ...(options.tokenizer === undefined ? {} : { tokenizer: String(options.tokenizer) }),
    ...(trained
      ? { trainVocabulary: optionalNumber(options, "vocabSize", { least: 257, most: 1e6, whole: true }) ?? 8192 }
      : {}),
    validationFraction: numberOption(options, "validation", { least: 0, most: 0.99 }),
    textField: String(options.textField),
    seed: numberOption(options, "seed", { least: 0, most: 2 ** 32 - 1, whole: true }),
    force: options.force === true,
    onProgress: (message) => json || printError(`${message}\n`),
  });
  if (json) printJson({ output, ...description });
  else {
    print(
      `${output}: ${formatCount(description.documents)} documents, ${
        formatCount(description.train.tokens)
      } training and ` +
        `${formatCount(description.validation.tokens)} validation tokens, vocabulary ${
          formatCount(description.vocabularySize)
        }\n` +
        `next:\n  muster train --data ${output}\n`,
    );
  }
  return 0;
}
