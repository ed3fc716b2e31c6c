import assert from "node:assert/strict";
import fc from "fast-check";
import { type LaunchedPlace, launchedPlace, meetingPort, shareOfDevices } from "../../network/launcher.ts";

type Variables = Record<string, string>;

/** Variables written as `env` prints them. */
function recorded(text: string): Variables {
  return Object.fromEntries(text.trim().split(/\s+/).map((line) => line.split(/=(.*)/s).slice(0, 2)));
}

function placeIn(variables: Variables): LaunchedPlace | undefined {
  return launchedPlace(new Map(Object.entries(variables)));
}

function without(variables: Variables, name: string): Variables {
  return Object.fromEntries(Object.entries(variables).filter(([other]) => other !== name));
}

/** Task 1 of `srun -N2 -n3` under Slurm 22.05. */
const srun = recorded(`
  SLURM_JOB_ID=1 SLURM_JOB_NODELIST=n[1-2] SLURM_LAUNCH_NODE_IPADDR=127.0.0.1 SLURM_LOCALID=1 SLURM_NNODES=2
  SLURM_NODEID=0 SLURM_NODELIST=n[1-2] SLURM_NPROCS=3 SLURM_NTASKS=3 SLURM_PROCID=1 SLURM_STEPID=0 SLURM_STEP_ID=0
  SLURM_STEP_NODELIST=n[1-2] SLURM_STEP_NUM_NODES=2 SLURM_STEP_NUM_TASKS=3 SLURM_STEP_TASKS_PER_NODE=2,1
  SLURM_TASKS_PER_NODE=2,1 SLURM_TASK_PID=10025 SLURM_CPUS_ON_NODE=2 SLURM_GTIDS=0,1`);

/** The body of a batch script of `sbatch -N2 -n3`. */
const sbatch = recorded(`
  SLURM_JOB_ID=2 SLURM_JOB_NODELIST=n[1-2] SLURM_LOCALID=0 SLURM_NNODES=2 SLURM_NODEID=0 SLURM_NPROCS=3 SLURM_NTASKS=3
  SLURM_PROCID=0 SLURM_TASKS_PER_NODE=2,1 SLURM_GTIDS=0 SLURM_NODELIST=n[1-2] SLURM_TASK_PID=10063`);

/** The shell of `salloc -N2 -n3`. */
const salloc = recorded(`
  SLURM_JOBID=3 SLURM_JOB_ID=3 SLURM_JOB_NAME=interactive SLURM_JOB_NODELIST=n[1-2] SLURM_NNODES=2 SLURM_NPROCS=3
  SLURM_NTASKS=3 SLURM_TASKS_PER_NODE=2,1`);

/** A batch script of one task that a task of a step of three submitted: the step is not its own. */
const sbatchInStep = recorded(`
  SLURM_JOB_ID=5 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_NTASKS=1 SLURM_PROCID=0 SLURM_STEPID=0 SLURM_STEP_ID=0
  SLURM_STEP_NODELIST=n[1-2] SLURM_STEP_NUM_NODES=2 SLURM_STEP_NUM_TASKS=3 SLURM_STEP_TASKS_PER_NODE=2,1`);

/** Rank 1 of `mpirun -np 3` of Open MPI 4.1.4 on one machine. */
const openMpi4 = recorded(`
  OMPI_COMM_WORLD_LOCAL_RANK=1 OMPI_COMM_WORLD_LOCAL_SIZE=3 OMPI_COMM_WORLD_NODE_RANK=1 OMPI_COMM_WORLD_RANK=1
  OMPI_COMM_WORLD_SIZE=3 OMPI_MCA_ess_base_jobid=1087307777 OMPI_UNIVERSE_SIZE=2 OMPI_MCA_orte_num_nodes=1
  OMPI_MCA_orte_hnp_uri=1087307776.0;tcp://192.0.2.2:46251;tcp6://[fd00::2]:34237
  OMPI_MCA_orte_local_daemon_uri=1087307776.0;tcp://192.0.2.2:46251;tcp6://[fd00::2]:34237
  PMIX_NAMESPACE=1087307777 PMIX_RANK=1 PMIX_HOSTNAME=vm PMIX_SERVER_URI2=1087307776.0;tcp4://127.0.0.1:55087`);

