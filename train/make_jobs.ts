/**
 * What each rank of this machine is to do, once it is known which machines there are.
 * @module
 */

import type { Selection } from "../gpu/select.ts";
import { coordinatesOf, worldSize } from "../parallel/mesh.ts";
import { layoutOf, makeExecutors } from "./launch.ts";
import type { PreparedRun } from "./prepare_run.ts";
import type { CheckpointMemory, RankJob } from "./rank_protocol.ts";
import { copiesOf, type RunWorld } from "./run_world.ts";
import { hiddenRows, shareBatch } from "./share_batch.ts";

/** What ranks start from, and into what they put their state. */
export interface JobState {
  /** Steps done before. */
  readonly step: number;
  /** The state behind them; if undefined it is what the run was prepared with. */
  readonly memory: CheckpointMemory | undefined;
  readonly checkpoints: readonly CheckpointMemory[];
}

/**
 * Ranks that share the peak which rank `rank` measures of its device when it is opened: those on the same GPU. Software drivers
 * measure their share of the cores (`LP_NUM_THREADS`), but at least one.
 */
export function sharersOf(
  rank: number,
  selections: readonly Selection[],
  cores = navigator.hardwareConcurrency,
): number {
  const own = selections[rank].device;
  if (own?.type !== "software") return selections.filter(({ device }) => device?.index === own?.index).length;
  const onCores = selections.filter(({ device }) => device?.type === "software").length;
  return Math.max(1, onCores / cores);
}

/** A job for each rank, with memory of their own. `UserError` if the batch cannot be shared among all copies of the model. */
export function makeJobs(
  prepared: PreparedRun,
  world: RunWorld,
  { step, memory, checkpoints }: JobState,
  report: (message: string) => void,
): RankJob[] {
  const { picked: settings, configuration, sequenceLength, mesh, selections } = prepared;
  const { dataFolder, resumeFolder, initFolder } = prepared;
  const { count, first } = copiesOf(world);
  const unequal = prepared.unequal || world.unequal;
  const { copies, rebalances } = shareBatch({ ...mesh, data: count }, settings, unequal);
  if (unequal && settings.balance === "auto" && !rebalances) {
    report(
      "the GPUs of the copies are unequal, but with --pp or --zero 2 or 3 shares do not follow the measured speeds: " +
        "--balance 3:1 gives the first copy three times as much",
    );
  }
  const copyOf = (rank: number) => first + coordinatesOf(mesh, rank).data;
  const machines = world.machine.size > 1 ? world.machine : undefined;
  const layouts = Array.from(
    { length: worldSize(mesh) },
    (_, rank) => layoutOf(configuration, mesh, rank, settings, copies[copyOf(rank)], world.machine.size),
  );
  const own = copies.slice(first, first + mesh.data);
  const rows = hiddenRows(mesh, settings, own, sequenceLength);
  const control = new SharedArrayBuffer(64);
  return makeExecutors(configuration, mesh, settings, layouts, rows, { machines }).map((executor, rank) => ({
    settings,
    configuration,
    sequenceLength,
    dataFolder,
    state: memory,
    resumeFolder: step === 0 ? undefined : resumeFolder,
    initFolder,
    firstStep: step,
    control,
    rank,
    mesh,
    world,
    copies,
    copy: copyOf(rank),
    rebalances,
    executor,
    selection: selections[rank],
    sharers: sharersOf(rank, selections),
    checkpoints,
  }));
}
