/**
 * Training in one world: from the start of the ranks to their end.
 * @module
 */

import { MachineError } from "../errors.ts";
import { parameterCount } from "../model/configuration.ts";
import { nameMesh } from "../parallel/mesh.ts";
import { saveCheckpoint } from "./checkpoint.ts";
import { checkpointOf } from "./checkpoint_contents.ts";
import { type Cluster, endingOf } from "./cluster.ts";
import { type Crew, startRanks } from "./crew.ts";
import { WorldEnded } from "./network_thread.ts";
import { makeJobs } from "./make_jobs.ts";
import type { PreparedRun } from "./prepare_run.ts";
import { controlSlots, patienceOf, type RankJob, type RankMessage } from "./rank_protocol.ts";
import type { RunRecord } from "./run_record.ts";
import type { RunState } from "./run_state.ts";
import type { RunWorld } from "./run_world.ts";
import { traceSteps } from "./trace_file.ts";

/** What trains, with whom, and who is told. */
export interface WorldTraining {
  readonly prepared: PreparedRun;
  readonly world: RunWorld;
  readonly state: RunState;
  readonly record: RunRecord;
  readonly signal: AbortSignal | undefined;
  readonly cluster: Cluster | undefined;
}

/** How the training in a world ended. */
export interface WorldResult {
  readonly step: number;
  readonly loss: number;
  readonly validationLoss: number;
  /** Folder of the last checkpoint; empty on machines that write none. */
  readonly checkpoint: string;
  readonly stopped: boolean;
  /** True if it ended to let a machine in. */
  readonly regroups: boolean;
}

/** Time from a failure on that a checkpoint under way gets, in ms. */
const saveMilliseconds = 4000;
/** Time that ranks get to end when another machine is lost, in ms: they may be compiling. */
const regroupMilliseconds = 60_000;

/** Resolves when `promise` has settled either way, or behind so many ms. */
async function settledWithin(promise: Promise<unknown>, milliseconds: number): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<void>((resolve) => timer = setTimeout(resolve, milliseconds));
  await Promise.race([promise.catch(() => {}), late]);
  clearTimeout(timer);
}

/** Trains until the end, until a machine is to be let in, or until one is lost: then it rejects with `WorldEnded`. */
export async function trainInWorld(training: WorldTraining): Promise<WorldResult> {
  const { prepared, world, state, record, signal, cluster } = training;
  const jobs = makeJobs(prepared, world, state.jobState(), (message) => record.message(message));
  const control = new Int32Array(jobs[0].control);
  const progress = { loss: NaN, validationLoss: NaN, path: "", saving: Promise.resolve() as Promise<unknown> };
  const { stallTimeout } = prepared.picked;
  if (cluster) {
    // Who is silent is found by beats; a rank that computes for long is looked after on its own machine.
    const timeoutSeconds = 2 * patienceOf({ stallTimeout }).first / 1e3;
    cluster.serve({
      groups: groupsOverMachines(jobs),
      status: jobs[0].executor.status,
      timeoutSeconds,
      compression: prepared.picked.gradCompression,
      algorithm: prepared.picked.commAlgorithm,
      tune: prepared.picked.commTune,
      trace: record.traces,
    });
  }
  let result: Extract<RankMessage, { type: "done" }> | undefined;
  const hear = listener(training, jobs, control, progress, () => crew);
  const crew: Crew = startRanks(jobs.map((job) => ({ kind: "train", job })), {
    stallTimeout,
    onMessage(rank, message) {
      if (message.type !== "done") hear(rank, message);
      else if (rank === 0) result = message;
    },
    onStall: (message) => record.tell({ event: "stall", message }),
  });
  const stop = () => void Atomics.store(control, controlSlots.stop, 1);
  signal?.addEventListener("abort", stop);
  if (signal?.aborted) stop();
  const lose = (error: Error) => {
    // Whoever has nothing more to exchange ends in good order.
    if (Atomics.load(control, controlSlots.parted) !== 0) return;
    crew.fail(endingOf(error), regroupMilliseconds);
  };
  if (cluster) {
    cluster.onWaiting = () => void Atomics.store(control, controlSlots.newcomers, 1);
    cluster.onLost = lose;
    if (cluster.lost) lose(cluster.lost);
  }
  try {
    await crew.ended;
    await progress.saving;
    const { step, stopped, regroups } = result!;
    const { loss, validationLoss, path } = progress;
    return { step, loss, validationLoss, checkpoint: path, stopped, regroups };
  } catch (error) {
    if (error instanceof WorldEnded) {
      if (!crew.gone) {
        throw new MachineError(`${error.message}; a rank of this machine does not end: is its driver stuck?`, {
          restartable: true,
        });
      }
      await progress.saving;
      throw error;
    }
    // A checkpoint under way may be what the run goes on from; a disk that is stuck must not hold up the end.
    await settledWithin(progress.saving, crew.failedAt + saveMilliseconds - performance.now());
    throw error;
  } finally {
    signal?.removeEventListener("abort", stop);
    if (cluster) [cluster.onLost, cluster.onWaiting] = [() => {}, () => {}];
  }
}