/** Ranks 0 and 1 of `mpirun -H 10.78.0.1:1,10.78.0.2:2 -np 3`, started on 10.78.0.1 (two network namespaces). */
const openMpi4Two = [
  recorded(`
    OMPI_COMM_WORLD_LOCAL_RANK=0 OMPI_COMM_WORLD_LOCAL_SIZE=1 OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=3
    OMPI_MCA_orte_hnp_uri=907476992.0;tcp://10.78.0.1:54791 PMIX_NAMESPACE=907476993
    PMIX_SERVER_URI2=907476992.0;tcp4://127.0.0.1:41051`),
  recorded(`
    OMPI_COMM_WORLD_LOCAL_RANK=0 OMPI_COMM_WORLD_LOCAL_SIZE=2 OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=3
    OMPI_MCA_orte_hnp_uri=907476992.0;tcp://10.78.0.1:54791 PMIX_NAMESPACE=907476993
    PMIX_SERVER_URI2=907476992.1;tcp4://127.0.0.1:47175`),
];

/** The same of Open MPI 5.0.11, whose job is named after the machine of mpirun. */
const openMpi5Two = [
  recorded(`
    OMPI_COMM_WORLD_LOCAL_RANK=0 OMPI_COMM_WORLD_LOCAL_SIZE=1 OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=3
    PMIX_HOSTNAME=lA PMIX_NAMESPACE=prterun-lA-14274@1 PMIX_RANK=0
    PMIX_SERVER_URI2=prterun-lA-14274@0.0;tcp4://127.0.0.1:52783`),
  recorded(`
    OMPI_COMM_WORLD_LOCAL_RANK=0 OMPI_COMM_WORLD_LOCAL_SIZE=2 OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=3
    PMIX_HOSTNAME=lB PMIX_NAMESPACE=prterun-lA-14274@1 PMIX_RANK=1
    PMIX_SERVER_URI2=prterun-lA-14274@0.1;tcp4://127.0.0.1:50077`),
];

/** Rank 1 of `mpiexec -np 3` of MPICH 5.0.2 on one machine, and of 3 on two. */
const mpich = recorded("MPI_LOCALNRANKS=3 MPI_LOCALRANKID=1 PMI_FD=11 PMI_HOSTNAME=vm PMI_RANK=1 PMI_SIZE=3");
const mpichTwo = recorded("MPI_LOCALNRANKS=2 MPI_LOCALRANKID=0 PMI_FD=9 PMI_HOSTNAME=10.78.0.2 PMI_RANK=1 PMI_SIZE=3");

/** Rank 1 of `mpiexec -np 3` of Intel MPI 2021. */
const intel = recorded(`
  MPI_LOCALNRANKS=3 MPI_LOCALRANKID=1 PMI_FD=11 PMI_RANK=1 PMI_SIZE=3
  I_MPI_HYDRA_UUID=7a300000-bef3-d59f-2861-060037251515`);

/** What Kubernetes and deploy/kubernetes.yaml set. */
const kubernetes = recorded("JOB_COMPLETION_INDEX=2 MUSTER_NODES=3 MUSTER_RENDEZVOUS=muster-0.muster:29500");

Deno.test("launchedPlace() finds the place of a task of srun", () => {
  assert.deepEqual(placeIn(srun), {
    launcher: "Slurm",
    nodes: 3,
    nodeRank: 1,
    rendezvous: `n1:${meetingPort("1.0")}`,
    localRank: 1,
    localSize: 2,
  });
  // Task 2, alone on the second machine.
  const last = placeIn({ ...srun, SLURM_PROCID: "2", SLURM_LOCALID: "0", SLURM_NODEID: "1" });
  assert.deepEqual([last?.localRank, last?.localSize, last?.rendezvous], [0, 1, placeIn(srun)?.rendezvous]);
  // Another step of the job meets at another port, on the first of its own machines.
  const step = placeIn({ ...srun, SLURM_STEP_ID: "1", SLURM_STEP_NODELIST: "gpu[007-008]" });
  assert.match(step!.rendezvous!, /^gpu007:\d+$/);
  assert.notEqual(step!.rendezvous!.split(":")[1], String(meetingPort("1.0")));
  // All on one machine.
  const one = { ...srun, SLURM_STEP_NODELIST: "n2", SLURM_STEP_TASKS_PER_NODE: "3" };
  assert.equal(placeIn(one)?.rendezvous, `127.0.0.1:${meetingPort("1.0")}`);
});

