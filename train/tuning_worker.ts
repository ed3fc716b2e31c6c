/**
 * Tuning a device, in the Worker that opens it.
 * @module
 */

import { openDevice } from "../gpu/open.ts";
import type { Selection } from "../gpu/select.ts";
import { type ClassTuning, tuneProducts, type Tuning, type TuningMode } from "../kernels/tune_matmul.ts";

/** Opens the device and tries what `mode` says and is not there `before`. */
export async function tuneDevice(
  selection: Selection,
  mode: TuningMode,
  before: readonly ClassTuning[],
): Promise<Tuning> {
  const { products: _, ...untuned } = selection;
  const device = await openDevice({ selection: untuned });
  try {
    return await tuneProducts(device, mode, { before });
  } finally {
    await device.destroy();
  }
}
