/**
 * The model that a run's settings describe.
 * @module
 */

import { UserError } from "../errors.ts";
import { type ModelConfiguration, modelConfiguration, presets } from "../model/configuration.ts";
import type { CompleteSettings } from "./settings.ts";

/** A model that is there already: of a checkpoint to resume or to start from. */
export interface LoadedModel {
  readonly configuration: ModelConfiguration;
  /** Where it was found, for messages. */
  readonly where: string;
  /** Tokens of a sequence that its run was trained with, if it is resumed. */
  readonly sequenceLength?: number;
}

/**
 * Settles model and sequence length for data of so many token ids; `family` only if it was asked for, not by default.
 * `UserError` where they do not fit together.
 */
export function settleModel(
  settings: CompleteSettings,
  vocabularySize: number,
  loaded?: LoadedModel,
  family?: ModelConfiguration["family"],
): { configuration: ModelConfiguration; sequenceLength: number } {
  if (loaded) checkModel(loaded, settings, family, vocabularySize);
  const known = loaded?.configuration.maximumSequenceLength ?? presetOf(settings)?.maximumSequenceLength ?? 64;
  const sequenceLength = settings.sequenceLength ?? loaded?.sequenceLength ?? Math.min(1024, known);
  const configuration = loaded?.configuration ?? newConfiguration(settings, vocabularySize, sequenceLength);
  if (sequenceLength > configuration.maximumSequenceLength) {
    throw new UserError(
      `--sequence-length ${sequenceLength} is longer than the model's ${configuration.maximumSequenceLength} positions`,
    );
  }
  if (settings.dropout > 0 && configuration.width % 4 !== 0) {
    throw new UserError(`--dropout needs a --width that is a multiple of 4, not ${configuration.width}`);
  }
  return { configuration, sequenceLength };
}

function presetOf(settings: CompleteSettings) {
  if (settings.model === undefined) return undefined;
  const preset = presets[settings.model];
  if (!preset) {
    throw new UserError(`There is no model ${settings.model}: choose one of ${Object.keys(presets).join(", ")}`);
  }
  return preset;
}

function newConfiguration(
  settings: CompleteSettings,
  vocabularySize: number,
  sequenceLength: number,
): ModelConfiguration {
  const preset = presetOf(settings) ?? {};
  const { layers, heads, kvHeads, width, family } = settings;
  return modelConfiguration({
    family,
    ...preset,
    // A width of its own makes other sizes of the preset meaningless.
    ...(width !== undefined && width !== preset.width ? { width, hiddenWidth: undefined, headSize: undefined } : {}),
    ...(layers !== undefined ? { layers } : {}),
    ...(heads !== undefined ? { heads, keyValueHeads: kvHeads ?? heads } : {}),
    ...(kvHeads !== undefined ? { keyValueHeads: kvHeads } : {}),
    vocabularySize,
    maximumSequenceLength: preset.maximumSequenceLength ?? sequenceLength,
  });
}

/** A model that is loaded must be the one that the settings describe, and know the data's tokens. */
function checkModel(
  { configuration: model, where }: LoadedModel,
  settings: CompleteSettings,
  family: ModelConfiguration["family"] | undefined,
  vocabularySize: number,
): void {
  const preset = presetOf(settings) ?? {};
  const { heads, kvHeads } = settings;
  const asked = {
    family: family ?? preset.family,
    layers: settings.layers ?? preset.layers,
    heads: heads ?? preset.heads,
    keyValueHeads: kvHeads ?? (heads === undefined ? preset.keyValueHeads : undefined),
    width: settings.width ?? preset.width,
  };
  for (const [name, value] of Object.entries(asked)) {
    const own = model[name as keyof typeof asked];
    if (value !== undefined && value !== own) {
      throw new UserError(
        `The model in ${where} has ${name} ${own}, not ${value}: leave that setting out, or start a new run`,
      );
    }
  }
  if (vocabularySize > model.vocabularySize) {
    throw new UserError(
      `The data has ${vocabularySize} token ids, but the model in ${where} knows ${model.vocabularySize}: ` +
        `prepare the data with the model's tokenizer (--tokenizer ${where})`,
    );
  }
}