Deno.test("launchedPlace() finds none in a batch script, in salloc's shell, and in a step of one task", () => {
  for (const variables of [sbatch, salloc, sbatchInStep, {}]) assert.equal(placeIn(variables), undefined);
  const one = { SLURM_NTASKS: "1", SLURM_STEP_NUM_TASKS: "1", SLURM_STEP_TASKS_PER_NODE: "1", SLURM_PROCID: "0" };
  assert.equal(placeIn({ ...srun, ...one, SLURM_LOCALID: "0", SLURM_STEP_NODELIST: "n1" }), undefined);
  // The steps that newer Slurms number: the batch script's and the interactive shell's.
  for (const step of ["4294967291", "4294967290"]) assert.equal(placeIn({ ...srun, SLURM_STEP_ID: step }), undefined);
});

Deno.test("launchedPlace() does not guess where task 0 is if tasks were distributed by hand", () => {
  // Of `srun -n3 -m arbitrary` over n3, n1, n3 the list of machines was n[1,3], and task 0 on n3.
  const place = placeIn({ ...srun, SLURM_DISTRIBUTION: "arbitrary", SLURM_STEP_NODELIST: "n[1,3]" });
  assert.deepEqual([place?.nodeRank, place?.rendezvous], [1, undefined]);
  assert.match(placeIn({ ...srun, SLURM_DISTRIBUTION: "cyclic" })!.rendezvous!, /^n1:/);
});

Deno.test("launchedPlace() finds the place of a process of mpirun, on one machine and on several", () => {
  assert.deepEqual(placeIn(openMpi4), {
    launcher: "Open MPI",
    nodes: 3,
    nodeRank: 1,
    rendezvous: `127.0.0.1:${meetingPort("1087307777")}`,
    localRank: 1,
    localSize: 3,
  });
  for (const [[first, second], address] of [[openMpi4Two, "10.78.0.1"], [openMpi5Two, "lA"]] as const) {
    const rendezvous = `${address}:${meetingPort(first.PMIX_NAMESPACE)}`;
    assert.equal(placeIn(first)?.rendezvous, rendezvous);
    assert.equal(placeIn(second)?.rendezvous, rendezvous);
    // Rank 0 beside a helper of mpirun that is not mpirun itself: what the others know is not its address.
    const { PMIX_SERVER_URI2 } = second;
    assert.equal(placeIn({ ...first, PMIX_SERVER_URI2 })?.rendezvous, undefined);
  }
  const six = { ...openMpi4Two[1], OMPI_MCA_orte_hnp_uri: "1.0;tcp6://[fd00::2,fd00::3]:34237" };
  assert.match(placeIn(six)!.rendezvous!, /^\[fd00::2\]:\d+$/);
  const many = { ...openMpi4Two[1], OMPI_MCA_orte_hnp_uri: "1.0;tcp://10.0.0.1,172.17.0.1:34237;tcp6://[::1]:5" };
  assert.match(placeIn(many)!.rendezvous!, /^10\.0\.0\.1:\d+$/);
});

Deno.test("launchedPlace() trusts mpirun more than the Slurm by which it started its helpers", () => {
  assert.equal(placeIn({ ...srun, ...openMpi4 })?.launcher, "Open MPI");
  assert.equal(placeIn({ ...srun, ...mpich })?.launcher, "MPICH");
  // srun --mpi=pmi2
  assert.equal(placeIn({ ...srun, PMI_RANK: "1", PMI_SIZE: "3" })?.launcher, "Slurm");
});

Deno.test("launchedPlace() finds the place of a process of MPICH and of Intel MPI; where rank 0 is they do not say", () => {
  const place = placeIn(mpich);
  assert.deepEqual([place?.nodes, place?.nodeRank, place?.localRank, place?.localSize], [3, 1, 1, 3]);
  assert.match(place!.rendezvous!, /^127\.0\.0\.1:\d+$/);
  assert.equal(placeIn(mpichTwo)?.rendezvous, undefined);
  assert.equal(placeIn(intel)?.rendezvous, `127.0.0.1:${meetingPort(intel.I_MPI_HYDRA_UUID)}`);
});

