/**
 * A rank's device and its part of a model: opened and loaded, put to work, let go.
 * @module
 */

import type { Device } from "../gpu/device.ts";
import { openDevice } from "../gpu/open.ts";
import type { Plan } from "../graph/plan.ts";
import { SharedMemoryExecutor } from "../parallel/executor.ts";
import { faultAt } from "./faults.ts";
import { ModelProgram } from "./model_program.ts";
import type { ModelGraphOptions } from "./rank_layout.ts";
import { packFailure, type RankJob, type RankMessage } from "./rank_protocol.ts";

/** What to do with a model. */
export interface ModelWork<T> {
  /** What to build on the device. */
  readonly options: (device: Device) => ModelGraphOptions;
  /** Told what is built and how large it is, before kernels are compiled and memory is taken. */
  readonly planned?: (device: Device, options: ModelGraphOptions, plan: Plan) => void;
  /** Fills in the weights. */
  readonly load: (model: ModelProgram) => void;
  /** Begins when all ranks have loaded theirs. */
  readonly run: (model: ModelProgram, executor: SharedMemoryExecutor) => Promise<T>;
}

/** Messages of kernels that are compiled come at most this often, in ms; the last one always comes. */
const compileMilliseconds = 500;

function compileReporter(post: (message: RankMessage) => void): (done: number, total: number) => void {
  const began = performance.now();
  let told = began;
  return (done, total) => {
    const now = performance.now();
    if (done < total && now - told < compileMilliseconds) return;
    told = now;
    post({ type: "compile", done, total, seconds: (now - began) / 1e3 });
  };
}

/**
 * Opens the device of a rank, makes its program, has `work` done and lets go of all. A failure is told before that, which
 * may take its time.
 */
export async function withModel<T>(
  { rank, selection, executor: setup }: Pick<RankJob, "rank" | "selection" | "executor">,
  post: (message: RankMessage) => void,
  work: ModelWork<T>,
): Promise<T> {
  const executor: SharedMemoryExecutor = new SharedMemoryExecutor(setup, () => executor.status.patience(rank));
  const { status } = executor;
  let device: Device | undefined;
  let model: ModelProgram | undefined;
  try {
    status.doing(rank, "opening its device");
    faultAt({ rank, step: 0, at: "step" });
    device = await openDevice({ selection });
    post({ type: "opened" });
    status.doing(rank, "making its program");
    const opened = device;
    const options = work.options(opened);
    const compiled = compileReporter(post);
    const planned = (plan: Plan) => work.planned?.(opened, options, plan);
    model = await ModelProgram.create(device, options, executor, { planned, compiled });
    status.doing(rank, "loading its weights");
    work.load(model);
    // What ranks share in host memory is there from here on.
    executor.meet("the meeting behind loading");
    return await work.run(model, executor);
  } catch (error) {
    post({ type: "failing", failure: packFailure(error) });
    throw error;
  } finally {
    model?.destroy();
    await device?.destroy();
  }
}
