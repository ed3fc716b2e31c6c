/**
 * Which parameters a rank holds, and how they are put into banks.
 * @module
 */

import type { ModelConfiguration } from "../model/configuration.ts";
import { partParameters } from "../model/model.ts";
import type { Parameter } from "../model/parameters.ts";
import type { BankOptions } from "./parameter_banks.ts";
import type { RankLayout } from "./rank_layout.ts";

/** The parameters of a rank, each once, and the options of its banks. */
export function rankParameters(
  configuration: ModelConfiguration,
  layout: RankLayout,
  training: boolean,
): { parameters: Parameter[]; options: BankOptions } {
  const { parts, data, machines, zero, offload, precision, bucketElements } = layout;
  const parameters = [...new Map(parts.flatMap((part) => partParameters(configuration, part)).map((p) => [p.name, p]))
    .values()];
  const { tensor, sequenceParallel } = parts[0];
  const firstStage = parts.some((part) => part.embedding);
  const lastStage = parts.some((part) => part.head);
  const holdsTable = configuration.tied && (firstStage || lastStage);
  const table = holdsTable ? parameters.find(({ unit, decay }) => unit === 0 && decay)?.name : undefined;
  const apart = firstStage !== lastStage;
  return {
    parameters,
    options: {
      training,
      bucketElements,
      data,
      machines,
      zero,
      offload,
      precision,
      tensor,
      sequenceParallel,
      tiedCopy: apart && lastStage ? table : undefined,
      tiedOriginal: apart && firstStage ? table : undefined,
      keyValueHeads: configuration.keyValueHeads,
    },
  };
}