Deno.test("launchedPlace() finds the place of a pod of an Indexed Job whose manifest says how many belong together", () => {
  assert.deepEqual(placeIn(kubernetes), {
    launcher: "Kubernetes",
    nodes: 3,
    nodeRank: 2,
    rendezvous: "muster-0.muster:29500",
    localRank: 0,
    localSize: 1,
  });
  assert.equal(placeIn(without(kubernetes, "MUSTER_NODES")), undefined);
  assert.equal(placeIn(without(kubernetes, "JOB_COMPLETION_INDEX")), undefined);
});

Deno.test("launchedPlace() names what is missing or contradicts the rest", () => {
  const cases: [Variables, RegExp][] = [
    ...["SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_JOB_ID", "SLURM_STEP_NODELIST"].map((name) =>
      [without(srun, name), new RegExp(`environment is that of Slurm, but ${name} is missing`)] as [Variables, RegExp]
    ),
    ...["SIZE", "LOCAL_RANK", "LOCAL_SIZE"].map((name) =>
      [
        without(openMpi4, `OMPI_COMM_WORLD_${name}`),
        new RegExp(`Open MPI, but OMPI_COMM_WORLD_${name} is missing`),
      ] as [
        Variables,
        RegExp,
      ]
    ),
    [without(mpich, "PMI_SIZE"), /MPICH, but PMI_SIZE is missing/],
    [{ ...srun, SLURM_PROCID: "3" }, /Slurm says that this is process 3 of 3/],
    [{ ...srun, SLURM_PROCID: "one" }, /SLURM_PROCID is "one", but must be a whole number/],
    [{ ...srun, SLURM_LOCALID: "2" }, /Slurm says that this is process 2 of 2 on its machine/],
    [{ ...srun, SLURM_NODEID: "2" }, /process 1 of 0 on its machine/],
    [{ ...srun, SLURM_STEP_TASKS_PER_NODE: "2(x2)" }, /there are 3 tasks, and that its machines have 2, 2 of them/],
    [{ ...srun, SLURM_STEP_NODELIST: "n[2-1]" }, /\[2-1\] is no range/],
    [{ ...openMpi4, OMPI_COMM_WORLD_RANK: "3" }, /Open MPI says that this is process 3 of 3/],
    [{ ...kubernetes, JOB_COMPLETION_INDEX: "3" }, /Kubernetes says that this is process 3 of 3/],
  ];
  for (const [variables, message] of cases) {
    assert.throws(() => placeIn(variables), { name: "UserError", message }, String(message));
  }
});

Deno.test("meetingPort() is outside the ports that systems give away, and differs from job to job", () => {
  const ports = new Set(Array.from({ length: 100 }, (_, i) => meetingPort(`${4000 + i}.0`)));
  assert.ok(Math.min(...ports) >= 20000 && Math.max(...ports) < 30000);
  // Any two have one chance in 10000 to be the same.
  assert.ok(ports.size >= 98, `${ports.size} ports`);
});

Deno.test("shareOfDevices() gives each GPU to one process, and each process a GPU even if there are too few", () => {
  assert.deepEqual([0, 1, 2].map((rank) => shareOfDevices(8, rank, 3)), [[0, 3, 6], [1, 4, 7], [2, 5]]);
  assert.deepEqual([0, 1, 2].map((rank) => shareOfDevices(2, rank, 3)), [[0], [1], [0]]);
  fc.assert(fc.property(fc.nat(16), fc.integer({ min: 1, max: 16 }), (count, size) => {
    const shares = Array.from({ length: size }, (_, rank) => shareOfDevices(count, rank, size));
    const used = shares.flat();
    assert.deepEqual([...new Set(used)].sort((a, b) => a - b), Array.from({ length: count }, (_, i) => i));
    if (count >= size) assert.equal(used.length, count);
    const sizes = shares.map((share) => share.length);
    assert.ok(Math.max(...sizes) - Math.min(...sizes) <= 1);
  }));
});
