/** The shared-memory all-reduce alone, without devices: two threads, against a plain copy of the same bytes. */

import { createGroup, type GroupSetup } from "../parallel/group_setup.ts";
import { Group } from "../parallel/shared_memory.ts";
import { createStatusMemory, RunStatus } from "../parallel/status.ts";
import { finishSum } from "../parallel/summands.ts";

/** Plain data for the other thread. */
interface Setup {
  readonly group: GroupSetup;
  readonly status: SharedArrayBuffer;
  readonly elements: number;
  readonly rounds: number;
}

/** What was measured. */
export interface AllReduceResult {
  readonly bytes: number;
  /** Median bytes that each rank moves in a second: 2 (n - 1) / n of the bytes, n = 2. */
  readonly bytesPerSecond: number;
  /** Median of a plain copy by both threads at once, for each. */
  readonly copyBytesPerSecond: number;
  readonly share: number;
}

const median = (values: number[]) => [...values].sort((a, b) => a - b)[values.length >> 1];

/** Rounds of an all-reduce and a copy in turn; both threads do the same at the same time. */
function play({ group: setup, status, elements, rounds }: Setup, rank: number): { reduce: number[]; copy: number[] } {
  const group = new Group(setup, rank, new RunStatus(status), () => 60_000);
  const source = new Float32Array(elements).fill(rank + 1);
  const target = new Float32Array(elements);
  const times = { reduce: [] as number[], copy: [] as number[] };
  for (let round = 0; round < rounds; round++) {
    // A device's read-back ends in this memory, so what is timed begins there, and ends where an upload would begin.
    group.next();
    group.own.set(source);
    group.sumNumbers([0]);
    group.next();
    let start = performance.now();
    finishSum(group, elements, (sum) => target.set(sum));
    times.reduce.push(performance.now() - start);
    if (target[elements - 1] !== 3) throw new Error(`The sum is ${target[elements - 1]} instead of 3`);
    group.sumNumbers([0]);
    start = performance.now();
    target.set(source);
    times.copy.push(performance.now() - start);
  }
  return times;
}

if ("WorkerGlobalScope" in globalThis) {
  const scope = globalThis as unknown as { onmessage: (event: MessageEvent<Setup>) => void; close(): void };
  scope.onmessage = ({ data }) => {
    play(data, 1);
    scope.close();
  };
}

/** Measures an all-reduce of `bytes`. */
export function measureAllReduce(bytes: number, rounds = 9): AllReduceResult {
  const elements = bytes / 4;
  const setup: Setup = {
    group: createGroup([0, 1], elements),
    status: createStatusMemory(2),
    elements,
    rounds,
  };
  const worker = new Worker(import.meta.url, { type: "module" });
  worker.postMessage(setup);
  const { reduce, copy } = play(setup, 0);
  const bytesPerSecond = bytes / median(reduce.slice(1)) * 1e3;
  const copyBytesPerSecond = bytes / median(copy.slice(1)) * 1e3;
  return { bytes, bytesPerSecond, copyBytesPerSecond, share: bytesPerSecond / copyBytesPerSecond };
}
