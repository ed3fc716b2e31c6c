/**
 * A state of a run as it is saved.
 * @module
 */

import type { CheckpointContents } from "./checkpoint.ts";
import type { PreparedRun } from "./prepare_run.ts";
import type { CheckpointMemory } from "./rank_protocol.ts";
import { version } from "./version.ts";

/** A state as it is saved. */
export function checkpointOf(
  { configuration, tokenizerFiles, settings, run, dataHash, sequenceLength, tunings }: PreparedRun,
  memory: CheckpointMemory,
  step: number,
  losses: { loss?: number; validationLoss?: number } = {},
): CheckpointContents {
  const trainer = {
    muster: version,
    settings: { ...settings, out: run },
    dataHash,
    sequenceLength,
    tunings,
    ...losses,
  };
  return { step, configuration, tokenizerFiles, ...memory, trainer };
}
