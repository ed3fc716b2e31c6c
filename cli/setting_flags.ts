/** The flags that commands take from the table of a training's settings. */

import type { Command } from "commander";
import { describeOptions, type GivenSettings, isSwitch, type SettingName, settingNames } from "../train/settings.ts";

/** Adds the flags of settings, from their table; `others` are defaults other than those of training. */
export function addSettings(target: Command, wanted: readonly SettingName[], others: GivenSettings = {}): Command {
  describeOptions().forEach(({ flag, help, fallback }, i) => {
    const name = settingNames[i];
    if (!wanted.includes(name)) return;
    const argument = isSwitch(name) ? flag.split(" ")[0] : flag.replace(/ ([^<].*)$/, " <$1>");
    const value = name in others ? String(others[name]) : fallback;
    target.option(argument, value ? `${help} (default: ${value})` : help);
  });
  return target;
}

/** Settings that neither bytes nor time of a step depend on. */
export const unplanned: readonly SettingName[] = [
  "steps",
  "learningRate",
  "minLearningRate",
  "warmupSteps",
  "lrSchedule",
  "weightDecay",
  "beta1",
  "beta2",
  "epsilon",
  "clip",
  "lossScale",
  "seed",
  "evalInterval",
  "evalBatches",
  "checkpointInterval",
  "keep",
  "out",
  "resume",
  "stallTimeout",
  "restarts",
  "trace",
  "rendezvous",
  "nodeRank",
  "listen",
  "secretFile",
  "tlsCert",
  "tlsKey",
  "tlsCa",
  "minNodes",
  "peerTimeout",
  "rendezvousTimeout",
  "commitSteps",
  "commTune",
  "commAlgorithm",
  "connections",
  "quiet",
  "verbose",
];

/** Options that `plan` has of its own, whether or not a run has settings of the same name. */
export const ofMachines: readonly string[] = ["nodes", "link", "gradCompression"];

/** Settings of a run that only checks layouts; its model is small unless they say otherwise. */
export const verified: readonly SettingName[] = [
  "devices",
  "steps",
  "data",
  "tokenizer",
  "model",
  "init",
  "family",
  "layers",
  "heads",
  "kvHeads",
  "width",
  "sequenceLength",
  "batchSize",
  "learningRate",
  "precision",
  "dropout",
  "seed",
  "bucketMb",
  "tune",
  "stallTimeout",
  "json",
];
