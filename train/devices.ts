/**
 * The GPUs of this machine, as the command line lists them.
 * @module
 */

import { MachineError } from "../errors.ts";
import { describeDevices, type DeviceDescription } from "../gpu/list.ts";
import { type Selection, selectionsFor } from "../gpu/select.ts";
import type { Hardware, MeasuredWork } from "./hardware.ts";
import { describeInWorker, measureInWorker } from "./rank.ts";

/** All GPUs, each opened once in a Worker of its own, one after another. */
export function listDevices(): Promise<DeviceDescription[]> {
  return describeDevices(describeInWorker);
}

/** How fast the GPUs of these indices are at a model, each opened and measured once, one after another. */
export async function measureDevices(
  selections: readonly Selection[],
  indices: readonly number[],
  work: MeasuredWork,
): Promise<Map<number, Hardware>> {
  const found = new Map<number, Hardware>();
  for (const [i, selection] of selectionsFor(indices, selections).entries()) {
    const index = indices[i];
    if (found.has(index)) continue;
    const measured = await measureInWorker(selection, work);
    if ("reason" in measured) throw new MachineError(`GPU ${index} cannot be measured: ${measured.reason}`);
    found.set(index, measured);
  }
  return found;
}
