/**
 * A process of a group, for tests: meets the others as told in JSON by its argument, says on standard output what came
 * of it, as JSON, and exits. Those that met tell each other their rank over every link, and pass a large message round.
 */

import { messageOf } from "../../errors.ts";
import { meet, type MeetOptions } from "../../network/rendezvous.ts";
import { readSecret } from "../../network/secret.ts";
import { noise } from "./link_pairs.ts";

/** What a process says. */
export type Report =
  | { kind: "met"; rank: number; heard: number[]; peers: string[]; intact: boolean }
  | { kind: "failed"; name: string; message: string; seconds: number };

if (import.meta.main) {
  const options = JSON.parse(Deno.args[0]) as Omit<MeetOptions, "secret">;
  const start = performance.now();
  const say = (report: Report) => console.log(JSON.stringify(report));
  try {
    const { rank, size, links } = await meet({ ...options, secret: readSecret() });
    const heard = await Promise.all([...links.values()].map(async (link) => {
      const answer = new Uint8Array(1);
      await Promise.all([link.write(new Uint8Array([rank])), link.read(answer)]);
      return answer[0];
    }));
    const [message, incoming] = [noise(3_000_001, rank + 1), new Uint8Array(3_000_001)];
    const before = (rank + size - 1) % size;
    await Promise.all([links.get((rank + 1) % size)!.write(message), links.get(before)!.read(incoming)]);
    const expected = noise(3_000_001, before + 1);
    const intact = incoming.every((byte, i) => byte === expected[i]);
    say({ kind: "met", rank, heard, peers: [...links.values()].map(({ peer }) => peer), intact });
    // The others may still be reading.
    await Promise.all([...links.values()].map(async (link) => {
      await link.write(new Uint8Array(1));
      await link.read(new Uint8Array(1));
      link.close();
    }));
  } catch (error) {
    const name = error instanceof Error ? error.name : "";
    say({ kind: "failed", name, message: messageOf(error), seconds: (performance.now() - start) / 1000 });
  }
}
