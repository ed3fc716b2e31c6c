/**
 * The ranks of a run as the coordinator sees them: started one after another, watched, and ended together.
 *
 * A Worker that is ended while its device works takes the process with it: when the run has failed, a rank ends by itself,
 * at the latest at its next wait or sign of life. One that does not, because it is stuck in its driver, is left behind:
 * whoever ends the process ends it too.
 * @module
 */

import { MachineError } from "../errors.ts";
import { prepareThreads } from "../gpu/driver_threads.ts";
import { describeSilence, describeWait, RunStatus, stallError } from "../parallel/status.ts";
import { type RankTask, startRank } from "./rank.ts";
import { type Failure, patienceOf, type RankMessage, unpackFailure } from "./rank_protocol.ts";

/** Time that ranks get to end by themselves when the run has failed, in ms. */
const leaveMilliseconds = 2500;
/** Time for a rank's thread to let go of its driver; Deno does not tell when a Worker is gone. In ms. */
const unloadMilliseconds = 100;
/** A rank that waits for another, or shows no sign of life, for this long, in ms, is reported. */
const reportMilliseconds = 5000;
/** The ranks are looked after this often, in ms. */
const lookMilliseconds = 500;
/** Between two looks this long, in ms, the process itself stood still. */
const stillMilliseconds = 4 * lookMilliseconds;

/** What to do with what the ranks tell, and how patient to be. */
export interface CrewHooks {
  /** Seconds without a sign of life behind which the run is given up, once the first steps are over. */
  readonly stallTimeout: number;
  readonly onMessage: (rank: number, message: RankMessage) => void;
  /** Told in words of ranks that wait or are silent. */
  readonly onStall: (message: string) => void;
}

/** Ranks at work. */
export interface Crew {
  /** Resolves when all ranks are done and gone; rejects with the first failure, when all are gone or time is up. */
  readonly ended: Promise<void>;
  /** Time of `performance.now()` of the first failure. */
  readonly failedAt: number;
  /** True if every rank that was started has ended. */
  readonly gone: boolean;
  /** Ends all ranks for a reason that is none of theirs; they get so many ms for it. */
  readonly fail: (error: unknown, milliseconds?: number) => void;
}

/** Starts the ranks, each when the one before has opened its device. */
export function startRanks(tasks: readonly RankTask[], { stallTimeout, onMessage, onStall }: CrewHooks): Crew {
  const status = new RunStatus(tasks[0].job.executor.status);
  const { first, usual } = patienceOf({ stallTimeout });
  for (const { job } of tasks) status.allow(job.rank, first);
  prepareThreads(tasks.length);
  const { promise: ended, resolve, reject } = Promise.withResolvers<void>();
  const workers: Worker[] = [];
  const gone = new Set<number>();
  let failure: unknown;
  let failedAt = 0;
  let lastCall: ReturnType<typeof setTimeout> | undefined;

  const settle = () => {
    clearInterval(watch);
    clearTimeout(lastCall);
    setTimeout(() => failure === undefined ? resolve() : reject(failure), unloadMilliseconds);
  };
  const leave = (rank: number) => {
    gone.add(rank);
    if (gone.size === (failure === undefined ? tasks.length : workers.length)) settle();
  };
  const fail = (error: unknown, milliseconds = leaveMilliseconds) => {
    if (failure !== undefined) return;
    failure = error;
    failedAt = performance.now();
    status.fail();
    lastCall = setTimeout(settle, milliseconds);
  };
  /** Says whose failure it is, and in what; a stall names ranks itself, mistakes and numbers that are not finite are nobody's. */
  const withRank = (failure: Failure, rank: number): Failure => {
    const { kind, message } = failure;
    if (tasks.length === 1 || kind === "user" || /^(Rank \d|Training stopped)/.test(message)) return failure;
    return { ...failure, message: `Rank ${rank} failed in ${status.seen(rank)}: ${message}` };
  };
  /** What goes wrong in the coordinator ends the run like any other failure. */
  const guarded = (body: () => void) => {
    try {
      body();
    } catch (error) {
      fail(error);
    }
  };
  const start = (rank: number) => {
    if (rank === tasks.length || failure !== undefined) return;
    status.beat(rank);
    const worker = startRank(rank, tasks[rank]);
    workers.push(worker);
    worker.onerror = (event) => {
      event.preventDefault();
      fail(new MachineError(`The Worker of rank ${rank} failed: ${event.message}`, { restartable: true }));
      leave(rank);
    };
    worker.onmessage = ({ data }: MessageEvent<RankMessage>) =>
      guarded(() => {
        if (data.type === "opened") return start(rank + 1);
        if (data.type === "failing" || data.type === "failed") {
          // Whoever ends because of another has nothing to tell.
          if (!data.failure.stopped) fail(unpackFailure(withRank(data.failure, rank)));
        } else if (failure === undefined) onMessage(rank, data);
        if (data.type === "failed" || data.type === "done") leave(rank);
      });
  };

  const reported = new Set<string>();
  const report = (key: string, milliseconds: number, text: string) => {
    if (milliseconds < reportMilliseconds || reported.has(key)) return;
    reported.add(key);
    onStall(text);
  };
  let looked = performance.now();
  const look = () => {
    if (failure !== undefined) return;
    const now = performance.now();
    // This process itself stood still, so that nobody in it could show a sign of life.
    if (now - looked > stillMilliseconds) { for (const { job } of tasks) status.beat(job.rank); }
    looked = now;
    const waits = status.waits(tasks.length);
    for (const wait of waits) {
      // Waiting for one that computes is no stall.
      const stalled = Math.min(wait.milliseconds, status.silence(wait.waitingFor));
      report(`${wait.rank} ${wait.began}`, stalled, describeWait(wait));
    }
    for (let rank = 0; rank < workers.length; rank++) {
      if (gone.has(rank)) continue;
      const silence = status.silence(rank);
      // Told by the longest wait that it is part of, if there is one.
      const [wait] = waits.filter((wait) => wait.rank === rank || wait.waitingFor === rank)
        .sort((a, b) => b.milliseconds - a.milliseconds);
      const text = wait ? describeWait(wait) : describeSilence(rank, silence, status.seen(rank));
      const patience = status.patience(rank);
      // It may be silent while its device is opened and its program made.
      const steady = patience === usual;
      if (silence < reportMilliseconds) reported.delete(`${rank}`);
      else if (steady && waits.length === 0) report(`${rank}`, silence, text);
      if (silence > patience) fail(stallError(text));
    }
  };
  const watch = setInterval(() => guarded(look), lookMilliseconds);
  guarded(() => start(0));
  return {
    ended,
    get failedAt() {
      return failedAt;
    },
    get gone() {
      return gone.size === workers.length;
    },
    fail,
  };
}
