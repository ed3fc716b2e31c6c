/** Machines that die, stand still, come back, fail or are stopped: real processes on loopback. */

import assert from "node:assert/strict";
import { openSafetensors, writeSafetensors } from "../../data/safetensors.ts";
import { latestCheckpoint, openCheckpoint } from "../../train/checkpoint.ts";
import type { TrainEvent } from "../../train/events.ts";
import { train } from "../../train/trainer.ts";
import {
  type EventOf,
  inFolder,
  lossesOf,
  Machine,
  only,
  sameLosses,
  small,
  start,
  together,
  trainHere,
} from "./machines.ts";

/** Has each step of a machine's first rank take so many seconds more. */
const slowed = (seconds: number) => ({ MUSTER_FAULT: `rank=0,step=1,to=1000000,kind=slow:${seconds}` });
/** Nobody is watching who would turn this exit code of a machine's fault into 1. */
const restartable = 75;

/** Waits for a world of so many machines, and a step in it, that are not among the first `from` events of each. */
async function form(machines: readonly Machine[], nodes: number, from: readonly number[] = []): Promise<void> {
  await Promise.all(machines.map(async (machine, i) => {
    const world = await machine.tells("world", (world) => world.nodes === nodes, from[i]);
    await machine.tells("step", ({ step }) => step > world.step, machine.events.indexOf(world));
  }));
}

const counts = (machines: readonly Machine[]) => machines.map(({ events }) => events.length);

/** Steps in the run's folder, in the order of its lines. */
const written = (machine: Machine) => only(machine.metrics(), "step").map(({ step }) => step);
const range = (first: number, last: number) => Array.from({ length: last - first + 1 }, (_, i) => first + i);

/** They end in good order. */
async function stopped(machines: readonly Machine[]): Promise<EventOf<"done">[]> {
  assert.deepEqual(await Promise.all(machines.map((machine) => machine.exits())), machines.map(() => 0));
  return machines.map(({ events }) => only(events, "done")[0]);
}

/** A model whose products overflow. */
async function wildModel(folder: string): Promise<string> {
  const { checkpoint } = await train({ ...small, data: `${folder}/text.txt`, steps: 1, out: `${folder}/tame` });
  const reader = openSafetensors(`${checkpoint}/model.safetensors`);
  const tensors = [...reader.tensors.values()].map(({ name, shape }) => {
    const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
    reader.readInto(name, data);
    return { name, shape, data: /mlp/.test(name) ? data.fill(1e30) : data };
  });
  reader.close();
  await writeSafetensors(`${checkpoint}/model.safetensors`, tensors);
  // It would tell that something has changed.
  Deno.removeSync(`${checkpoint}/trainer.json`);
  return checkpoint;
}

Deno.test(
  "a follower and then the leader are killed, started again and taken in; one that is left alone goes on too",
  inFolder(async (folder) => {
    const shared = together(folder, 3, { steps: 1_000_000, minNodes: 1, commitSteps: 10 });
    const env = slowed(0.01);
    const [leader, follower, last] = start(folder, shared, [{ env }, { env }, { env }]);
    await Promise.all([leader, follower, last].map((machine) => machine.at(15)));
    follower.kill("SIGKILL");
    await form([leader, last], 2);
    let from = counts([leader, last]);
    const second = new Machine(folder, "again", { ...shared, nodeRank: 1, env });
    await form([leader, last, second], 3, from);
    from = counts([last, second]);
    leader.kill("SIGKILL");
    await form([last, second], 2, from);
    from = counts([last]);
    second.kill("SIGKILL");
    await form([last], 1, from);
    const first = new Machine(folder, "leads no more", { ...shared, nodeRank: 0, env });
    await form([last, first], 2, [last.events.length]);
    // A request to one of them stops both behind the same step.
    first.kill("SIGUSR2");
    const [{ step, stopped: asked, checkpoint }, done] = await stopped([last, first]);
    assert.ok(asked && done.stopped && done.step === step);
    assert.equal(latestCheckpoint(last.run), checkpoint);
    assert.equal(done.checkpoint, "");
    assert.equal(latestCheckpoint(first.run), undefined);
    // Who leads writes, from where it began to lead, each step once.
    const steps = written(last);
    assert.deepEqual(steps, range(steps[0], step));
    assert.ok(steps[0] > 10);

    const reference = lossesOf((await trainHere(folder, [{ steps: Math.min(step, 600) }]))[0]);
    sameLosses(lossesOf(last.events), reference);
    const joined = only(first.events, "world")[0].step;
    sameLosses(lossesOf(first.events), reference, joined + 1);
    const lost = only(last.events, "lost").map(({ message }) => message);
    assert.equal(lost.length, 3, lost.join("\n"));
    for (const [i, node] of [1, 0, 1].entries()) assert.match(lost[i], new RegExp(`^Lost node ${node} \\(`));
  }),
);

