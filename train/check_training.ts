/**
 * Trains a tiny model for a few steps on a GPU and compares its losses with those that are known.
 * @module
 */

import { messageOf } from "../errors.ts";
import { failed, type Finding, fine } from "./finding.ts";
import { type OwnProcess, runOwn } from "./own_process.ts";
import { supervisedMark } from "./supervisor.ts";
import { lossBounds } from "./verify.ts";

/** Losses of the steps below, in nats per byte, by lavapipe; every conformant device is within `lossBounds.f32`. */
const knownLosses: readonly number[] = [5.551568, 5.056271, 4.669102];
/** Time for the first kernels of a driver and a few steps, in seconds. */
const trainSeconds = 180;

/** The run: nothing of it depends on the machine or its environment. */
const settings =
  "--nodes 1 --dp 1 --tp 1 --pp 1 --tokenizer byte --family llama --layers 2 --heads 2 --width 32 --sequence-length 32 " +
  "--batch-size 4 --steps 3 --learning-rate 0.01 --warmup-steps 0 --lr-schedule constant --seed 1 --eval-interval 0 " +
  "--eval-batches 1 --checkpoint-interval 0 --tune off --json";

/** Text that is neither constant nor noise. */
const text = Array.from({ length: 200 }, (_, i) => `${i * i % 97} whales and ${i * 7 % 31} ships\n`).join("");

/** Trains on GPU `index`, in a process of its own. */
async function trainOn(index: number, seconds: number): Promise<OwnProcess> {
  let folder: string | undefined;
  try {
    folder = Deno.makeTempDirSync({ prefix: "muster-doctor-" });
    Deno.writeTextFileSync(`${folder}/text.txt`, text);
    const places = ["--devices", String(index), "--data", `${folder}/text.txt`, "--out", `${folder}/run`];
    const alone = { MUSTER_NODES: "1", MUSTER_NODE_RANK: "0" };
    const environment = { MUSTER_CACHE: `${folder}/cache`, [supervisedMark]: "1", ...alone };
    return await runOwn(["train", ...settings.split(" "), ...places], environment, seconds);
  } catch (error) {
    const fault = `the folder of temporary files cannot be written (${messageOf(error)}): TMPDIR names another`;
    return { told: [], code: 1, fault };
  } finally {
    if (folder !== undefined) Deno.removeSync(folder, { recursive: true });
  }
}

/** Whether GPU `index` trains, and gets the right numbers. */
export async function checkTraining(
  index: number,
  seconds = trainSeconds,
  run: (index: number, seconds: number) => Promise<OwnProcess> = trainOn,
): Promise<Finding> {
  const name = `GPU ${index} trains`;
  const started = performance.now();
  const { told, fault } = await run(index, seconds);
  const losses = (told as readonly { event?: string; loss?: number }[])
    .filter(({ event }) => event === "step").map(({ loss }) => loss!);
  const update = `update its driver, or leave it out with --devices`;
  if (fault !== undefined) return failed(name, fault.replace(/; no checkpoint was saved yet$/, ""), update);
  const off = losses.map((loss, i) => Math.abs(loss / knownLosses[i] - 1));
  const shown = losses.map((loss) => loss.toFixed(4)).join(", ");
  // What is not a number is not within the bound.
  if (losses.length !== knownLosses.length || !off.every((difference) => difference <= lossBounds.f32)) {
    const right = knownLosses.map((loss) => loss.toFixed(4)).join(", ");
    return failed(
      name,
      `its losses are ${shown}, but must be ${right}`,
      `${update}; MUSTER_SUBGROUPS=off helps where a driver states subgroups wrongly`,
    );
  }
  const took = ((performance.now() - started) / 1e3).toFixed(1);
  return fine(name, `${losses.length} steps in a process of ${took} s, losses as they must be: ${shown}`);
}
