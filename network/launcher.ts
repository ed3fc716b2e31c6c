/**
 * What a launcher of parallel programs tells each process by its environment: how many there are, which one it is, and where
 * they can meet. Each process is a node of the run.
 *
 * Sources: srun(1), "OUTPUT ENVIRONMENT VARIABLES"; mpirun(1) of Open MPI 4 and 5; Hydra of MPICH and Intel MPI;
 * Kubernetes' Job with `completionMode: Indexed`. What they really set is recorded in this module's test.
 * @module
 */

import { UserError } from "../errors.ts";
import { expandCounts, expandNodeList } from "./node_list.ts";

/** Variables by name, like `Deno.env`. */
export interface Environment {
  get(name: string): string | undefined;
}

/** The place of a process among those that a launcher started. */
export interface LaunchedPlace {
  readonly launcher: "Slurm" | "Open MPI" | "MPICH" | "Kubernetes";
  /** Processes of the run, at least 2. */
  readonly nodes: number;
  readonly nodeRank: number;
  /** `host:port` of node 0; undefined if the environment does not tell where that is. */
  readonly rendezvous: string | undefined;
  /** This process among those of its machine. */
  readonly localRank: number;
  /** Processes of its machine. */
  readonly localSize: number;
}

/** Ports for meetings: below the ephemeral ones (32768 and up on Linux) and Kubernetes' node ports (30000 and up). */
const firstPort = 20000;
const portCount = 10000;

/** A port for the meeting of one job, the same for all its processes and hardly that of another job (FNV-1a). */
export function meetingPort(job: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(job)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return firstPort + hash % portCount;
}

/**
 * The place that the launcher gives this process; undefined where there is no launcher, or it started only one.
 *
 * @throws UserError if the launcher's variables are incomplete or contradict each other
 */
export function launchedPlace(environment: Environment): LaunchedPlace | undefined {
  // mpirun may have started its helpers by srun, so what it says comes first.
  const place = openMpi(environment) ?? mpich(environment) ?? slurm(environment) ?? kubernetes(environment);
  if (place === undefined || place.nodes === 1) return undefined;
  const { launcher, nodes, nodeRank, localRank, localSize } = place;
  if (nodeRank >= nodes) throw new UserError(`${launcher} says that this is process ${nodeRank} of ${nodes}, from 0`);
  if (localRank >= localSize || localSize > nodes) {
    throw new UserError(
      `${launcher} says that this is process ${localRank} of ${localSize} on its machine, from 0, and there are ${nodes}`,
    );
  }
  return place;
}

/** The variable's text, which must be there. */
function needed(environment: Environment, launcher: string, name: string): string {
  const value = environment.get(name);
  if (value !== undefined && value !== "") return value;
  throw new UserError(
    `The environment is that of ${launcher}, but ${name} is missing: start this by the launcher itself, or give --nodes, ` +
      `--rendezvous and --node-rank`,
  );
}

function neededWhole(environment: Environment, launcher: string, name: string): number {
  const value = needed(environment, launcher, name);
  if (/^\d{1,9}$/.test(value)) return Number(value);
  throw new UserError(`${name} is ${JSON.stringify(value)}, but must be a whole number, at least 0`);
}

/** Where processes of one job meet: on their own machine if there is only one, else at `host`, where node 0 is. */
function meetingPlace(alone: boolean, host: string | undefined, job: string): string | undefined {
  const name = alone ? "127.0.0.1" : host;
  return name === undefined ? undefined : `${name.includes(":") ? `[${name}]` : name}:${meetingPort(job)}`;
}

function slurm(environment: Environment): LaunchedPlace | undefined {
  const launcher = "Slurm";
  const step = environment.get("SLURM_STEP_ID");
  // A batch script and the shell of salloc know the job's size, but are no tasks: only steps of srun have a number.
  if (step === undefined || !(Number(step) < firstSpecialStep)) return undefined;
  const nodes = neededWhole(environment, launcher, "SLURM_STEP_NUM_TASKS");
  // A batch script that a task submitted inherits the step of that task, but its own number of tasks.
  if (nodes < 2 || environment.get("SLURM_NTASKS") !== String(nodes)) return undefined;
  const [host] = expandNodeList(needed(environment, launcher, "SLURM_STEP_NODELIST"));
  const counts = expandCounts(needed(environment, launcher, "SLURM_STEP_TASKS_PER_NODE"));
  const own = neededWhole(environment, launcher, "SLURM_NODEID");
  const localSize = counts[own] ?? 0;
  const sum = counts.reduce((total, count) => total + count, 0);
  if (sum !== nodes) {
    throw new UserError(
      `Slurm says that there are ${nodes} tasks, and that its machines have ${counts.join(", ")} of them`,
    );
  }
  // The list is sorted; a distribution by hand may have put task 0 on any of its hosts.
  const byHand = environment.get("SLURM_DISTRIBUTION")?.startsWith("arbitrary") === true;
  const job = `${needed(environment, launcher, "SLURM_JOB_ID")}.${step}`;
  return {
    launcher,
    nodes,
    nodeRank: neededWhole(environment, launcher, "SLURM_PROCID"),
    rendezvous: meetingPlace(localSize === nodes, byHand ? undefined : host, job),
    localRank: neededWhole(environment, launcher, "SLURM_LOCALID"),
    localSize,
  };
}

