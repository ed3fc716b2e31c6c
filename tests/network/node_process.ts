/**
 * A node of a run, for tests. It meets the others as told in JSON by its argument, again and again whenever its world
 * ends, and says on standard output, in lines of JSON, what happens. Lines on standard input: `end` has it end the world,
 * `pass` pass a large message round, `close` leave.
 */

import { messageOf } from "../../errors.ts";
import { Node, type NodeOptions, type Offer, type World } from "../../network/node.ts";
import { readSecret } from "../../network/secret.ts";
import { noise } from "./link_pairs.ts";

/** What a process says. */
export type Said =
  | { kind: "opened" }
  | {
    kind: "world";
    number: number;
    rank: number;
    size: number;
    machines: string[];
    names: string[];
    lanes: number[][];
    heard: number[][];
  }
  | { kind: "lost"; why: string }
  | { kind: "waiting"; names: string[] }
  | { kind: "passed"; intact: boolean }
  | { kind: "report"; sentence: string }
  | { kind: "failed"; why: string }
  | { kind: "closed" };

/** What a process is told. */
export type Terms = Omit<NodeOptions, "secret" | "report"> & Offer;

const say = (said: Said) => console.log(JSON.stringify(said));

/** Every two members tell each other their rank over every lane. */
async function greet({ rank, lanes }: World): Promise<number[][]> {
  return await Promise.all(lanes.map((links) =>
    Promise.all([...links.values()].map(async (link) => {
      const answer = new Uint8Array(1);
      await Promise.all([link.write(new Uint8Array([rank])), link.read(answer)]);
      return answer[0];
    }))
  ));
}

async function pass({ rank, size, lanes: [links] }: World): Promise<void> {
  const [message, incoming] = [noise(3_000_001, rank + 1), new Uint8Array(3_000_001)];
  const before = (rank + size - 1) % size;
  await Promise.all([links.get((rank + 1) % size)!.write(message), links.get(before)!.read(incoming)]);
  const expected = noise(3_000_001, before + 1);
  say({ kind: "passed", intact: incoming.every((byte, i) => byte === expected[i]) });
}

async function obey(node: Node, world: () => World | undefined): Promise<void> {
  const lines = Deno.stdin.readable.pipeThrough(new TextDecoderStream());
  for await (const text of lines) {
    for (const line of text.split("\n")) {
      if (line === "end") await world()?.end("a test wants it");
      if (line === "pass") await pass(world()!);
      if (line === "close") {
        await node.close();
        say({ kind: "closed" });
        Deno.exit();
      }
    }
  }
}

if (import.meta.main) {
  const { description, facts, lanes, ...options } = JSON.parse(Deno.args[0]) as Terms;
  const report = (sentence: string) => say({ kind: "report", sentence });
  try {
    const node = await Node.open({ ...options, secret: readSecret(), report });
    say({ kind: "opened" });
    let world: World | undefined;
    obey(node, () => world);
    setInterval(() => {
      const names = [...world?.waiting() ?? []];
      if (names.length > 0) say({ kind: "waiting", names });
    }, 50);
    for (;;) {
      world = await node.meet({ description, facts, lanes });
      const { number, rank, size, machines } = world;
      const heard = await greet(world).catch(() => []);
      const names = world.facts.map(({ name }) => name);
      const peers = world.lanes.map((links) => [...links.keys()]);
      say({ kind: "world", number, rank, size, machines: [...machines], names, lanes: peers, heard });
      say({ kind: "lost", why: messageOf(await world.lost) });
    }
  } catch (error) {
    say({ kind: "failed", why: String(error) });
    Deno.exit();
  }
}
