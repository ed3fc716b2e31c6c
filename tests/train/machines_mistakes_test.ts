/** What cannot be is said in a sentence, on all machines. */

import assert from "node:assert/strict";
import { MachineError, UserError } from "../../errors.ts";
import type { GivenSettings } from "../../train/settings.ts";
import { train } from "../../train/trainer.ts";
import { freePort } from "../network/nodes.ts";
import { inFolder, together } from "./machines.ts";

/** Why each of these machines ended. */
async function failures(folder: string, all: readonly GivenSettings[]): Promise<unknown[]> {
  return await Promise.all(all.map((settings, i) => {
    return train({ steps: 2, out: `${folder}/${crypto.randomUUID()}/${i}`, ...settings }).catch((error) => error);
  }));
}

Deno.test(
  "machines that do not agree learn in what and who, and none of them trains",
  inFolder(async (folder) => {
    Deno.writeTextFileSync(
      `${folder}/other.txt`,
      Deno.readTextFileSync(`${folder}/text.txt`).replaceAll("whale", "shark"),
    );
    const out = `${folder}/weights`;
    await train({ ...together(folder, 1, { steps: 1, out }), nodes: undefined, rendezvous: undefined });
    const cases: [GivenSettings, RegExp][] = [
      [{ batchSize: 6 }, /--batch-size is "6" at \S+, 127\.0\.0\.1:\d+ and "12" at \S+, 127/],
      [{ learningRate: 1e-4 }, /--learning-rate is "0\.0001" at .* and "0\.001" at /],
      [{ data: `${folder}/other.txt` }, /data is "[0-9a-f]{64}" at .* and "[0-9a-f]{64}" at /],
      [{ width: 64 }, /model width is "64" at .* and "32" at /],
      [{ tp: 2, devices: "0,0" }, /mesh of a machine is "tp 2" at .* and ".*" at /],
      [{ commitSteps: 3 }, /--commit-steps is "3" at /],
      [{ init: out }, /do not start from the same weights: give node 1 .* the --init of node 0/],
      [{ minNodes: 1 }, /least nodes is "1" at .* and "2" at /],
    ];
    for (const [other, message] of cases) {
      const shared = together(folder, 2, { rendezvousTimeout: 5 });
      const [first, second] = await failures(folder, [{ ...shared, nodeRank: 0 }, {
        ...shared,
        nodeRank: 1,
        ...other,
      }]);
      for (const error of [first, second]) {
        assert.ok(error instanceof UserError, `${JSON.stringify(other)}: ${error}`);
        assert.match(error.message, message);
      }
    }
    const shared = together(folder, 3, { rendezvousTimeout: 5 });
    for (const error of await failures(folder, [0, 1, 1].map((nodeRank) => ({ ...shared, nodeRank })))) {
      assert.ok(error instanceof UserError, `${error}`);
      assert.match(error.message, /127\.0\.0\.1:\d+ and .*, 127\.0\.0\.1:\d+ both have rank 1/);
    }
  }),
);

Deno.test(
  "a batch smaller than the number of copies, and --zero 2 with other micro-batches, are refused before a device is opened",
  inFolder(async (folder) => {
    const few = together(folder, 2, { batchSize: 3, devices: "0,0" });
    for (const error of await failures(folder, [{ ...few, nodeRank: 0 }, { ...few, nodeRank: 1 }])) {
      assert.ok(error instanceof UserError, `${error}`);
      assert.match(error.message, /^--batch-size 3 is less than one sequence for each of --dp 4 copies/);
    }
    const unequal = together(folder, 2, { zero: "2", devices: "0,0" });
    const own = [{ microBatchSize: 1 }, { microBatchSize: 2 }];
    for (const error of await failures(folder, own.map((mine, nodeRank) => ({ ...unequal, ...mine, nodeRank })))) {
      assert.ok(error instanceof UserError, `${error}`);
      assert.match(error.message, /--micro-batch-size is "2" at .* and "1" at /);
    }
  }),
);

Deno.test(
  "one machine alone learns what is wrong with its flags, its port, its secret, and that nobody comes",
  inFolder(async (folder) => {
    const shared = together(folder, 2, { rendezvousTimeout: 1 });
    const taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const secrets = `${folder}/secret`;
    Deno.writeTextFileSync(secrets, "0123456789abcdef0123456789abcdef", { mode: 0o600 });
    Deno.writeTextFileSync(`${secrets}2`, "0123456789abcdef0123456789abcdeX", { mode: 0o600 });
    const cases: [GivenSettings, RegExp, typeof UserError | typeof MachineError][] = [
      [{ rendezvous: undefined }, /^--nodes 2 needs --rendezvous host:port/, UserError],
      [{ nodes: undefined }, /^--rendezvous is for several machines: say how many with --nodes/, UserError],
      [{ minNodes: 3, nodeRank: 0 }, /goes on with 1 to 2 machines, not with at least 3/, UserError],
      [{ minNodes: 1, balance: "3:1" }, /^--balance 3:1 is for as many copies .* with --min-nodes 1 of 2/, UserError],
      [{ batchSize: 1 }, /^--batch-size 1 is less than one sequence for each of --nodes 2/, UserError],
      [{ nodeRank: 2 }, /^Rank 2 is not one of a group of 2: ranks are 0 to 1/, UserError],
      [{ nodeRank: 0, rendezvous: `127.0.0.1:${taken.addr.port}` }, /in use/, UserError],
      [{ nodeRank: 1, rendezvous: "192.0.2.1:29500" }, /secret/, UserError],
      [{ nodeRank: 0, secretFile: `${folder}/none` }, /none/, UserError],
      [{ nodeRank: 1 }, /^the rendezvous \(127.*could not be reached in \d\.\d s/, MachineError],
      [{ nodeRank: 0 }, /^1 of 2 machines did not come to 127.* within 1 s: rank 1.*no checkpoint/, MachineError],
    ];
    for (const [own, message, kind] of cases) {
      const [error] = await failures(folder, [{ ...shared, ...own }]);
      assert.ok(error instanceof kind, `${JSON.stringify(own)}: ${error}`);
      assert.match(error.message, message);
    }
    taken.close();
    // Without the secret, or with another one, nobody is let in.
    for (const secretFile of [undefined, `${secrets}2`]) {
      const port = freePort();
      const rendezvous = `127.0.0.1:${port}`;
      const all = [{ nodeRank: 0, secretFile: secrets }, { nodeRank: 1, secretFile }];
      const [host, stranger] = await failures(folder, all.map((own) => ({ ...shared, rendezvous, ...own })));
      assert.ok(host instanceof MachineError && stranger instanceof Error, `${host}\n${stranger}`);
      assert.match(host.message, /did not come/);
      assert.match(stranger.message, /secret/);
    }
  }),
);

Deno.test(
  "who asks to stop while it waits for others is not told of a fault",
  inFolder(async (folder) => {
    const shared = together(folder, 2);
    for (const nodeRank of [0, 1]) {
      const controller = new AbortController();
      const training = train({ ...shared, nodeRank, out: `${folder}/run` }, {
        signal: controller.signal,
        onEvent: (event) => {
          if (event.event === "message" && /^waiting/.test(event.message)) setTimeout(() => controller.abort(), 300);
        },
      });
      await assert.rejects(training, (error: Error) => {
        assert.ok(error instanceof MachineError);
        assert.match(error.message, /^Asked to stop while it waited for the other machines; no checkpoint/);
        return true;
      });
    }
  }),
);
