/**
 * A Worker with a device: a rank that trains or generates, or one that only tells what its device is or does. A rank has
 * one device, in a Worker of its own. Its loop is straight-line code, since waiting for the device blocks the thread; the
 * coordinator is told by messages and speaks through shared memory.
 *
 * The Worker is started from this very module, so that one file holds everything: bundled or compiled, `import.meta.url`
 * is the whole program, which recognizes by its name that it is a Worker.
 * @module
 */

import { messageOf } from "../errors.ts";
import type { AdapterFacts } from "../gpu/list.ts";
import type { Selection } from "../gpu/select.ts";
import type { GenerationJob } from "./generation_job.ts";
import type { Hardware, MeasuredWork } from "./hardware.ts";
import type { NetworkMessage, NetworkOptions, NetworkOrder } from "./network_protocol.ts";
import type { ClassTuning, Tuning, TuningMode } from "../kernels/tune_matmul.ts";
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

/** What a rank is to do. */
export type RankTask =
  | { readonly kind: "train"; readonly job: RankJob }
  | { readonly kind: "generate"; readonly job: GenerationJob };

/** What a Worker is to do besides: open a device and describe, measure or tune it. */
type LookTask =
  | { readonly kind: "describe"; readonly selection: Selection }
  | { readonly kind: "measure"; readonly selection: Selection; readonly work: MeasuredWork }
  | {
    readonly kind: "tune";
    readonly selection: Selection;
    readonly mode: TuningMode;
    readonly before: readonly ClassTuning[];
  };

/** What a Worker is to do that has links to other machines; orders follow. */
interface NetworkTask {
  readonly kind: "network";
  readonly options: NetworkOptions;
}

type Task = RankTask | LookTask | NetworkTask;

function startWorker(name: string, task: Task): Worker {
  const worker = new Worker(import.meta.url, { type: "module", name: `${workerName} ${name}` });
  worker.postMessage(task);
  return worker;
}

/** Starts the Worker of rank `index` with its task. */
export function startRank(index: number, task: RankTask): Worker {
  return startWorker(String(index), task);
}

/** Starts the Worker that has the links to other machines. */
export function startNetwork(options: NetworkOptions): Worker {
  return startWorker("network", { kind: "network", options });
}

/** Orders that come to a Worker behind its task. */
async function* ordersOf(scope: WorkerScope): AsyncGenerator<NetworkOrder> {
  const orders: NetworkOrder[] = [];
  let wake = () => {};
  scope.onmessage = ({ data }: MessageEvent<NetworkOrder>) => {
    orders.push(data);
    wake();
  };
  for (;;) {
    while (orders.length > 0) yield orders.shift()!;
    await new Promise<void>((resolve) => wake = resolve);
  }
}

/** Time allowed for opening a device only to look at it, in ms. */
const lookMilliseconds = 60_000;
/** Time allowed for tuning one, in ms. */
const tuneMilliseconds = 240_000;

/** Has a Worker look at a device; tells what it found, or why the device cannot be opened. */
function look<T>(task: LookTask): Promise<T | { readonly reason: string }> {
  return new Promise((resolve) => {
    const worker = startWorker(task.kind, task);
    const end = (found: T | { reason: string }) => {
      clearTimeout(patience);
      resolve(found);
    };
    // A Worker that is stuck in its driver can only be left behind.
    const patience = setTimeout(
      () => end({ reason: "its driver did not answer in time: update it, or look at the system's log" }),
      task.kind === "tune" ? tuneMilliseconds : lookMilliseconds,
    );
    worker.onerror = (event) => {
      event.preventDefault();
      end({ reason: event.message });
    };
    worker.onmessage = ({ data }: MessageEvent<T | { reason: string }>) => end(data);
  });
}

/** Opens a device in a Worker and tells what it offers, or why it cannot be opened. */
export function describeInWorker(selection: Selection): Promise<AdapterFacts | { readonly reason: string }> {
  return look({ kind: "describe", selection });
}

/** Opens a device in a Worker and tells how fast it is at a model of `width`, or why it cannot be opened. */
export function measureInWorker(
  selection: Selection,
  work: MeasuredWork,
): Promise<Hardware | { readonly reason: string }> {
  return look({ kind: "measure", selection, work });
}

/** Opens a device in a Worker and tunes it, from what was found before on, or tells why it cannot be. */
export function tuneInWorker(
  selection: Selection,
  mode: TuningMode,
  before: readonly ClassTuning[],
): Promise<Tuning | { readonly reason: string }> {
  return look({ kind: "tune", selection, mode, before });
}

if (isRankWorker()) {
  const scope = globalThis as unknown as WorkerScope;
  scope.onmessage = async ({ data }: MessageEvent<Task>) => {
    type Told = RankMessage | NetworkMessage | AdapterFacts | Hardware | Tuning | { reason: string };
    const post = (message: Told) => scope.postMessage(message);
    try {
      if (data.kind === "network") {
        await (await import("./network_worker.ts")).runNetwork(data.options, ordersOf(scope), post);
      } else if (data.kind === "train") await (await import("./rank_training.ts")).trainOnRank(data.job, post);
      else if (data.kind === "generate") {
        await (await import("./rank_generation.ts")).generateOnRank(data.job, post);
      } else if (data.kind === "measure") {
        post(await (await import("./measure.ts")).measureHardware(data.selection, data.work));
      } else if (data.kind === "tune") {
        post(await (await import("./tuning_worker.ts")).tuneDevice(data.selection, data.mode, data.before));
      } else post(await (await import("../gpu/list.ts")).adapterFacts(data.selection));
    } catch (error) {
      if ("job" in data || data.kind === "network") post({ type: "failed", failure: packFailure(error) });
      else post({ reason: messageOf(error) });
    } finally {
      scope.close();
    }
  };
}