Deno.test(
  "below the fewest machines the run ends with its state on the disk, and goes on from there with the same bits",
  inFolder(async (folder) => {
    const terms = { steps: 40, commitSteps: 10, evalInterval: 0, checkpointInterval: 0 };
    const undisturbed = together(folder, 2, terms);
    const [whole] = await trainHere(folder, range(0, 1).map((nodeRank) => ({ ...undisturbed, nodeRank })));
    await Promise.all([0, 1].map(async (killed) => {
      const shared = together(folder, 2, { ...terms, rendezvousTimeout: 6 });
      const env = { MUSTER_FAULT: `rank=0,step=27,kind=slow:600` };
      const machines = range(0, 1).map((nodeRank) =>
        new Machine(folder, `${killed} ${nodeRank}`, { ...shared, nodeRank, ...(nodeRank === killed ? { env } : {}) })
      );
      const [dead, survivor] = [machines[killed], machines[1 - killed]];
      await Promise.all(machines.map((machine) => machine.at(26)));
      dead.kill("SIGKILL");
      assert.equal(await survivor.exits(20), restartable, survivor.stderr);
      assert.match(survivor.stderr, /1 of 2 machines met again within 6 s.*step-00000020: go on with .*--resume/);
      const again = together(folder, 2, terms);
      const [first, second] = await trainHere(folder, [
        { ...again, nodeRank: 0, resume: survivor.run },
        // What it would start from itself does not matter.
        { ...again, nodeRank: 1, init: survivor.run },
      ]);
      const rest = [...lossesOf(whole)].slice(20);
      assert.deepEqual([...lossesOf(first)], rest);
      assert.deepEqual([...lossesOf(second)], rest);
      assert.equal(only(first, "done")[0].validationLoss, only(whole, "done")[0].validationLoss);
    }));
  }),
);

