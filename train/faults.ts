/**
 * Faults on purpose, for tests only: `MUSTER_FAULT=rank=1,step=4,kind=hang` has rank 1 stop answering in step 4.
 *
 * - `rank`: which rank;
 * - `step`: in which step, 0 for before its device is opened; `to`: the last such step (if left out the same);
 * - `at`: `step` (if left out) for the middle of the step, `checkpoint` for the checkpoint behind it;
 * - `kind`: `throw` an error; `hang` inside native code, as in a driver; `lose` the device; `exit` without a word;
 *   `slow:7` sleeps so many seconds and goes on.
 * @module
 */

import type { Device } from "../gpu/device.ts";

/** A place where a fault may be. */
export interface FaultPlace {
  readonly rank: number;
  readonly step: number;
  readonly at: "step" | "checkpoint";
  /** To lose, where there is one. */
  readonly device?: Device;
}

const variable = "MUSTER_FAULT";
let known: Readonly<Record<string, string>> | undefined;

/** Blocks this thread where no other can reach it. */
function sleepInNativeCode(seconds: number): void {
  const name = Deno.build.os === "darwin" ? "libSystem.dylib" : "libc.so.6";
  const library = Deno.dlopen(name, { usleep: { parameters: ["u32"], result: "i32" } });
  library.symbols.usleep(1e6 * seconds);
  library.close();
}

/** Does what `MUSTER_FAULT` asks for here; nothing without it. */
export function faultAt({ rank, step, at, device }: FaultPlace): void {
  const wanted = known ??= Object.fromEntries((Deno.env.get(variable) ?? "").split(",").map((part) => part.split("=")));
  const first = Number(wanted.step);
  if (Number(wanted.rank) !== rank || (wanted.at ?? "step") !== at) return;
  if (!(step >= first && step <= Number(wanted.to ?? first))) return;
  const [kind, seconds] = wanted.kind.split(":");
  if (kind === "throw") throw new Error(`${variable} asked for this`);
  if (kind === "hang") sleepInNativeCode(3600);
  if (kind === "slow") sleepInNativeCode(Number(seconds));
  if (kind === "lose") device?.gpu.destroy();
  if (kind === "exit") globalThis.close();
}
