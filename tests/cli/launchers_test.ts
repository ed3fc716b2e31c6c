import assert from "node:assert/strict";
import { withFolder } from "../folder.ts";
import {
  type Ended,
  execute,
  lacking,
  lackingOpenMpi,
  muster,
  podsOf,
  quoted,
  rootForMpi,
  testWhere,
  withHosts,
  withSlurm,
  writeSecret,
} from "./launched.ts";

const deploy = new URL("../../deploy/", import.meta.url).pathname;
const bench = ["comm-bench", "--sizes", "4KiB", "--json", "--timeout", "20"];

const noSlurm = lacking(["slurmctld", "slurmd", "srun", "munged", "unshare", "ip"], true);
const noMpi = lackingOpenMpi();
const noHosts = lacking(["unshare", "ip"], true);
const noSystemd = lacking(["systemd-analyze"]);

/** The objects that the processes printed, a line each. */
function printed({ stdout }: Ended): { rank?: number; nodes: number | string[]; links?: unknown[] }[] {
  return stdout.trim().split("\n").filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
}

/** Asserts that processes measured with each other: one printed the tables with these names, the others their ranks. */
function assertMeasured(ended: Ended, names: readonly RegExp[]): void {
  assert.equal(ended.code, 0, ended.stderr);
  const objects = printed(ended);
  const [table, ...more] = objects.filter(({ links }) => links !== undefined);
  assert.equal(more.length, 0, "each measured for itself");
  const nodes = table.nodes as string[];
  assert.equal(nodes.length, names.length);
  for (const [i, name] of names.entries()) assert.match(nodes[i], name);
  assert.equal(table.links?.length, names.length * (names.length - 1) / 2);
  const ranks = objects.flatMap(({ rank }) => rank ?? []).sort((a, b) => a - b);
  assert.deepEqual(ranks, names.slice(1).map((_, i) => i + 1));
}

