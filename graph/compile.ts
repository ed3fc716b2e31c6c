/**
 * Kernels of a plan, compiled before the first of them is needed.
 * @module
 */

import { bindingsOf } from "./images.ts";
import type { Device } from "../gpu/device.ts";
import type { Plan, PlannedDispatch } from "./plan.ts";

/** A dispatch for each kernel of a plan, equal texts once. */
export function distinctKernels({ segments }: Pick<Plan, "segments">): PlannedDispatch[] {
  const found = new Map<string, PlannedDispatch>();
  for (const stretches of segments.values()) {
    for (const dispatch of stretches.flatMap(({ dispatches }) => dispatches)) {
      const key = `${bindingsOf(dispatch)}:${dispatch.kernel.code}`;
      if (!found.has(key)) found.set(key, dispatch);
    }
  }
  return [...found.values()];
}

/** Compiles all kernels of a plan; `compiled` is told behind each how many are done, of how many. */
export async function compileKernels(
  device: Device,
  plan: Plan,
  compiled: (done: number, total: number) => void = () => {},
): Promise<void> {
  const kernels = distinctKernels(plan);
  for (const [i, dispatch] of kernels.entries()) {
    await device.pipeline(dispatch.kernel, bindingsOf(dispatch));
    compiled(i + 1, kernels.length);
  }
}
