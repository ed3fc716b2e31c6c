import assert from "node:assert/strict";
import { checkListening, checkPlace, checkRendezvous } from "../../train/check_network.ts";
import { withFolder } from "../folder.ts";

Deno.test("checkListening() opens a port and reaches it; it tells an address that is not this machine's, and none at all", async () => {
  const here = await checkListening(["127.0.0.1"]);
  assert.deepEqual(here.map(({ state }) => state), ["ok", "ok"]);
  const elsewhere = await checkListening(["198.51.100.7"]);
  assert.deepEqual(elsewhere.map(({ state }) => state), ["ok", "failed"]);
  const alone = await checkListening([]);
  assert.deepEqual(alone.map(({ state }) => state), ["ok", "warning"]);
});

Deno.test("checkRendezvous() tells who can host it, what answers, what refuses, and names that nobody knows", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  const isOther = () => false;
  try {
    const busy = await checkRendezvous(`127.0.0.1:${port}`);
    assert.deepEqual([busy.state, /where a program listens already/.test(busy.found)], ["warning", true]);
    const accepted = listener.accept().then((connection) => connection.close());
    const answers = await checkRendezvous(`127.0.0.1:${port}`, 1000, isOther);
    await accepted;
    assert.equal(answers.state, "ok");
    assert.match(answers.found, /answers in [\d.]+ ms, by the interface 127\.0\.0\.1$/);
  } finally {
    listener.close();
  }
  const free = await checkRendezvous(`127.0.0.1:${port}`);
  assert.deepEqual([free.state, /is this machine, which can listen there/.test(free.found)], ["ok", true]);
  const refused = await checkRendezvous(`127.0.0.1:${port}`, 1000, isOther);
  assert.deepEqual([refused.state, /is reached, but nothing listens there/.test(refused.found)], ["warning", true]);
  const unknown = await checkRendezvous("nowhere.invalid:5");
  assert.deepEqual([unknown.state, /^nowhere\.invalid is unknown/.test(unknown.found)], ["failed", true]);
  await assert.rejects(checkRendezvous("nonsense"), /is not an address of the form host:port/);
});

Deno.test({
  name: "checkRendezvous() waits for an answer only so long",
  // Elsewhere a full queue refuses.
  ignore: Deno.build.os !== "linux",
  fn: async () => {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0, tcpBacklog: 1 });
    const { port } = listener.addr;
    const waiting: Deno.Conn[] = [];
    try {
      // Nobody accepts: behind a few, the system leaves newcomers without an answer.
      for (let full = false; !full && waiting.length < 10;) {
        await Deno.connect({ hostname: "127.0.0.1", port, signal: AbortSignal.timeout(200) })
          .then((connection) => waiting.push(connection), () => full = true);
      }
      const started = performance.now();
      const silent = await checkRendezvous(`127.0.0.1:${port}`, 300, () => false);
      assert.deepEqual([silent.state, silent.found], ["failed", `127.0.0.1:${port} does not answer`]);
      assert.ok(performance.now() - started < 3000);
    } finally {
      for (const connection of waiting) connection.close();
      listener.close();
    }
  },
});

Deno.test("checkPlace() tells a process alone from one of several, and what is missing there", () =>
  withFolder({ secret: "0123456789abcdef" }, async (folder) => {
    Deno.chmodSync(`${folder}/secret`, 0o600);
    const look = (flags: Parameters<typeof checkPlace>[0], environment: Record<string, string>) =>
      checkPlace(flags, { get: (name) => environment[name] });
    const alone = await look({}, {});
    assert.deepEqual([alone.finding.state, alone.finding.found], ["ok", "no: this process is alone"]);
    assert.match((await look({}, { SLURM_JOB_ID: "7" })).finding.found, /srun starts several/);

    const several = { nodes: 2, rendezvous: "192.0.2.1:29500" };
    const open = await look(several, {});
    assert.deepEqual([open.finding.state, open.rendezvous], ["failed", "192.0.2.1:29500"]);
    assert.match(open.finding.found, /Without a shared secret only loopback addresses are allowed/);
    const guarded = await look({ ...several, secretFile: `${folder}/secret` }, { MUSTER_NODE_RANK: "1" });
    assert.equal(guarded.finding.found, "flags and MUSTER_*: process 1 of 2, at 192.0.2.1:29500, with a secret");
    const local = await look({}, { MUSTER_NODES: "3", MUSTER_RENDEZVOUS: "127.0.0.1:29500" });
    assert.deepEqual([local.finding.state, local.rendezvous], ["ok", "127.0.0.1:29500"]);

    const mpi = { OMPI_COMM_WORLD_RANK: "5", OMPI_COMM_WORLD_SIZE: "2", OMPI_COMM_WORLD_LOCAL_RANK: "0" };
    const wrong = await look({}, { ...mpi, OMPI_COMM_WORLD_LOCAL_SIZE: "1" });
    assert.deepEqual([wrong.finding.state, wrong.rendezvous], ["failed", undefined]);
    assert.match(wrong.finding.found, /Open MPI says that this is process 5 of 2/);
    const bad = await look({}, { MUSTER_NODES: "2", MUSTER_RENDEZVOUS: "nonsense" });
    assert.deepEqual([bad.finding.state, bad.rendezvous], ["failed", undefined]);
  }));
