/** A rank in a Worker that counts, in the steps between two, what is made on its hot path. */

import { Session } from "node:inspector";
import type { RankJob, RankMessage } from "../../train/rank_protocol.ts";

/** What to do, and between the ends of which steps to count. */
export interface CountingTask {
  readonly job: RankJob;
  readonly from: number;
  readonly to: number;
  /** Makes some of each kind on purpose: what counts must see it. */
  readonly wastes: boolean;
}

/** What was made between these steps. */
export interface Counted {
  /** Calls of `create…` by which a device makes something that lasts, by name; command encoders are made anew for each submit. */
  readonly objects: Readonly<Record<string, number>>;
  /** Arrays, buffers and objects above 1 KiB, with their bytes and where they were made. */
  readonly large: readonly string[];
  /** Bytes that Deno copied out of mapped buffers. */
  readonly mappedBytes: number;
  /** Bytes uploaded. */
  readonly uploadedBytes: number;
  /** Bytes of small objects in V8's heap, those included that are garbage by now. */
  readonly heapBytes: number;
}

const limit = 1024;
let counting = false;
const objects: Record<string, number> = {};
const large: string[] = [];
let mappedBytes = 0;
let uploadedBytes = 0;

function noteLarge(what: string, bytes: number): void {
  if (counting && bytes > limit) large.push(`${what} of ${bytes} bytes ${new Error().stack?.split("\n").slice(3, 6)}`);
}

/** Has a method call `before` with its arguments first. */
function intercept(prototype: object, name: string, before: (...values: unknown[]) => void): void {
  const original = Reflect.get(prototype, name) as (...values: unknown[]) => unknown;
  Reflect.set(prototype, name, function (this: unknown, ...values: unknown[]) {
    before(...values);
    return original.apply(this, values);
  });
}

/** What the device makes, from whichever module. */
function countObjects(): void {
  for (const name of Object.getOwnPropertyNames(GPUDevice.prototype)) {
    if (!name.startsWith("create") || name === "createCommandEncoder") continue;
    intercept(GPUDevice.prototype, name, () => {
      if (counting) objects[name] = (objects[name] ?? 0) + 1;
    });
  }
  intercept(GPUBuffer.prototype, "getMappedRange", (_, size) => {
    if (counting) mappedBytes += size as number;
  });
  intercept(GPUQueue.prototype, "writeBuffer", (_, __, data) => {
    if (counting) uploadedBytes += (data as ArrayBufferView).byteLength;
  });
}

/** Typed arrays with memory of their own lie outside of V8's heap. `slice` and the like ask a prototype's constructor. */
function countBuffers(): void {
  const names = [
    ...["ArrayBuffer", "SharedArrayBuffer", "Float32Array", "Float64Array", "Uint8Array", "Int8Array", "Uint16Array"],
    ...[
      "Int16Array",
      "Uint32Array",
      "Int32Array",
      "BigInt64Array",
      "BigUint64Array",
      "Uint8ClampedArray",
      "Float16Array",
    ],
  ];
  for (const name of names) {
    const original = Reflect.get(globalThis, name) as new (...values: unknown[]) => { readonly byteLength: number };
    const counted: typeof original = new Proxy(original, {
      construct(target, values, newTarget): ArrayBufferLike {
        const made = Reflect.construct(target, values, newTarget === counted ? target : newTarget);
        const isView = values[0] instanceof ArrayBuffer || values[0] instanceof SharedArrayBuffer;
        if (!isView) noteLarge(name, made.byteLength);
        return made;
      },
    });
    Reflect.set(globalThis, name, counted);
    original.prototype.constructor = counted;
  }
}

interface HeapNode {
  readonly id: number;
  readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number };
  readonly children: readonly HeapNode[];
}

interface HeapProfile {
  readonly head: HeapNode;
  readonly samples: readonly { readonly size: number; readonly nodeId: number }[];
}

const session = new Session();
/** V8 does what is asked at once; its answer comes in a later turn. */
function ask(method: string, options: object = {}): Promise<unknown> {
  return new Promise((resolve, reject) =>
    session.post(method, options, (error: unknown, result: unknown) => error ? reject(error) : resolve(result))
  );
}

/** Everything else is in V8's heap: its profiler sees each allocation, with the place where it was made. */
function heapOf({ head, samples }: HeapProfile, steps: number): { bytes: number; large: string[] } {
  const places = new Map<number, string>();
  const walk = ({ id, callFrame: { functionName, url, lineNumber }, children }: HeapNode, path: string) => {
    const place = `${path} > ${functionName} ${url.split("/").pop()}:${lineNumber + 1}`;
    // What this test itself makes is not counted, nor what Deno's event loop makes of promises left behind, every 2 s.
    places.set(
      id,
      /^ > \(root\) :0 > __eventLoopTick [\w.:]+$|noteLarge|#onMessage|getSamplingProfile|inspector/.test(place)
        ? ""
        : place,
    );
    for (const child of children) walk(child, place);
  };
  walk(head, "");
  const counted = samples.filter(({ nodeId }) => places.get(nodeId));
  // V8 itself now and then keeps notes of a function for its compiler: what is made every other step is no such thing.
  const found = new Map<string, number>();
  for (const { size, nodeId } of counted) {
    const place = places.get(nodeId)!;
    if (size > limit) found.set(place, (found.get(place) ?? 0) + 1);
  }
  return {
    bytes: counted.reduce((sum, { size }) => sum + size, 0),
    large: [...found].filter(([, times]) => times >= steps / 2).map(([place, times]) => `${times} objects at${place}`),
  };
}

/** One of each kind, for the count to find. */
function waste(): unknown {
  return [new Float32Array(1000).slice(1), new ArrayBuffer(4096), Array.from({ length: 500 }, (_, i) => i)];
}

interface Scope {
  onmessage: ((event: MessageEvent<CountingTask>) => void) | null;
  postMessage(message: RankMessage | { type: "counted"; counted: Counted }): void;
  close(): void;
}

if ("WorkerGlobalScope" in globalThis) {
  const scope = globalThis as unknown as Scope;
  scope.onmessage = async ({ data: { job, from, to, wastes } }) => {
    countObjects();
    countBuffers();
    session.connect();
    await ask("HeapProfiler.enable");
    const { trainOnRank } = await import("../../train/rank_training.ts");
    const { RunStatus } = await import("../../parallel/status.ts");
    // Every rank enters the sum of losses once a step.
    const wasted: unknown[] = [];
    let steps = job.firstStep;
    let answer: Promise<unknown> | undefined;
    intercept(RunStatus.prototype, "entering", (_, what) => {
      if (what !== "the sum of losses") return;
      steps++;
      if (wastes && counting) wasted.push(waste());
      if (steps === from) {
        void ask("HeapProfiler.startSampling", {
          samplingInterval: 32,
          includeObjectsCollectedByMajorGC: true,
          includeObjectsCollectedByMinorGC: true,
        });
        counting = true;
      } else if (steps === to) {
        counting = false;
        answer = ask("HeapProfiler.getSamplingProfile");
      }
    });
    await trainOnRank(job, (message) => scope.postMessage(message));
    const heap = heapOf((await answer as { profile: HeapProfile }).profile, to - from);
    const counted = { objects, large: [...large, ...heap.large], mappedBytes, uploadedBytes, heapBytes: heap.bytes };
    scope.postMessage({ type: "counted", counted });
    session.disconnect();
    scope.close();
  };
}
