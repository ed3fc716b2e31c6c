/**
 * The ranks of a run as the coordinator sees them: started one after another, watched, and ended together.
 *
 * A Worker that is ended while its device works takes the process with it, and so does a process that ends while a Worker's
 * driver is being unloaded: a rank is asked to stop, ends by itself, and is given a moment to be gone.
 * @module
 */

import { MachineError } from "../errors.ts";
import { describeWait, RunStatus } from "../parallel/status.ts";
import { type RankTask, startRank } from "./rank.ts";
import { controlSlots, type RankMessage, unpackFailure } from "./rank_protocol.ts";

/** Without a sign of life from any device for this long, in ms, a run is given up. First steps compile kernels. */
const stallMilliseconds = 10 * 60_000;
/** Time that the devices get to finish what they do when the run has failed, in ms: alone, and with others to wait for. */
const stopMilliseconds = { alone: 60_000, together: 5000 };
/** Time for a rank's thread to let go of its driver; Deno does not tell when a Worker is gone. In ms. */
const unloadMilliseconds = 100;
/** A rank that waits for another for this long, in ms, is reported. */
const reportMilliseconds = 5000;

/** What to do with what the ranks tell. */
export interface CrewHooks {
  readonly onMessage: (rank: number, message: RankMessage) => void;
  /** Told in words of ranks that wait. */
  readonly onStall: (message: string) => void;
}

/** Ranks at work. */
export interface Crew {
  /** Resolves when all ranks are done and gone; rejects with the first failure when all are gone. */
  readonly ended: Promise<void>;
  readonly failed: boolean;
  /** Ends all ranks for a reason that is none of theirs. */
  readonly fail: (error: unknown) => void;
}

/** Starts the ranks, each when the one before has opened its device. */
export function startRanks(tasks: readonly RankTask[], { onMessage, onStall }: CrewHooks): Crew {
  const [{ job }] = tasks;
  const control = new Int32Array(job.control);
  const status = new RunStatus(job.executor.status);
  if (tasks.length > 1) shareCores(tasks.length);
  const { promise: ended, resolve, reject } = Promise.withResolvers<void>();
  const workers: Worker[] = [];
  const gone = new Set<number>();
  let failure: unknown;
  let patience: ReturnType<typeof setTimeout> | undefined;

  const settle = () => {
    clearInterval(watch);
    clearTimeout(patience);
    setTimeout(() => failure === undefined ? resolve() : reject(failure), unloadMilliseconds);
  };
  const leave = (rank: number) => {
    gone.add(rank);
    if (gone.size === (failure === undefined ? tasks.length : workers.length)) settle();
  };
  const fail = (error: unknown) => {
    if (failure !== undefined) return;
    failure = error;
    status.fail();
    Atomics.store(control, controlSlots.stop, 1);
    Atomics.add(control, controlSlots.saved, 1 << 20);
    Atomics.notify(control, controlSlots.saved);
    patience = setTimeout(() => {
      workers.forEach((worker, rank) => gone.has(rank) || worker.terminate());
      settle();
    }, tasks.length > 1 ? stopMilliseconds.together : stopMilliseconds.alone);
  };
  const start = (rank: number) => {
    if (rank === tasks.length || failure !== undefined) return;
    const worker = startRank(rank, tasks[rank]);
    workers.push(worker);
    worker.onerror = (event) => {
      event.preventDefault();
      fail(new MachineError(`The Worker of rank ${rank} failed: ${event.message}`, { restartable: true }));
      leave(rank);
    };
    worker.onmessage = ({ data }: MessageEvent<RankMessage>) => {
      if (data.type === "opened") return start(rank + 1);
      if (data.type === "failed") {
        // Whoever ends because of another has nothing to tell.
        if (!data.failure.stopped) fail(unpackFailure(data.failure));
        return leave(rank);
      }
      onMessage(rank, data);
      if (data.type === "done") leave(rank);
    };
  };

  let heartbeat = -1;
  let alive = performance.now();
  const reported = new Set<string>();
  const watch = setInterval(() => {
    for (const wait of status.waits(tasks.length)) {
      const key = `${wait.rank} ${wait.waitingFor} ${wait.collective}`;
      if (wait.milliseconds < reportMilliseconds || reported.has(key)) continue;
      reported.add(key);
      onStall(describeWait(wait));
    }
    const now = Atomics.load(control, controlSlots.heartbeat);
    if (now !== heartbeat) {
      alive = performance.now();
      reported.clear();
    }
    heartbeat = now;
    if (performance.now() - alive < stallMilliseconds) return;
    const minutes = stallMilliseconds / 60_000;
    fail(
      new MachineError(`The device has done nothing for ${minutes} minutes: its driver hangs`, { restartable: true }),
    );
  }, 1000);
  start(0);
  return {
    ended,
    get failed() {
      return failure !== undefined;
    },
    fail,
  };
}

/** Software drivers take all cores for each device unless told: with several, each gets its share. */
function shareCores(ranks: number): void {
  const name = "LP_NUM_THREADS";
  if (Deno.env.get(name) === undefined) {
    Deno.env.set(name, String(Math.max(1, Math.floor(navigator.hardwareConcurrency / ranks))));
  }
}
