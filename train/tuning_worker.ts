/**
 * Tuning a device, in the Worker that opens it.
 * @module
 */

import { openDevice } from "../gpu/open.ts";
import type { Selection } from "../gpu/select.ts";
import { tuneProducts, type Tuning, type TuningMode } from "../kernels/tune_matmul.ts";

/** Opens the device and tries what `mode` says. */
export async function tuneDevice(selection: Selection, mode: TuningMode): Promise<Tuning> {
  const { products: _, ...untuned } = selection;
  const device = await openDevice({ selection: untuned });
  try {
    return await tuneProducts(device, mode, mode === "full" ? ["f32", "bf16"] : ["f32"]);
  } finally {
    await device.destroy();
  }
}
