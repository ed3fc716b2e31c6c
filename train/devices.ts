/**
 * The GPUs of this machine, as the command line lists them.
 * @module
 */

import { describeDevices, type DeviceDescription } from "../gpu/list.ts";
import { describeInWorker } from "./rank.ts";

/** All GPUs, each opened once in a Worker of its own, one after another. */
export function listDevices(): Promise<DeviceDescription[]> {
  return describeDevices(describeInWorker);
}
