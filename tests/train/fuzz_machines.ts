/**
 * `deno run -A tests/train/fuzz_machines.ts [COUNT]`: malformed openings, frames and messages (100,000 if not told) against
 * the doors of two machines that train. Says how their memory and their steps went; ends with 1 if the losses are not those of an undisturbed run.
 */

import type { TrainEvent } from "../../train/events.ts";
import { pause } from "../../network/deadline.ts";
import { attack } from "../network/fuzz_links.ts";

const secret = "a secret of two machines that train";
const entry = new URL("../../cli.ts", import.meta.url).pathname;
const count = Number(Deno.args[0] ?? 100_000);
const folder = await Deno.makeTempDir();

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

/** A machine of a run, without a process that watches it. */
function start(node: number, rendezvous: string) {
  const flags =
    "--layers 1 --heads 2 --width 32 --sequence-length 16 --batch-size 4 --eval-interval 0 --eval-batches 1 --steps 100000";
  const place = ["--nodes", "2", "--rendezvous", rendezvous, "--node-rank", String(node % 2)];
  const child = new Deno.Command(Deno.execPath(), {
    // V8 lets its heap grow where memory is plenty: what is kept shows in a small one.
    args: [
      "run",
      "-A",
      "--v8-flags=--max-semi-space-size=1,--optimize-for-size",
      entry,
      "train",
      "--json",
      ...flags.split(" "),
      ...place,
      "--out",
      `${folder}/${node}`,
    ],
    env: { MUSTER_SUPERVISED: "1", MUSTER_SECRET: secret, LP_NUM_THREADS: "1" },
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const losses: number[] = [];
  const ended = (async () => {
    let rest = "";
    for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split("\n");
      rest = lines.pop()!;
      for (const line of lines) {
        const event: TrainEvent = JSON.parse(line);
        if (event.event === "step") losses.push(event.loss);
      }
    }
    return (await child.status).code;
  })();
  const residentMiB = () =>
    Number(/VmRSS:\s+(\d+)/.exec(Deno.readTextFileSync(`/proc/${child.pid}/status`))![1]) / 1024;
  return { child, losses, ended, residentMiB };
}

const port = freePort();
const machines = [0, 1].map((node) => start(node, `127.0.0.1:${port}`));
const steps = () => machines[0].losses.length;
while (steps() < 50) await pause(100);
let next = 0;
for (const quarter of [1, 2, 3, 4]) {
  await Promise.all(Array.from({ length: 32 }, async () => {
    while (next < quarter * count / 4) {
      await attack(port, next++, { secret: new TextEncoder().encode(secret), group: "train" });
    }
  }));
  const memory = machines.map(({ residentMiB }) => residentMiB().toFixed(0));
  console.log(`${next} attacks, step ${steps()}, resident ${memory.join(" and ")} MiB`);
}
const attacked = machines[0].losses.slice();
machines[0].child.kill("SIGUSR2");
const codes = await Promise.all(machines.map(({ ended }) => ended));
// Two machines have the same bits in every run, disturbed or not.
const again = freePort();
const undisturbed = [2, 3].map((node) => start(node, `127.0.0.1:${again}`));
while (undisturbed[0].losses.length < Math.min(attacked.length, 1000)) await pause(100);
undisturbed[0].child.kill("SIGUSR2");
await Promise.all(undisturbed.map(({ ended }) => ended));
const both = undisturbed[0].losses.slice(0, attacked.length);
const same = both.every((loss, i) => loss === attacked[i]);
console.log(
  `exit codes ${codes.join(" and ")}; ${both.length} losses ${same ? "are" : "ARE NOT"} those of an undisturbed run`,
);
await Deno.remove(folder, { recursive: true });
Deno.exit(codes.some((code) => code !== 0) || !same ? 1 : 0);