Deno.test(
  "a machine that stood still comes back as a newcomer; strangers disturb nobody; a straggler is named",
  inFolder(async (folder) => {
    const shared = together(folder, 3, { steps: 1_000_000, minNodes: 2, commitSteps: 10, peerTimeout: 3 });
    const trace = (i: number) => `${folder}/trace${i}.json`;
    const machines = start(folder, shared, [
      // As a user starts it, and stops it.
      { trace: trace(0), env: { MUSTER_SUPERVISED: "0" } },
      { trace: trace(1), env: slowed(0.08) },
      { trace: trace(2), stallTimeout: 3 },
    ]);
    const [leader, slow, still] = machines;
    await form(machines, 3);
    const strangers = range(0, 20).map(async (i) => {
      const [hostname, port] = shared.rendezvous!.split(":");
      const connection = await Deno.connect({ hostname, port: Number(port) });
      const http = new TextEncoder().encode("GET / HTTP/1.1\r\nHost: muster\r\n\r\n");
      await connection.write(i % 2 ? http : crypto.getRandomValues(new Uint8Array(100 * i + 1))).catch(() => {});
      connection.close();
    });
    await Promise.all(strangers);
    await Promise.all([leader, still].map((machine) => machine.tells("straggler")));
    assert.equal(only(leader.events, "lost").length, 0);
    const { machine, slowness } = only(leader.events, "straggler")[0];
    assert.match(machine, /^node 1 \(/);
    assert.ok(slowness > 1.5);

    let from = counts(machines);
    still.kill("SIGSTOP");
    // Longer than ranks may show no sign of life, which they could not.
    await Promise.all([form([leader, slow], 2, from), new Promise((resolve) => setTimeout(resolve, 5000))]);
    assert.match(only(leader.events, "lost")[0].message, /^Lost node 2 .*: silent for 3 s$/);
    from = counts(machines);
    still.kill("SIGCONT");
    await form(machines, 3, from);
    assert.match(only(still.events, "lost")[0].message, /^(Lost node \d|The other nodes went on without this one)/);
    leader.kill("SIGINT");
    const done = await stopped(machines);
    assert.equal(new Set(done.map(({ step }) => step)).size, 1);
    assert.deepEqual(written(leader), range(1, done[0].step));
    const reference = lossesOf((await trainHere(folder, [{ steps: done[0].step }]))[0]);
    for (const { events } of machines) sameLosses(lossesOf(events), reference, events === still.events ? 1000 : 1);
    for (const [i] of machines.entries()) {
      const own = i === 0 ? trace(0) : trace(i).replace(".json", `-node${i}.json`);
      const spans = JSON.parse(Deno.readTextFileSync(own)) as { name: string; pid: number }[];
      assert.ok(spans.some(({ name }) => /^all-reduce of bucket \d+, /.test(name)), `machine ${i}`);
    }
  }),
);

Deno.test(
  "a rank's fault ends its machine alone, and a number that is not finite ends all of them",
  inFolder(async (folder) => {
    const shared = together(folder, 3, { steps: 60, minNodes: 2, commitSteps: 10, devices: "0,0" });
    const fault = { MUSTER_FAULT: "rank=1,step=15,kind=throw" };
    const machines = start(folder, shared, [{}, {}, { env: fault }]);
    const init = await wildModel(folder);
    const wild = together(folder, 2, { steps: 60, init });
    const others = range(0, 1).map((nodeRank) => new Machine(folder, `wild${nodeRank}`, { ...wild, nodeRank }));
    const [reference] = await trainHere(folder, [{ steps: 60 }]);
    assert.equal(await machines[2].exits(), 1, machines[2].stderr);
    assert.match(
      machines[2].stderr,
      /^muster: Rank 1 failed in step 15, .*MUSTER_FAULT asked for this; the last checkpoint is .*step-00000010: go on with/,
    );
    await stopped(machines.slice(0, 2));
    for (const { events } of machines.slice(0, 2)) {
      sameLosses(lossesOf(events), lossesOf(reference));
      const lost = only(events, "lost");
      assert.equal(lost.length, 1);
      assert.match(lost[0].message, / ended the world: Rank 1 failed in step 15, .*asked for this$/);
      assert.equal(lost[0].step, 10);
    }
    assert.deepEqual(written(machines[0]), range(1, 60));
    for (const machine of others) {
      assert.equal(await machine.exits(), 1, machine.stderr);
      assert.match(
        machine.stderr,
        /^muster: (node \d .* ended the world: )?Training stopped at step 1: the loss is NaN; /,
      );
      assert.equal(only(machine.events, "error").length, 1);
      assert.equal(only(machine.events, "world").length, 1);
    }
  }),
);

Deno.test(
  "if the leader cannot save the last state, the others have waited for it and do",
  inFolder(async (folder) => {
    Deno.mkdirSync(`${folder}/0`);
    Deno.writeTextFileSync(`${folder}/0/checkpoints`, "no folder");
    const shared = together(folder, 2, { steps: 3, commitSteps: 0 });
    const events: TrainEvent[] = [];
    const [leader, other] = await Promise.allSettled([0, 1].map((nodeRank) => {
      const onEvent = (event: TrainEvent) => nodeRank === 1 && events.push(event);
      return train({ ...shared, nodeRank, out: `${folder}/${nodeRank}` }, { onEvent });
    }));
    assert.equal(leader.status, "rejected");
    assert.match(String(leader.reason), /^MachineError: Cannot save the checkpoint of step 3 in /);
    assert.ok(other.status === "fulfilled" && other.value.step === 3);
    assert.deepEqual(only(events, "checkpoint").map(({ step }) => step), [3]);
    const kept = await openCheckpoint(`${folder}/1`);
    kept.close();
    assert.equal(kept.trainer?.step, 3);
  }),
);
