/**
 * `stranger.ts SECONDS ADDRESS:PORT…`: what comes to an open port in a network of strangers, for so long, many at once.
 * Prints how often each kind was tried and how often it was let in (never).
 */

import { introduce } from "../../network/handshake.ts";
import { PlainLink } from "../../network/plain_link.ts";

/** What came of it. */
export interface StrangerReport {
  /** Connections by kind. */
  readonly tried: Readonly<Record<string, number>>;
  /** Kinds that got further than a stranger may: they were sent something that is not an opening or a zero proof. */
  readonly admitted: readonly string[];
  /** Seconds after which those were thrown out that sent a byte now and then, and nothing. */
  readonly lorisSeconds: readonly number[];
}

const magic = new TextEncoder().encode("MUSTERLK");
const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

function joined(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(parts.flatMap((part) => [...part]));
}

function random(length: number): Uint8Array {
  return crypto.getRandomValues(new Uint8Array(length));
}

/** Sends bytes and reads until thrown out. */
function sender(bytes: () => Uint8Array): (connection: Deno.TcpConn) => Promise<void> {
  return async (connection) => {
    await connection.write(bytes());
    const piece = new Uint8Array(4096);
    while (await connection.read(piece) !== null);
  };
}

const kinds: Readonly<Record<string, (connection: Deno.TcpConn) => Promise<void>>> = {
  scan: async () => {},
  random: sender(() => random(1 + Math.floor(Math.random() * 4000))),
  http: sender(() => new TextEncoder().encode("GET / HTTP/1.1\r\nHost: 10.77.0.1\r\n\r\n")),
  "oversized length": sender(() => joined(new Uint8Array(4).fill(255), random(1000))),
  "oversized length in an opening": sender(() =>
    joined(magic, new Uint8Array([0, 0, 0, 1]), random(64), new Uint8Array(24).fill(255))
  ),
  "other version": sender(() => joined(magic, new Uint8Array([0, 0, 9, 9]), random(32))),
};

/** One that knows the protocol, but not the secret. */
async function wrongSecret(connection: Deno.TcpConn, admitted: string[]): Promise<void> {
  try {
    await introduce(new PlainLink(connection, "victim"), {
      secret: new TextEncoder().encode("what somebody else has guessed"),
      group: "comm-bench",
    });
    admitted.push("wrong secret");
  } catch {
    // Refused, as must be.
  }
}

/** Seconds until one is thrown out that sends an opening byte by byte, or nothing. */
async function loris(target: Deno.ConnectOptions, silent: boolean, end: number): Promise<number | undefined> {
  const start = performance.now();
  const connection = await Deno.connect(target);
  const over = connection.read(new Uint8Array(64)).catch(() => null);
  let out = false;
  over.then(() => out = true);
  for (let sent = 0; !out && performance.now() < end; sent++) {
    if (!silent && sent < magic.length) await connection.write(magic.subarray(sent, sent + 1)).catch(() => {});
    await pause(500);
  }
  connection.close();
  await over;
  return out ? (performance.now() - start) / 1000 : undefined;
}

if (import.meta.main) {
  const end = performance.now() + 1000 * Number(Deno.args[0]);
  const targets = Deno.args.slice(1).map((address) => {
    const [hostname, port] = address.split(":");
    return { hostname, port: Number(port) };
  });
  const tried: Record<string, number> = { "wrong secret": 0 };
  const admitted: string[] = [];
  const lorisSeconds: number[] = [];
  const pick = <T>(from: readonly T[]) => from[Math.floor(Math.random() * from.length)];
  const stranger = async () => {
    while (performance.now() < end) {
      const kind = pick([...Object.keys(kinds), "wrong secret"]);
      let connection: Deno.TcpConn | undefined;
      try {
        connection = await Deno.connect(pick(targets));
        tried[kind] = (tried[kind] ?? 0) + 1;
        if (kind === "wrong secret") await wrongSecret(connection, admitted);
        else await kinds[kind](connection);
      } catch {
        if (!connection) await pause(20); // Nobody listens any more.
      }
      try {
        connection?.close();
      } catch {
        // Closed by the link.
      }
    }
  };
  const patient = async (silent: boolean) => {
    for (const target of targets) {
      const seconds = await loris(target, silent, end).catch(() => undefined);
      if (seconds !== undefined) lorisSeconds.push(seconds);
    }
  };
  await Promise.all([...Array.from({ length: 16 }, stranger), patient(false), patient(true)]);
  const report: StrangerReport = { tried, admitted, lorisSeconds };
  console.log(JSON.stringify(report));
  Deno.exit(0);
}