testWhere(noSlurm, "srun muster comm-bench needs no flags but the secret, over machines and tasks", async () => {
  await withFolder({}, async (folder) => {
    const file = ["--secret-file", writeSecret(`${folder}/secret`)];
    const task = quoted(muster(...bench, ...file));
    const script = [
      `srun -N2 -n3 ${task} >${folder}/three.out`,
      // Another step of a job meets on its own machines.
      `salloc -Q -N3 sh -c 'srun -N2 -n2 -r1 "$@" >${folder}/step.out' sh ${task}`,
      `srun -N1 -n2 ${quoted(muster(...bench))} >${folder}/one.out`,
      `! srun -N2 -n2 ${quoted(muster(...bench))} 2>${folder}/stranger.err`,
    ].join(" && ");
    const { code, stderr } = await execute(withSlurm(3, ["sh", "-c", script]));
    assert.equal(code, 0, stderr);
    const out = (name: string) => ({ code, stderr, stdout: Deno.readTextFileSync(`${folder}/${name}.out`) });
    assertMeasured(out("three"), [/^node 0 \(one, n1:2\d{4}\)/, /^node 1 \(one, 10\.77\.0\.1:/, /^node 2 \(one, /]);
    assertMeasured(out("step"), [/^node 0 \(one, n2:2\d{4}\)/, /^node 1 /]);
    assertMeasured(out("one"), [/^node 0 \(one, 127\.0\.0\.1:2\d{4}\)/, /^node 1 /]);
    const stranger = Deno.readTextFileSync(`${folder}/stranger.err`);
    assert.match(
      stranger,
      /muster: Without a shared secret only loopback addresses are allowed, and n\d \(10\.77\.0\.\d\)/,
    );
  });
});

testWhere(noSlurm, "deploy/slurm.sbatch starts one process on each machine; its own body is none of them", async () => {
  await withFolder({}, async (folder) => {
    // In place of `muster train`, which would compute: it says how it was called, and measures with the others.
    const program = `${folder}/muster`;
    const words = quoted(muster(...bench));
    Deno.writeTextFileSync(program, `#!/bin/sh\necho "$*"\nexec ${words} --secret-file "$3"\n`);
    Deno.chmodSync(program, 0o755);
    const body = `${folder}/body`;
    Deno.writeTextFileSync(body, `#!/bin/sh\n#SBATCH -N2 -n3\n${words}\n`);
    const script = [
      `sbatch --quiet -o ${folder}/out --gpus-per-node=0 --cpus-per-task=2 --time=1 ${deploy}slurm.sbatch --steps 9`,
      `sbatch --quiet -o ${folder}/body.out ${body}`,
      // sbatch --wait looks only every few seconds.
      "while squeue --noheader | grep -q .; do sleep 0.1; done",
    ].join(" && ");
    const made = `${folder}/made`;
    const env = { SECRET_FILE: made, MUSTER: program, RUN: `${folder}/run` };
    const ended = await execute(withSlurm(2, ["sh", "-c", script]), env);
    const stdout = Deno.readTextFileSync(`${folder}/out`);
    assert.equal(ended.code, 0, `${ended.stderr}${stdout}`);
    assertMeasured({ ...ended, stdout }, [/^node 0 \(one, n1:/, /^node 1 /]);
    const called = stdout.split("\n").filter((line) => line.startsWith("train"));
    const line =
      `train --secret-file ${made} --min-nodes 1 --restarts 3 --out ${folder}/run --resume auto --data moby-dick --steps 9`;
    assert.deepEqual(called, [line, line]);
    assert.equal(Deno.statSync(made).mode! & 0o777, 0o600);
    // Two processes of the batch script's own machine, which it started itself.
    const [{ nodes }] = printed({ ...ended, stdout: Deno.readTextFileSync(`${folder}/body.out`) });
    assert.match((nodes as string[])[0], /^node 0 \(one, 127\.0\.0\.1:/);
    assert.equal((nodes as string[]).length, 2);
  });
});

testWhere(noMpi, "mpirun -np 3 muster comm-bench needs no flags", async () => {
  const mpirun = ["mpirun", "--oversubscribe", "-np", "3"];
  assertMeasured(await execute([...mpirun, ...muster(...bench)], rootForMpi), [
    /127\.0\.0\.1:2\d{4}/,
    /^node 1 /,
    /^node 2 /,
  ]);
  // Each by itself, as asked.
  const alone = await execute([...mpirun.slice(0, 3), "2", ...muster(...bench, "--local", "2")], rootForMpi);
  assert.equal(alone.code, 0, alone.stderr);
  assert.deepEqual(printed(alone).map(({ links }) => links?.length), [1, 1]);
});

testWhere(noHosts, "pods with the environment that deploy/kubernetes.yaml gives them meet", async () => {
  await withFolder({}, async (folder) => {
    const { names, env, args, secretMode } = podsOf(Deno.readTextFileSync(`${deploy}kubernetes.yaml`));
    // The flags that have to do with places; the secret is mounted for the group only.
    assert.deepEqual(args.slice(0, 3), ["train", "--secret-file=/etc/muster/secret", "--listen=$(POD_IP)"]);
    const file = writeSecret(`${folder}/secret`);
    Deno.chmodSync(file, secretMode);
    const pod = quoted(muster(...bench, `--secret-file=${file}`));
    const script = names.map((_, i) =>
      `JOB_COMPLETION_INDEX=${i} ${pod} --listen=10.77.0.${i + 1} & p${i}=$!`
    ).join("\n") +
      names.map((_, i) => `\nwait $p${i} || exit 1`).join("");
    const ended = await execute(withHosts(names, ["sh", "-c", script]), env);
    assertMeasured(
      ended,
      names.map((_, i) => new RegExp(`^node ${i} \\(one, ${i ? `10\\.77\\.0\\.${i + 1}:` : names[0]}`)),
    );
  });
});

testWhere(noSystemd, "deploy/muster.service is a unit that systemd takes", async () => {
  await withFolder({}, async (folder) => {
    const unit = Deno.readTextFileSync(`${deploy}muster.service`);
    // The program must be there to be verified.
    const text = unit.replaceAll("/opt/muster/muster train", "/bin/true train");
    assert.notEqual(text, unit);
    Deno.writeTextFileSync(`${folder}/muster.service`, text);
    const { code, stdout, stderr } = await execute(["systemd-analyze", "verify", `${folder}/muster.service`]);
    assert.deepEqual([code, stdout, stderr], [0, "", ""]);
  });
});
