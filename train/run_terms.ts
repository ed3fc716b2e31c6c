/**
 * What the machines of a run must have alike, and what they tell each other of themselves.
 * @module
 */

import { createHash } from "node:crypto";
import { hashFile } from "../data/token_file.ts";
import type { Offer } from "../network/node.ts";
import { nameMesh, worldSize } from "../parallel/mesh.ts";
import type { MetWorld } from "./network_protocol.ts";
import type { PreparedRun } from "./prepare_run.ts";
import type { RunWorld } from "./run_world.ts";
import { flagName, type SettingName } from "./settings.ts";
import { version } from "./version.ts";

/** Settings that change what is computed, or when ranks of different machines speak to each other. */
const common: readonly SettingName[] = [
  "batchSize",
  "steps",
  "learningRate",
  "minLearningRate",
  "warmupSteps",
  "lrSchedule",
  "weightDecay",
  "beta1",
  "beta2",
  "epsilon",
  "clip",
  "dropout",
  "seed",
  "evalInterval",
  "evalBatches",
  "checkpointInterval",
  "commitSteps",
  "zero",
  "balance",
  "bucketMb",
  "gradCompression",
  "sequenceParallel",
];

/** Links between each two machines: one for the run's own numbers, and one for each group of ranks that sum gradients. */
function lanesOf({ mesh: { pipeline, tensor } }: PreparedRun): number {
  return 1 + pipeline * tensor;
}

/** SHA-256 of the weights that a run starts from. */
async function hashWeights(folder: string): Promise<string> {
  const files = [...Deno.readDirSync(folder)].map(({ name }) => name).filter((name) => name.endsWith(".safetensors"));
  const hashes = await Promise.all(files.sort().map((name) => hashFile(`${folder}/${name}`)));
  return hashes.join(" ").slice(0, 1000);
}

/** What must be the same on all machines, by the names under which a difference is told. */
export async function describeRun(prepared: PreparedRun): Promise<Record<string, string>> {
  const { picked, configuration, sequenceLength, dataHash, mesh, initFolder } = prepared;
  const model = Object.entries(configuration).map(([name, value]) => [`model ${name}`.slice(0, 64), String(value)]);
  const settings = common.map((name) => [`--${flagName(name)}`, String(picked[name])]);
  // Copies of the model that share out its state do so alike everywhere.
  const copies = picked.zero === "0" ? 1 : mesh.data;
  return {
    version,
    ...Object.fromEntries(model),
    "sequence length": String(sequenceLength),
    data: dataHash,
    "mesh of a machine": nameMesh({ ...mesh, data: copies }),
    weights: initFolder === undefined ? "from --seed" : await hashWeights(initFolder),
    ...Object.fromEntries(settings),
  };
}

/** What this machine brings to a meeting. `state` names the state that it has. */
export function offerOf(prepared: PreparedRun, description: Record<string, string>, state: string): Offer {
  const { mesh, selections, unequal } = prepared;
  const kinds = selections.map(({ device }) => `${device?.name} ${device?.deviceId}`);
  const hash = createHash("sha256").update(kinds.sort().join("\n")).digest("hex");
  const copies = String(mesh.data);
  const facts = { copies, ranks: String(worldSize(mesh)), devices: hash, unequal: String(unequal), state };
  return { description, facts, lanes: lanesOf(prepared) };
}

/** The world that was met, as ranks need to know it. */
export function worldOf({ id, rank, size, machines, facts }: MetWorld): RunWorld {
  return {
    id,
    machine: { rank, size },
    names: machines,
    copies: facts.map(({ copies }) => Number(copies)),
    ranks: facts.map(({ ranks }) => Number(ranks)),
    unequal: facts.some(({ unequal, devices }) => unequal === "true" || devices !== facts[0].devices),
  };
}

/** Who has the newest state, and whether others lack it. A state's name begins with its number of steps. */
export function newestState({ facts }: MetWorld): { root: number; step: number; name: string; lacking: boolean } {
  const steps = facts.map(({ state }) => parseInt(state));
  const step = Math.max(...steps);
  const root = steps.indexOf(step);
  const name = facts[root].state;
  return { root, step, name, lacking: step > 0 && facts.some(({ state }) => state !== name) };
}
