/**
 * A rank's share in a checkpoint.
 * @module
 */

import { MachineError } from "../errors.ts";
import { faultAt } from "./faults.ts";
import { scalingName } from "./loss_scaling.ts";
import { isSharedOut, statePrefixes } from "./model_state.ts";
import { controlSlots } from "./rank_protocol.ts";
import { beat, doing, type Run } from "./rank_run.ts";

/** Time allowed for a checkpoint to reach the disk before the next is taken, in ms. */
const saveMilliseconds = 30 * 60_000;
/** While it waits a rank looks up this often, in ms. */
const lookMilliseconds = 200;

/**
 * All ranks fill a checkpoint's memory, the next in turn, once the coordinator has taken note of the checkpoint before, and has
 * it on the disk if it was to be saved: till then it takes the memory that is filled next for the newest whole state. Rank 0
 * tells, and whether this one is to be saved.
 */
export async function checkpoint(run: Run, step: number, save: boolean): Promise<void> {
  const before = run.commits++;
  const slot = before % run.job.checkpoints.length;
  const began = performance.now();
  doing(run, `the wait for the checkpoint before that of step ${step} to reach the disk`);
  for (let saved = 0; (saved = Atomics.load(run.control, controlSlots.saved)) < before;) {
    Atomics.wait(run.control, controlSlots.saved, saved, lookMilliseconds);
    beat(run);
    if (performance.now() - began > saveMilliseconds) {
      throw new MachineError(
        `The checkpoint before step ${step} was not written within 30 minutes: is the disk stuck?`,
      );
    }
  }
  doing(run, `the checkpoint of step ${step}`);
  faultAt({ rank: run.job.rank, step, at: "checkpoint", device: run.model.program.device });
  const { weights, optimizer } = run.job.checkpoints[slot];
  const places = new Map([...weights, ...optimizer].map(({ name, data }) => [name, data as Float32Array]));
  const { model } = run;
  // Copies of the model have the same weights, and unless it is shared out the same optimizer state.
  const { banks, layout } = model.model;
  for (const kind of ["weights", "firstMoment", "secondMoment"] as const) {
    if (layout.data.index > 0 && !isSharedOut(banks, kind, layout)) continue;
    const prefix = kind === "weights" ? "" : statePrefixes[kind];
    await model.saveInto(kind, (name) => places.get(prefix + name)!);
  }
  if (run.scaler && run.job.rank === 0) places.get(scalingName)!.set(run.scaler.state);
  run.executor.meet("the meeting before a checkpoint");
  run.post({ type: "checkpoint", step, slot, save });
  beat(run);
}
