/**
 * What a rank's device can do, in the numbers that predictions are made from: measured, assumed, or described by the user.
 * @module
 */

import { type Capabilities, genericCapabilities } from "../gpu/capabilities.ts";
import { memoryOf } from "../gpu/open.ts";
import type { Selection } from "../gpu/select.ts";
import type { Precision } from "../graph/tensor.ts";

/** A rank's device in numbers. */
export interface Hardware {
  /** What plans depend on. */
  readonly capabilities: Capabilities;
  /** Floating-point operations per second in products of matrices. */
  readonly productFlops: number;
  /** Bytes per second that kernels move through device memory. */
  readonly memoryRate: number;
  /** Bytes per second from device to host. */
  readonly readRate: number;
  /** Bytes per second from host to device. */
  readonly writeRate: number;
  /** Overhead of a dispatch, in seconds. */
  readonly dispatchSeconds: number;
  /** Overhead of a read-back, which waits for the device, in seconds. */
  readonly waitSeconds: number;
  /** What it costs, in seconds, that the ranks of a group do not come to a collective at the same moment. */
  readonly meetSeconds: number;
}

/** What products of matrices are assumed to reach of a device's multiply-add rate (docs/performance.md: 0.3 to 0.5). */
const assumedEfficiency = 0.3;

/**
 * Rates where nothing is measured: of GPUs on PCI Express, and of software drivers, whose threads share the cores. What
 * it costs to meet is never measured, since it takes all ranks.
 */
export const assumed = {
  gpu: { readRate: 3e9, writeRate: 3e9, dispatchSeconds: 5e-6, waitSeconds: 2e-4, meetSeconds: 3e-4 },
  cpu: { readRate: 3e9, writeRate: 3e9, dispatchSeconds: 3e-5, waitSeconds: 1e-4, meetSeconds: 1e-3 },
} as const;

/** Floating-point operations that GPUs do in the time of moving a byte; of software drivers, few. */
const flopsPerByte = { gpu: 40, cpu: 8 } as const;

/** For what a device is measured. */
export interface MeasuredWork {
  /** Of the model. */
  readonly width: number;
  readonly precision: Precision;
}

/** A device of which only the multiply-add rate (flop/s) and the memory are known. */
export function assumedHardware(
  known: { name: string; type: "cpu" | "gpu"; flopsPerSecond: number; memoryBytes: number | undefined },
): Hardware {
  const { type, flopsPerSecond } = known;
  return {
    capabilities: { ...genericCapabilities, ...known, subgroupSize: type === "gpu" ? 32 : 8, workgroupStorage: 32768 },
    productFlops: flopsPerSecond * assumedEfficiency,
    memoryRate: flopsPerSecond / flopsPerByte[type],
    ...assumed[type],
  };
}

/** Multiply-add rates by kind of device, flop/s; for choosing a mesh only their ratio to copies matters. */
const nominalFlops = { discrete: 1e13, integrated: 1e12, virtual: 1e12, other: 1e12 } as const;
const flopsPerCore = 4e10;

/** A device as the driver lists it, unopened. */
export function nominalHardware(selection: Selection): Hardware {
  const { device } = selection;
  const kind = device?.type ?? "other";
  const name = device?.name ?? "GPU";
  if (kind !== "software") {
    return assumedHardware({
      name,
      type: "gpu",
      flopsPerSecond: nominalFlops[kind],
      memoryBytes: memoryOf(selection),
    });
  }
  return assumedHardware({
    name,
    type: "cpu",
    flopsPerSecond: flopsPerCore * navigator.hardwareConcurrency,
    memoryBytes: Deno.systemMemoryInfo().available,
  });
}

/** The devices of ranks, each with its share where several ranks are on one; software drivers share the same cores. */
export function shareHardware(ranks: readonly { index: number; hardware: Hardware }[]): Hardware[] {
  const place = ({ index, hardware }: typeof ranks[number]) =>
    hardware.capabilities.type === "cpu" ? "host" : String(index);
  return ranks.map((rank) => {
    const { hardware } = rank;
    const sharers = ranks.filter((other) => place(other) === place(rank)).length;
    const { memoryBytes, flopsPerSecond } = hardware.capabilities;
    return {
      ...hardware,
      capabilities: {
        ...hardware.capabilities,
        flopsPerSecond: flopsPerSecond / sharers,
        memoryBytes: memoryBytes === undefined ? undefined : Math.floor(memoryBytes / sharers),
      },
      productFlops: hardware.productFlops / sharers,
      memoryRate: hardware.memoryRate / sharers,
      readRate: hardware.readRate / sharers,
      writeRate: hardware.writeRate / sharers,
    };
  });
}
