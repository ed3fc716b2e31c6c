/**
 * Bytes of host memory that ranks take for what they share.
 * @module
 */

import { bytesOf } from "../graph/tensor.ts";
import type { ModelConfiguration } from "../model/configuration.ts";
import { channelBytes } from "../parallel/channel.ts";
import type { ExecutorSetup } from "../parallel/executor.ts";
import { groupBytesPerMember } from "../parallel/group_setup.ts";
import { rankParameters } from "./bank_options.ts";
import { sharedHostElements } from "./parameter_banks.ts";
import type { RankLayout } from "./rank_layout.ts";

/** Bytes of shared memory that are a rank's own share: of groups its area, of channels half. */
export function communicationBytes({ groups, channels }: ExecutorSetup): number {
  const areas = Object.values(groups).map((group) => groupBytesPerMember(group));
  return [...areas, ...Object.values(channels).map((channel) => channelBytes(channel) / 2)]
    .reduce((sum, bytes) => sum + bytes, 0);
}

/** Bytes of a rank's own part of weights that copies share in the host's memory. */
export function hostBytes(configuration: ModelConfiguration, layout: RankLayout): number {
  const { parameters, options } = rankParameters(configuration, layout, true);
  return [...sharedHostElements(parameters, options).values()]
    .reduce((sum, elements) => sum + bytesOf(options.precision) * elements / options.data.size, 0);
}
