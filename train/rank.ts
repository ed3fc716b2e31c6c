/**
 * A Worker with a device: a rank that trains, or one that only tells what its device is. A rank has one device, in a Worker
 * of its own. Its loop is straight-line code, since waiting for the device blocks the
 * thread; the coordinator is told by messages and speaks through shared memory.
 *
 * The Worker is started from this very module, so that one file holds everything: bundled or compiled, `import.meta.url`
 * is the whole program, which recognizes by its name that it is a Worker.
 * @module
 */

import { messageOf } from "../errors.ts";
import type { AdapterFacts } from "../gpu/list.ts";
import type { Selection } from "../gpu/select.ts";
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

/** What a Worker is to do: train, or open a device and describe it. */
type Task =
  | { readonly kind: "train"; readonly job: RankJob }
  | {
    readonly kind: "describe";
    readonly selection: Selection;
    readonly environment: Readonly<Record<string, string>>;
  };

function startWorker(name: string, task: Task): Worker {
  const worker = new Worker(import.meta.url, { type: "module", name: `${workerName} ${name}` });
  worker.postMessage(task);
  return worker;
}

/** Starts the Worker of rank `index` with a job. */
export function startRank(index: number, job: RankJob): Worker {
  return startWorker(String(index), { kind: "train", job });
}

/** Time allowed for opening a device only to describe it, in ms. */
const describeMilliseconds = 60_000;

/** Opens a device in a Worker and tells what it offers, or why it cannot be opened. */
export function describeInWorker(
  selection: Selection,
  environment: Readonly<Record<string, string>>,
): Promise<AdapterFacts | { readonly reason: string }> {
  return new Promise((resolve) => {
    const worker = startWorker("describe", { kind: "describe", selection, environment });
    const end = (facts: AdapterFacts | { reason: string }) => {
      clearTimeout(patience);
      resolve(facts);
    };
    // A Worker that is stuck in its driver can only be left behind.
    const patience = setTimeout(
      () => end({ reason: "its driver did not answer within a minute: update it, or look at the system's log" }),
      describeMilliseconds,
    );
    worker.onerror = (event) => {
      event.preventDefault();
      end({ reason: event.message });
    };
    worker.onmessage = ({ data }: MessageEvent<AdapterFacts | { reason: string }>) => end(data);
  });
}

if (isRankWorker()) {
  const scope = globalThis as unknown as WorkerScope;
  scope.onmessage = async ({ data }: MessageEvent<Task>) => {
    const post = (message: RankMessage | AdapterFacts | { reason: string }) => scope.postMessage(message);
    try {
      if (data.kind === "train") await (await import("./rank_training.ts")).trainOnRank(data.job, post);
      else post(await (await import("../gpu/list.ts")).adapterFacts(data.selection, data.environment));
    } catch (error) {
      if (data.kind === "train") post({ type: "failed", failure: packFailure(error) });
      else post({ reason: messageOf(error) });
    } finally {
      scope.close();
    }
  };
}