/** Steps from here on are Slurm's own: the batch script's, the interactive shell's. */
const firstSpecialStep = 0xfffffff0;

function openMpi(environment: Environment): LaunchedPlace | undefined {
  if (environment.get("OMPI_COMM_WORLD_RANK") === undefined) return undefined;
  const launcher = "Open MPI";
  const whole = (name: string) => neededWhole(environment, launcher, `OMPI_COMM_WORLD_${name}`);
  const [nodes, nodeRank, localRank, localSize] = ["SIZE", "RANK", "LOCAL_RANK", "LOCAL_SIZE"].map(whole);
  const job = environment.get("PMIX_NAMESPACE") ?? environment.get("OMPI_MCA_ess_base_jobid") ?? launcher;
  // What is known is the host of mpirun, whose helper there is number 0; node 0 can tell whether it is there too.
  const elsewhere = nodeRank === 0 && !/\.0;/.test(environment.get("PMIX_SERVER_URI2") ?? "");
  const host = elsewhere ? undefined : hostOfMpirun(environment, job);
  return {
    launcher,
    nodes,
    nodeRank,
    rendezvous: meetingPlace(localSize === nodes, host, job),
    localRank,
    localSize,
  };
}

/** An address of the host of mpirun (Open MPI 4: `123.0;tcp://10.0.0.1,10.1.0.1:4567`), or its name (5: in the job's). */
function hostOfMpirun(environment: Environment, job: string): string | undefined {
  const [, four, six] = /;tcp6?:\/\/(?:\[([^\],]+)|([^,:[]+))/.exec(environment.get("OMPI_MCA_orte_hnp_uri") ?? "") ??
    [];
  return four ?? six ?? /^prte(?:run)?-(.+)-\d+@\d+$/.exec(job)?.[1];
}

function mpich(environment: Environment): LaunchedPlace | undefined {
  // Slurm sets PMI_RANK too (--mpi=pmi2), but not the rank on the machine by this name.
  if (environment.get("PMI_RANK") === undefined || environment.get("MPI_LOCALRANKID") === undefined) return undefined;
  const launcher = "MPICH";
  const [nodes, nodeRank, localRank, localSize] = ["PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"].map(
    (name) => neededWhole(environment, launcher, name),
  );
  // It tells nobody where the others are, and only Intel's names the job.
  const job = environment.get("I_MPI_HYDRA_UUID") ?? launcher;
  const rendezvous = meetingPlace(localSize === nodes, undefined, job);
  return { launcher, nodes, nodeRank, rendezvous, localRank, localSize };
}

function kubernetes(environment: Environment): LaunchedPlace | undefined {
  // The pods of an Indexed Job need not belong together: only the manifest can say so.
  const index = environment.get("JOB_COMPLETION_INDEX");
  if (index === undefined || environment.get("MUSTER_NODES") === undefined) return undefined;
  const launcher = "Kubernetes";
  return {
    launcher,
    nodes: neededWhole(environment, launcher, "MUSTER_NODES"),
    nodeRank: neededWhole(environment, launcher, "JOB_COMPLETION_INDEX"),
    rendezvous: environment.get("MUSTER_RENDEZVOUS"),
    localRank: 0,
    localSize: 1,
  };
}

/**
 * Which of its machine's `count` GPUs a process uses, as indices: every `localSize`th from `localRank` on. Where there are
 * fewer GPUs than processes, several processes use one.
 */
export function shareOfDevices(count: number, localRank: number, localSize: number): number[] {
  if (count > 0 && count < localSize) return [localRank % count];
  return Array.from({ length: count }, (_, i) => i).filter((i) => i % localSize === localRank);
}
