/**
 * The loss of a checkpoint on data.
 * @module
 */

import { openDataset, resolveData } from "../data/dataset.ts";
import { validationLoader } from "../data/loader.ts";
import { loadTokenizer } from "../data/tokenizer.ts";
import { UserError } from "../errors.ts";
import { noDeviceError, openDevice } from "../gpu/open.ts";
import { listSelections, type Selection, selectionsFor } from "../gpu/select.ts";
import type { Precision } from "../graph/tensor.ts";
import { openCheckpoint } from "./checkpoint.ts";
import { parseDevices } from "./launch.ts";
import { ModelProgram } from "./model_program.ts";
import { soleRank } from "./rank_layout.ts";
import { withKeptTuning } from "./tuning_file.ts";

/** What to evaluate. */
export interface EvaluateOptions {
  /** Checkpoint, run, or Hugging Face folder. */
  readonly checkpoint: string;
  /** Prepared folder, text file, folder, or catalogue name; its validation part is read. */
  readonly data: string;
  /** Windows of the validation text, spread evenly; all if left out. */
  readonly sequences?: number;
  /** Tokens in a window; what the model was trained on, at most 1024, if left out. */
  readonly sequenceLength?: number;
  /** In what weights and activations are stored; f32 if left out. */
  readonly precision?: Precision;
  /** Told after each batch, in words. */
  readonly onProgress?: (message: string) => void;
}

/** What was found. */
export interface Evaluation {
  /** Nats per token. */
  readonly loss: number;
  /** `exp(loss)`. */
  readonly perplexity: number;
  /** Bits per byte of text: comparable between tokenizers. */
  readonly bitsPerByte: number;
  /** Tokens predicted. */
  readonly tokens: number;
}

/** Windows computed at a time. */
const batch = 4;

/** The GPU that training would use first. */
function firstDevice(): Selection {
  const selections = listSelections();
  if (selections.length === 0) throw noDeviceError();
  return withKeptTuning(selectionsFor(parseDevices("all", selections).slice(0, 1), selections))[0];
}

/** Evaluates a checkpoint. */
export async function evaluate(options: EvaluateOptions): Promise<Evaluation> {
  const checkpoint = await openCheckpoint(options.checkpoint);
  try {
    const { configuration, folder } = checkpoint;
    const tokenizer = await loadTokenizer(folder);
    const dataFolder = await resolveData(options.data, {
      tokenizer: tokenizer.name === "byte" || tokenizer.name === "gpt2" ? tokenizer.name : folder,
      ...(options.onProgress ? { onProgress: options.onProgress } : {}),
    });
    const data = openDataset(dataFolder);
    try {
      if (data.description.vocabularySize !== tokenizer.vocabularySize) {
        throw new UserError(
          `${options.data} has ${data.description.vocabularySize} token ids, the checkpoint's tokenizer ` +
            `${tokenizer.vocabularySize}: prepare the data with --tokenizer ${folder}`,
        );
      }
      const length = options.sequenceLength ?? Math.min(1024, configuration.maximumSequenceLength);
      if (length > configuration.maximumSequenceLength) {
        throw new UserError(
          `--sequence-length ${length} is longer than the model's ${configuration.maximumSequenceLength}`,
        );
      }
      const loader = validationLoader(data.validation, {
        sequenceLength: length,
        count: options.sequences ?? Infinity,
      });
      const device = await openDevice({ selection: firstDevice() });
      try {
        const model = await ModelProgram.create(device, {
          configuration,
          batch,
          sequenceLength: length,
          segments: ["evaluate"],
          layout: soleRank(configuration, options.precision),
        });
        model.load(checkpoint.weights);
        const tokens = new Uint32Array(batch * length);
        const targets = new Int32Array(batch * length);
        const count = loader.samplesPerEpoch;
        let sum = 0;
        let bytes = 0;
        for (let first = 0; first < count; first += batch) {
          for (let i = 0; i < batch; i++) {
            if (first + i < count) loader.sample(first + i, tokens, targets, i * length);
            else targets.fill(-100, i * length, (i + 1) * length);
          }
          bytes += tokenizer.decodeBytes(Array.from(targets).filter((target) => target >= 0)).length;
          model.beginStep(1);
          await model.evaluate(tokens, targets);
          sum += await model.lossSum();
          options.onProgress?.(`${Math.min(first + batch, count)} of ${count} windows`);
          await device.settle();
        }
        model.destroy();
        const total = count * length;
        const loss = sum / total;
        return { loss, perplexity: Math.exp(loss), bitsPerByte: sum / Math.LN2 / bytes, tokens: total };
      } finally {
        await device.destroy();
      }
    } finally {
      data.close();
    }
  } finally {
    checkpoint.close();
  }
}
