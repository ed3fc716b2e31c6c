/**
 * What limits everything on a device: arithmetic, memory, the cost of a dispatch and of a submit, copies to the host and back.
 * @module
 */

import type { Device } from "../gpu/device.ts";
import { type Chains, type Load, memoryTraffic, timedMultiplyAdds, tinyDispatches, usualChains } from "../gpu/loads.ts";
import type { Ceilings } from "./roofline.ts";
import { type Subject, timeAll, type TimingOptions } from "./timing.ts";

/** Ceilings as measured; rates in flop/s and bytes/s, times in seconds. */
export interface MeasuredCeilings {
  readonly f32FlopsPerSecond: number;
  /** Null where the device does not have `shader-f16`. */
  readonly f16FlopsPerSecond: number | null;
  /** Of a copy by vec4: bytes read and bytes written. */
  readonly copyBytesPerSecond: number;
  readonly readBytesPerSecond: number;
  /** Of a dispatch that does nothing, in a pass of many. */
  readonly dispatchSeconds: number;
  /** Of a submit of one such dispatch, among many. */
  readonly submitSeconds: number;
  /** Host to device. */
  readonly uploadBytesPerSecond: number;
  /** Device to host. */
  readonly readBackBytesPerSecond: number;
}

/** Twelve to sixteen sums a thread, as scalars and as vectors: which is the fastest depends on the driver's compiler. */
const shapes: readonly Chains[] = [
  usualChains,
  { precision: "f32", width: 1, count: 12, unrolled: 16 },
  { precision: "f32", width: 4, count: 4, unrolled: 16 },
];
/** f16 lies in pairs in a register: more chains fit. */
const halfShapes: readonly Chains[] = [
  { precision: "f16", width: 4, count: 3, unrolled: 16 },
  { precision: "f16", width: 2, count: 8, unrolled: 16 },
];
/** Beyond the caches of most devices. */
const trafficBytes = 64 * 2 ** 20;
/** As much as goes to the host or back at a time. */
const transferredBytes = 16 * 2 ** 20;
const dispatches = 256;

/** Something timed that does a known amount of work. */
interface CeilingSubject extends Subject {
  readonly amount: number;
  readonly destroy: () => void;
}

const named = (name: string, load: Load): CeilingSubject => ({ name, ...load });

const arithmetic = (device: Device, chains: Chains) =>
  timedMultiplyAdds(device, chains, device.capabilities.flopsPerSecond);

/** The two ceilings of kernels, to be timed among them: the shares are of what the machine could do in those moments. */
export async function kernelCeilings(device: Device): Promise<{
  readonly subjects: readonly Subject[];
  /** From their median times, in ms. */
  readonly ceilings: (milliseconds: readonly number[]) => Ceilings;
  readonly destroy: () => void;
}> {
  const loads = [await arithmetic(device, usualChains), await memoryTraffic(device, "copy", trafficBytes)];
  const rate = (milliseconds: readonly number[], i: number) => loads[i].amount / (milliseconds[i] / 1e3);
  return {
    subjects: loads.map((load, i) => named(["multiply-adds", "copy"][i], load)),
    ceilings: (milliseconds) => ({ flopsPerSecond: rate(milliseconds, 0), bytesPerSecond: rate(milliseconds, 1) }),
    destroy: () => loads.forEach((load) => load.destroy()),
  };
}

/** Measures all ceilings, interleaved. */
export async function measureCeilings(device: Device, options: TimingOptions): Promise<MeasuredCeilings> {
  const subjects: CeilingSubject[] = [];
  for (const chains of shapes) subjects.push(named("f32", await arithmetic(device, chains)));
  if (device.gpu.features.has("shader-f16")) {
    for (const chains of halfShapes) subjects.push(named("f16", await arithmetic(device, chains)));
  }
  for (const kind of ["copy", "read"] as const) {
    subjects.push(named(kind, await memoryTraffic(device, kind, trafficBytes)));
  }
  subjects.push(named("dispatch", await tinyDispatches(device, dispatches)));
  subjects.push(named("submit", await tinyDispatches(device, 1)));
  const buffer = device.createBuffer(transferredBytes);
  const data = new Float32Array(transferredBytes / 4).fill(1);
  const destroy = () => {};
  const upload = () => {
    device.write(buffer, 0, data);
    // Staging memory is freed behind a submit.
    device.gpu.queue.submit([]);
    device.drain();
  };
  subjects.push({ name: "upload", amount: transferredBytes, run: upload, destroy });
  subjects.push({
    name: "read-back",
    amount: transferredBytes,
    run: () => device.readBack(buffer, 0, data),
    destroy,
  });
  const times = await timeAll(device, subjects, options);
  subjects.forEach((subject) => subject.destroy());
  buffer.destroy();
  const rates = subjects.map(({ name, amount }, i) => ({ name, rate: amount / (times[i] / 1e3) }));
  const best = (wanted: string) => Math.max(...rates.filter(({ name }) => name === wanted).map(({ rate }) => rate));
  const half = best("f16");
  return {
    f32FlopsPerSecond: best("f32"),
    f16FlopsPerSecond: half > 0 ? half : null,
    copyBytesPerSecond: best("copy"),
    readBytesPerSecond: best("read"),
    dispatchSeconds: 1 / best("dispatch"),
    submitSeconds: 1 / best("submit"),
    uploadBytesPerSecond: best("upload"),
    readBackBytesPerSecond: best("read-back"),
  };
}
