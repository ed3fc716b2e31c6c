import assert from "node:assert/strict";
import { type NodeFlags, type NodePlace, readNodePlace } from "../../train/node_place.ts";
import { withFolder } from "../folder.ts";

const slurm = {
  SLURM_JOB_ID: "7",
  SLURM_STEP_ID: "0",
  SLURM_NTASKS: "3",
  SLURM_STEP_NUM_TASKS: "3",
  SLURM_STEP_NODELIST: "localhost,n2",
  SLURM_STEP_TASKS_PER_NODE: "2,1",
  SLURM_NODEID: "0",
  SLURM_PROCID: "1",
  SLURM_LOCALID: "1",
};
const own = { MUSTER_NODES: "2", MUSTER_RENDEZVOUS: "10.0.0.1:29500", MUSTER_NODE_RANK: "1" };
const flags = { nodes: 4, rendezvous: "10.0.0.9:1000", nodeRank: 3 };

function place(flags: NodeFlags, variables: Record<string, string> = {}): Promise<NodePlace | undefined> {
  return readNodePlace(flags, new Map(Object.entries(variables)));
}

/** What of a place may come from one source or another. */
async function gist(flags: NodeFlags, variables: Record<string, string>): Promise<unknown[]> {
  const { launcher, nodes, nodeRank, rendezvous, localRank, localSize } = (await place(flags, variables))!;
  return [launcher, nodes, nodeRank, rendezvous.replace(/2\d{4}$/, "2…"), localRank, localSize];
}

Deno.test("readNodePlace() takes flags first, then MUSTER_*, then the launcher's word", async () => {
  assert.deepEqual(await gist({}, slurm), ["Slurm", 3, 1, "localhost:2…", 1, 2]);
  assert.deepEqual(await gist({}, own), [undefined, 2, 1, "10.0.0.1:2…", 0, 1]);
  assert.deepEqual(await gist(flags, { ...slurm, ...own }), [undefined, 4, 3, "10.0.0.9:1000", 0, 1]);
  const { MUSTER_RENDEZVOUS } = own;
  assert.deepEqual(await gist({}, { ...slurm, MUSTER_RENDEZVOUS }), ["Slurm", 3, 1, "10.0.0.1:2…", 1, 2]);
  assert.deepEqual(await gist({ nodes: 3, rendezvous: "a:1" }, slurm), ["Slurm", 3, 1, "a:1", 1, 2]);
  // Of other processes than the launcher's: its ranks are not theirs.
  assert.deepEqual(await gist({ nodes: 2, rendezvous: "a:1" }, slurm), [undefined, 2, undefined, "a:1", 0, 1]);
});

Deno.test("readNodePlace() finds a process alone where nothing says otherwise, or it is asked to be", async () => {
  const silent: [NodeFlags, Record<string, string>][] = [
    [{}, {}],
    [{ nodes: 1 }, slurm],
    [{ nodes: 1 }, own],
    [{ nodes: 1, rendezvous: "a:1", nodeRank: 0 }, {}],
    [{}, { ...own, MUSTER_NODES: "1" }],
    [{}, { ...slurm, MUSTER_NODES: "1" }],
    [{}, { JOB_COMPLETION_INDEX: "4" }],
  ];
  for (const [flags, variables] of silent) assert.equal(await place(flags, variables), undefined);
});

Deno.test("readNodePlace() says what is missing", async () => {
  const openMpi = {
    OMPI_COMM_WORLD_RANK: "0",
    OMPI_COMM_WORLD_SIZE: "2",
    OMPI_COMM_WORLD_LOCAL_RANK: "0",
    OMPI_COMM_WORLD_LOCAL_SIZE: "1",
    OMPI_MCA_orte_hnp_uri: "1.0;tcp://10.0.0.1:4",
    PMIX_SERVER_URI2: "1.1;tcp4://127.0.0.1:5",
  };
  const cases: [NodeFlags, Record<string, string>, RegExp][] = [
    [{ rendezvous: "a:1" }, {}, /^--rendezvous is for several machines: say how many with --nodes$/],
    [{ nodeRank: 0 }, {}, /^--node-rank is for several machines/],
    [{ listen: "10.0.0.1" }, {}, /^--listen is for several machines/],
    [{}, { MUSTER_RENDEZVOUS: "a:1" }, /^MUSTER_RENDEZVOUS is for several .* with --nodes or MUSTER_NODES$/],
    [{}, { MUSTER_NODE_RANK: "0" }, /^MUSTER_NODE_RANK is for several machines/],
    [{ nodes: 2 }, {}, /^--nodes 2 needs --rendezvous host:port/],
    [{}, { MUSTER_NODES: "two" }, /^MUSTER_NODES is "two", but must be a whole number, at least 1$/],
    [{}, { MUSTER_NODES: "0" }, /^MUSTER_NODES is "0"/],
    [{}, { ...own, MUSTER_NODE_RANK: "-1" }, /^MUSTER_NODE_RANK is "-1"/],
    [{}, openMpi, /^Open MPI does not tell where node 0 of 2 is: give --rendezvous host:port \(or MUSTER_RENDEZVOUS\)/],
    [{}, { ...slurm, SLURM_DISTRIBUTION: "arbitrary" }, /^Slurm does not tell where node 0 of 3 is/],
    [{}, { ...slurm, SLURM_STEP_ID: "0", SLURM_PROCID: "" }, /SLURM_PROCID is missing: start this by the launcher/],
  ];
  for (const [flags, variables, message] of cases) {
    await assert.rejects(place(flags, variables), { name: "UserError", message }, String(message));
  }
});

Deno.test("readNodePlace() refuses a name of node 0's machine that leads no other machine to it", async () => {
  const first = { ...slurm, SLURM_PROCID: "0", SLURM_LOCALID: "0" };
  await assert.rejects(place({}, first), {
    name: "UserError",
    message:
      /^Slurm has 3 processes meet at localhost, which is (127\.0\.0\.1|::1) on that machine itself .*--listen 0\.0\.0\.0/,
  });
  assert.equal((await place({ listen: "0.0.0.0" }, first))?.listen, "0.0.0.0");
  assert.equal((await place({ rendezvous: "10.0.0.1:29500" }, first))?.rendezvous, "10.0.0.1:29500");
});

Deno.test("readNodePlace() reads the secret of those that are several", async () => {
  await withFolder({ secret: "a secret of sixteen bytes and more\n" }, async (folder) => {
    Deno.chmodSync(`${folder}/secret`, 0o600);
    const { secret } = (await place({ secretFile: `${folder}/secret` }, own))!;
    assert.equal(new TextDecoder().decode(secret), "a secret of sixteen bytes and more");
  });
  await assert.rejects(place({ secretFile: "/nowhere/secret" }, own), { name: "UserError", message: /cannot be read/ });
});
