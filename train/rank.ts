/**
 * A rank: one device in a Worker of its own. Its loop is straight-line code, since waiting for the device blocks the
 * thread; the coordinator is told by messages and speaks through shared memory.
 *
 * The Worker is started from this very module, so that one file holds everything: bundled or compiled, `import.meta.url`
 * is the whole program, which recognizes by its name that it is a Worker.
 * @module
 */

import { packFailure, type RankJob, type RankMessage } from "./rank_protocol.ts";

const workerName = "muster rank";

/** The parts of a Worker's global scope that are used; Deno's types for it exclude those of the main thread. */
interface WorkerScope {
  readonly name: string;
  onmessage: ((event: MessageEvent) => void) | null;
  postMessage(message: unknown): void;
  close(): void;
}

/** True in the Worker of a rank: a program that is bundled into one file must do nothing else there. */
export function isRankWorker(): boolean {
  return "WorkerGlobalScope" in globalThis && String((globalThis as { name?: string }).name).startsWith(workerName);
}

/** Starts the Worker of rank `index` with a job. */
export function startRank(index: number, job: RankJob): Worker {
  const worker = new Worker(import.meta.url, { type: "module", name: `${workerName} ${index}` });
  worker.postMessage(job);
  return worker;
}

if (isRankWorker()) {
  const scope = globalThis as unknown as WorkerScope;
  scope.onmessage = async ({ data }: MessageEvent<RankJob>) => {
    const post = (message: RankMessage) => scope.postMessage(message);
    try {
      await (await import("./rank_training.ts")).trainOnRank(data, post);
    } catch (error) {
      post({ type: "failed", failure: packFailure(error) });
    } finally {
      scope.close();
    }
  };
}
