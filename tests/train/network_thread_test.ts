/** The thread that has the links, as the coordinator sees it: two of them in this process. */

import assert from "node:assert/strict";
import { UserError } from "../../errors.ts";
import { areaOf, createGroup } from "../../parallel/group_setup.ts";
import { ask, doneWord } from "../../parallel/machine_sums.ts";
import { createStatusMemory } from "../../parallel/status.ts";
import { NetworkThread } from "../../train/network_thread.ts";
import { freePort } from "../network/nodes.ts";

const offer = { description: {}, facts: {}, lanes: 2 };

/** Two threads that have met, and of each the promise of word that the world has ended. */
async function two(body: (threads: NetworkThread[], losses: Promise<Error>[]) => Promise<void>): Promise<void> {
  const rendezvous = `127.0.0.1:${freePort()}`;
  const words = [0, 1].map(() => Promise.withResolvers<Error>());
  const threads = await Promise.all(words.map(({ resolve: onLost }, rank) => {
    const limits = { timeoutSeconds: 10, peerTimeoutSeconds: 5 };
    const options = { size: 2, rank, rendezvous, secret: undefined, tls: undefined, group: "train", ...limits };
    const ignore = () => {};
    return NetworkThread.open(options, { onReport: ignore, onLost, onWaiting: ignore, onTrace: ignore });
  }));
  try {
    await Promise.all(threads.map((thread) => thread.meet(offer)));
    await body(threads, words.map(({ promise }) => promise));
  } finally {
    await Promise.all(threads.map((thread) => thread.close()));
  }
}

const shared = (length: number, value: number) => new Float32Array(new SharedArrayBuffer(4 * length)).fill(value);

Deno.test("a state that could not be shared ends a world, and word of that does not end the next one", () =>
  two(async (threads) => {
    for (let round = 0; round < 3; round++) {
      const shares = threads.map((thread, i) => thread.share([shared(4 + i, 1)], 0));
      for (const { status } of await Promise.allSettled(shares)) assert.equal(status, "rejected");
      const worlds = await Promise.all(threads.map((thread) => thread.meet(offer)));
      assert.equal(worlds[0].id, worlds[1].id);
      const tensors = threads.map((_, i) => [shared(5, i), shared(300_000, 10 * i)]);
      await Promise.all(threads.map((thread, i) => thread.share(tensors[i], 1)));
      assert.deepEqual(tensors[0], tensors[1]);
      assert.ok(tensors[0][1].every((value) => value === 10));
      await new Promise((resolve) => setTimeout(resolve, 100));
      for (const { lost } of threads) assert.equal(lost, undefined);
    }
    await Promise.all(threads.map((thread) => thread.leave(false)));
  }));

Deno.test("when a sum fails though nobody is lost, all machines hear that the world has ended, and why", () =>
  two(async (threads, losses) => {
    for (const [rank, thread] of threads.entries()) {
      const group = createGroup([0], 64, undefined, { rank, size: 2 });
      ask(new Int32Array(group.memory.buffer), group, 1, { turn: 1, length: 16 * (1 + rank), bucket: 0, scale: 1 });
      const status = createStatusMemory(1);
      thread.serve({
        groups: [group],
        status,
        timeoutSeconds: 60,
        compression: "none",
        algorithm: "auto",
        tune: false,
        trace: false,
      });
    }
    const errors = await Promise.all(losses);
    assert.ok(
      errors.some((error) => error instanceof UserError && /must call the same collectives/.test(error.message)),
    );
    // Who comes too late to part learns it.
    for (const thread of threads) await assert.rejects(thread.leave(false), /ended already/);
  }));

Deno.test("what int8 has lost of a bucket is added in the scale of the next sum that ranks ask for", () =>
  two(async (threads) => {
    await Promise.all(threads.map(async (thread, rank) => {
      const groups = [0, 1].map(() => createGroup([0], 64, undefined, { rank, size: 2 }));
      const [, group] = groups;
      thread.serve({
        groups,
        status: createStatusMemory(1),
        timeoutSeconds: 60,
        compression: "int8",
        algorithm: "auto",
        tune: false,
        trace: false,
      });
      const words = new Int32Array(group.memory.buffer);
      const data = areaOf(group, 0, 1);
      // Less than half a step of int8 beside 1: of the first sum nothing of it arrives, and of the second twice as much.
      const sums = [];
      for (const [i, scale] of [1, 1024].entries()) {
        data.fill(0.003 * scale).fill(scale, 0, 1);
        ask(words, group, i + 1, { turn: 1, length: 64, bucket: 5, scale });
        const wait = Atomics.waitAsync(words, doneWord(group), i);
        if (wait.async) await wait.value;
        sums.push(data[63] / scale);
      }
      assert.deepEqual(sums, [0, Math.fround(2 / 127)]);
    }));
    await Promise.all(threads.map((thread) => thread.leave(false)));
  }));

Deno.test("who is to make sums for a world that has ended makes none, nor says that it lives", () =>
  two(async ([first, second], losses) => {
    await first.end("why", false);
    await losses[1];
    const [group, status] = [createGroup([0], 64, undefined, { rank: 1, size: 2 }), createStatusMemory(1)];
    const before = new Int32Array(status).slice();
    second.serve({
      groups: [group],
      status,
      timeoutSeconds: 60,
      compression: "none",
      algorithm: "auto",
      tune: false,
      trace: false,
    });
    await new Promise((resolve) => setTimeout(resolve, 600));
    assert.deepEqual(new Int32Array(status), before);
  }));
