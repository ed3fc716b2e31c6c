/**
 * What the machines of a run must have alike, and what they tell each other of themselves.
 * @module
 */

import { createHash } from "node:crypto";
import { hashFile } from "../data/token_file.ts";
import { MachineError, UserError } from "../errors.ts";
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
  "precision",
  "lossScale",
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
  "commTune",
  "commAlgorithm",
  "connections",
  "sequenceParallel",
];

/** Links between each two machines: one for the run's own numbers, and one for each group of ranks that sum gradients. */
function lanesOf({ mesh: { pipeline, tensor }, picked: { connections } }: PreparedRun): number {
  return (1 + pipeline * tensor) * connections;
}

/** What tells the weights that a run starts from; those of a state that it goes on from have a name of their own. */
export async function nameWeights({ initFolder: folder }: PreparedRun): Promise<string> {
  if (folder === undefined) return "from --seed";
  const files = [...Deno.readDirSync(folder)].map(({ name }) => name).filter((name) => name.endsWith(".safetensors"));
  const hashes = await Promise.all(files.sort().map((name) => hashFile(`${folder}/${name}`)));
  return createHash("sha256").update(hashes.join()).digest("hex");
}

/** What must be the same on all machines, by the names under which a difference is told. */
function describeRun(prepared: PreparedRun): Record<string, string> {
  const { picked, configuration, sequenceLength, dataHash, mesh } = prepared;
  const model = Object.entries(configuration).map(([name, value]) => [`model ${name}`.slice(0, 64), String(value)]);
  // Gradients that are sharded are summed in every micro-batch, which all must then have as many of.
  const names: readonly SettingName[] = picked.zero < "2" ? common : [...common, "microBatchSize", "microBatches"];
  const settings = names.map((name) => [`--${flagName(name)}`, String(picked[name])]);
  // Copies of the model that share out its state do so alike everywhere.
  const copies = picked.zero === "0" ? 1 : mesh.data;
  return {
    version,
    ...Object.fromEntries(model),
    "sequence length": String(sequenceLength),
    data: dataHash,
    "mesh of a machine": nameMesh({ ...mesh, data: copies }),
    ...Object.fromEntries(settings),
  };
}

/** What a machine starts from or goes on from: names of weights and state. */
export interface OwnState {
  readonly weights: string;
  readonly state: string;
}

/** What this machine brings to a meeting. */
export function offerOf(prepared: PreparedRun, own: OwnState): Offer {
  const { mesh, selections, unequal } = prepared;
  const kinds = selections.map(({ device }) => `${device?.name} ${device?.deviceId}`);
  const hash = createHash("sha256").update(kinds.sort().join("\n")).digest("hex");
  const copies = String(mesh.data);
  const facts = { copies, ranks: String(worldSize(mesh)), devices: hash, unequal: String(unequal), ...own };
  return { description: describeRun(prepared), facts, lanes: lanesOf(prepared) };
}

/** Most copies of a model, ranks or steps that a machine may tell of. */
const most = { count: 4096, steps: Number.MAX_SAFE_INTEGER };

/** A whole number that a machine has told at the beginning of a fact; MachineError if it is none. */
function toldBy(machine: string, fact: string | undefined, range: readonly [least: number, most: number]): number {
  const number = Number(/^\d+(?= |$)/.exec(fact ?? "")?.[0] ?? NaN);
  if (number >= range[0] && number <= range[1]) return number;
  throw new MachineError(`${machine} told "${fact?.slice(0, 40)}" of itself, from which nothing can be made`);
}

/** The world that was met, as ranks need to know it. MachineError if a machine told what cannot be. */
export function worldOf({ id, rank, size, machines, facts }: MetWorld): RunWorld {
  const count = (fact: string, i: number) => toldBy(machines[i], fact, [1, most.count]);
  return {
    id,
    machine: { rank, size },
    names: machines,
    copies: facts.map(({ copies }, i) => count(copies, i)),
    ranks: facts.map(({ ranks }, i) => count(ranks, i)),
    unequal: facts.some(({ unequal, devices }) => unequal === "true" || devices !== facts[0].devices),
  };
}

/**
 * Who has the newest state, and whether others lack it. A state's name begins with its number of steps. Of a run that was
 * under way its members' count, not what somebody brings along. `UserError` if nobody has one and the machines would start
 * from different weights, MachineError if a machine told what cannot be.
 */
export function newestState(
  { machines, facts, survivors }: MetWorld,
): { root: number; step: number; name: string; lacking: boolean } {
  const counts = (rank: number) => survivors.length === 0 || survivors.includes(rank);
  const steps = facts.map(({ state }, rank) => counts(rank) ? toldBy(machines[rank], state, [0, most.steps]) : -1);
  const step = Math.max(...steps);
  const root = steps.indexOf(step);
  const name = facts[root].state;
  const other = facts.findIndex(({ weights }) => weights !== facts[0].weights);
  if (step === 0 && other > 0) {
    throw new UserError(
      `The machines do not start from the same weights: give ${machines[other]} the --init of ${machines[0]}`,
    );
  }
  return { root, step, name, lacking: facts.some(({ state }) => state !== name) };
}