/** The groups of this machine's ranks that sum over machines: that of all, then those that sum gradients, by first rank. */
function groupsOverMachines(jobs: readonly RankJob[]) {
  const all = jobs.flatMap(({ executor: { groups } }) => [groups.run, groups.data]);
  return [...new Set(all)].filter(({ machines }) => machines !== undefined);
}

/** What is done with what ranks tell. */
function listener(
  { prepared, world, state, record, cluster }: WorldTraining,
  jobs: readonly RankJob[],
  control: Int32Array,
  progress: { loss: number; validationLoss: number; path: string; saving: Promise<unknown> },
  crew: () => Crew,
): (rank: number, message: RankMessage) => void {
  const { settings, picked, pick, run, configuration, sequenceLength, mesh } = prepared;
  const tokensPerStep = settings.batchSize * sequenceLength;
  const leads = world.machine.rank === 0;
  const planned = new Map<number, Extract<RankMessage, { type: "planned" }>>();
  const saved = () => {
    Atomics.add(control, controlSlots.saved, 1);
    Atomics.notify(control, controlSlots.saved);
  };
  return (rank, data) => {
    switch (data.type) {
      case "planned": {
        planned.set(rank, data);
        if (planned.size < jobs.length) return;
        const all = jobs.map((_, rank) => planned.get(rank)!);
        const largest = all.reduce((a, b) => b.bytes > a.bytes ? b : a);
        const device = [...new Set(all.map(({ device }) => device))].join(", ");
        record.nameTracks(device, world.machine.size > 1 ? 1 + mesh.pipeline * mesh.tensor : 0);
        return record.tell({
          event: "start",
          config: { ...picked, out: run },
          run,
          device,
          ...(jobs.length > 1 ? { mesh: nameMesh(mesh) } : {}),
          ...(pick === undefined ? {} : { pick }),
          parameters: parameterCount(configuration),
          vocabularySize: configuration.vocabularySize,
          microBatchSize: largest.microBatchSize,
          bytes: largest.bytes,
          memory: largest.memory,
          firstStep: jobs[0].firstStep,
        });
      }
      case "compile": {
        const { done, total, seconds } = data;
        // The start comes first, when all have told of their plans.
        if (planned.size < jobs.length) return;
        return record.tell({ event: "compile", done, total, seconds });
      }
      case "step": {
        progress.loss = data.loss;
        const traced = data.step - jobs[0].firstStep;
        if (traced === traceSteps) cluster?.untrace();
        if (traced <= traceSteps) record.traceUtilization(data.modelFlopsUtilization);
        const { type: _, milliseconds, ...rest } = data;
        const tokens = (data.step - prepared.firstStep) * tokensPerStep;
        const tokensPerSecond = tokensPerStep / (milliseconds / 1e3);
        return record.tell({ event: "step", ...rest, tokens, tokensPerSecond, milliseconds });
      }
      case "balance":
        return record.tell({ event: "balance", step: data.step, shares: data.shares });
      case "straggler": {
        const { step, machine, slowness } = data;
        return record.tell({ event: "straggler", step, machine: world.names[machine], slowness });
      }
      case "evaluation":
        progress.validationLoss = data.loss;
        return record.tell({ event: "evaluation", step: data.step, loss: data.loss });
      case "checkpoint": {
        const { step, slot, save } = data;
        const memory = jobs[0].checkpoints[slot];
        const name = `${step} ${world.id}`;
        state.filled(memory, step, name);
        if (!save || !leads) return saved();
        const { loss, validationLoss } = progress;
        const contents = checkpointOf(prepared, memory, step, { loss, validationLoss });
        progress.saving = saveCheckpoint(run, contents, settings.keep).then((path) => {
          progress.path = path;
          state.saved = name;
          saved();
          record.tell({ event: "checkpoint", step, path });
        });
        progress.saving.catch((error) => crew().fail(error));
        return;
      }
      case "trace":
        return record.traceRank(rank, data.spans);
    }
  };
}
