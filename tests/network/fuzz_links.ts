/**
 * `deno run -A tests/network/fuzz_links.ts [COUNT]`: malformed openings and frames against a process that listens, while
 * that process and this one exchange messages over a good link. Prints what came of it; the test does a few thousand.
 */

import { before, inSeconds, pause } from "../../network/deadline.ts";
import { type Credentials, introduce, protocolVersion } from "../../network/handshake.ts";
import { connect, listen } from "../../network/listener.ts";
import { helloSchema } from "../../network/gathering.ts";
import { receiveMessage } from "../../network/messages.ts";
import { type NamedLink, PlainLink } from "../../network/plain_link.ts";
import { group, noise, secret } from "./link_pairs.ts";

/** What came of it. */
export interface FuzzReport {
  readonly attacks: number;
  /** Connections that the listener refused, and those of members whose frames or messages it did not take. */
  readonly refused: number;
  readonly dropped: number;
  /** Answers over the good link while attacked. */
  readonly answers: number;
  /** Longest wait for one, in ms. */
  readonly slowest: number;
  /** Memory of the process that listens when a quarter was through and at the end, in MiB: what lives, and what it has. */
  readonly liveMiB: readonly [number, number];
  readonly residentMiB: readonly [number, number];
  readonly seconds: number;
}

/** What the process that listens tells over the good link. */
interface State {
  readonly refused: number;
  readonly dropped: number;
  readonly liveMiB: number;
  readonly residentMiB: number;
}

/** The process that listens. The first member is the good one, and gets an answer to each byte; others are to join. */
async function victim(): Promise<void> {
  let [refused, dropped] = [0, 0];
  let good: NamedLink | undefined;
  const serve = async (link: NamedLink) => {
    if (!good) {
      good = link;
      const request = new Uint8Array(1);
      for (;;) {
        await link.read(request);
        for (let i = 0; request[0] === 1 && i < 3; i++) {
          (globalThis as unknown as { gc(): void }).gc();
          await pause(20);
        }
        const { heapUsed, external, rss } = Deno.memoryUsage();
        const state: State = { refused, dropped, liveMiB: (heapUsed + external) / 2 ** 20, residentMiB: rss / 2 ** 20 };
        const text = new TextEncoder().encode(JSON.stringify(state).padEnd(200));
        await link.write(text);
      }
    }
    await before(inSeconds(0.5), receiveMessage(link, helloSchema), () => new Error("too slow"));
  };
  const listener = await listen({
    hostname: "127.0.0.1",
    port: 0,
    secret,
    group,
    openingSeconds: 2,
    refused: () => refused++,
    opened: (link) => {
      serve(link).catch(() => {
        dropped++;
        link.close();
        if (link === good) listener.close();
      });
    },
  });
  console.log(listener.port);
}

function joined(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(parts.flatMap((part) => [...part]));
}

const magic = new TextEncoder().encode("MUSTERLK");
const version = (number: number) => new Uint8Array([0, 0, 0, number]);
/** Kinds of malformed openings, by bytes to send. */
const openings: ((seed: number) => Uint8Array)[] = [
  (seed) => noise(seed % 200, seed),
  (seed) => noise(40_000, seed),
  () => new TextEncoder().encode("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
  (seed) => joined(magic, version(protocolVersion), noise(seed % 32, seed)),
  (seed) => joined(magic, version(protocolVersion), noise(64, seed)),
  (seed) => joined(magic, version(protocolVersion), noise(32, seed), noise(1000, seed + 1)),
  (seed) => joined(magic, version(seed % 256), noise(64, seed)),
  (seed) => joined(magic, noise(40, seed)),
  () => new Uint8Array(4096).fill(255),
  () => new Uint8Array(0),
];

/** Bytes sent in place of frames by one that knows the secret. */
const frames: ((seed: number) => Uint8Array)[] = [
  () => new Uint8Array(24).fill(255),
  (seed) => joined(version(200), noise(216, seed)),
  (seed) => noise(seed % 3000, seed),
];

/** Messages in good frames from one that knows the secret. */
const messages: ((seed: number) => Uint8Array)[] = [
  () => new Uint8Array(4).fill(255),
  (seed) => joined(version(100), noise(100, seed)),
  // An array and a map that announce 2³² - 1 elements, and arrays within each other.
  () => joined(version(5), new Uint8Array([0xdd, 255, 255, 255, 255])),
  () => joined(version(5), new Uint8Array([0xdf, 255, 255, 255, 255])),
  () => joined(version(250), new Uint8Array(250).fill(0x91)),
];

/** One attack on a port behind which `credentials` are asked for; `seed` says which. */
export async function attack(port: number, seed: number, credentials: Credentials = { secret, group }): Promise<void> {
  const connection = await Deno.connect({ hostname: "127.0.0.1", port });
  const link = new PlainLink(connection, "the victim");
  try {
    const choice = seed % 12;
    if (choice < openings.length) await link.write(openings[choice](seed));
    else {
      const proven = await introduce(link, credentials);
      const pick = Math.floor(seed / 12);
      if (choice === 10) await link.write(frames[pick % frames.length](seed));
      else await proven.write(messages[pick % messages.length](seed));
    }
    // Some leave at once, others stay until they are thrown out.
    if (choice !== 0 && choice !== 3 && choice !== 9 && seed % 3 !== 0) {
      const piece = new Uint8Array(4096);
      while (await connection.read(piece) !== null);
    }
  } catch {
    // thrown out
  } finally {
    link.close();
  }
}

/** Makes so many attacks. */
export async function fuzz(attacks: number): Promise<FuzzReport> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", "--v8-flags=--expose-gc", import.meta.filename!, "--victim"],
    stdout: "piped",
  }).spawn();
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const port = Number((await reader.read()).value);
  const terms = { secret, group, deadline: inSeconds(5) };
  const { link } = await connect("the victim", { hostname: "127.0.0.1", port }, terms);
  const ask = async (exact = false) => {
    const answer = new Uint8Array(200);
    await link.write(new Uint8Array([Number(exact)]));
    await link.read(answer);
    return JSON.parse(new TextDecoder().decode(answer)) as State;
  };
  await ask();
  const start = performance.now();
  let [next, answers, slowest] = [0, 0, 0];
  const states: State[] = [];
  for (const until of [Math.ceil(attacks / 4), attacks]) {
    let over = false;
    const asking = (async () => {
      while (!over) {
        const asked = performance.now();
        await ask();
        slowest = Math.max(slowest, performance.now() - asked);
        answers++;
        await pause(2);
      }
    })();
    await Promise.all(Array.from({ length: 32 }, async () => {
      while (next < until) await attack(port, next++);
    }));
    over = true;
    await asking;
    states.push(await ask(true));
  }
  const seconds = (performance.now() - start) / 1000;
  const [early, last] = states;
  link.close();
  await reader.cancel();
  await child.status;
  const { refused, dropped } = last;
  const both = <K extends "liveMiB" | "residentMiB">(name: K) => [early[name], last[name]] as const;
  const memory = { liveMiB: both("liveMiB"), residentMiB: both("residentMiB") };
  return { attacks, refused, dropped, answers, slowest, ...memory, seconds };
}

if (import.meta.main) {
  if (Deno.args[0] === "--victim") await victim();
  else console.log(await fuzz(Number(Deno.args[0] ?? 100_000)));
}
