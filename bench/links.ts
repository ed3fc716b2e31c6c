/**
 * `deno run -A bench/links.ts [--json]`: GB/s and time for a message there and back of plain and authenticated links
 * between two processes on loopback.
 */

import { randomBytes } from "node:crypto";
import type { Link } from "../network/link.ts";
import { Node } from "../network/node.ts";
import type { TlsIdentity } from "../network/tls_identity.ts";

/** What was measured of one kind of link and size of message. */
interface Row {
  readonly link: "plain" | "authenticated" | "tls";
  readonly messageBytes: number;
  /** Of messages sent one behind the other in one direction; the median of five rounds. */
  readonly gigabytesPerSecond: number;
  /** For a message there and back, in µs; the median. */
  readonly roundTripMicroseconds: number;
}

const sizes = [64, 4096, 1 << 16, 1 << 20, 1 << 24];
const rounds = 5;
const roundBytes = 1 << 28;
const roundTripsOf = (size: number) => Math.max(20, Math.min(1000, Math.floor((1 << 26) / size)));
const messagesOf = (size: number) => Math.min(20_000, Math.max(1, roundBytes / size));

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[values.length >> 1];
}

/** The other process's part: takes what comes, and sends back what `drive` waits for. */
async function follow(link: Link): Promise<void> {
  for (const size of sizes) {
    const message = new Uint8Array(new SharedArrayBuffer(size));
    for (let round = 0; round < rounds; round++) {
      for (let i = 0; i < messagesOf(size); i++) await link.read(message);
      await link.write(message.subarray(0, 1));
    }
    for (let i = 0; i < roundTripsOf(size); i++) {
      await link.read(message);
      await link.write(message);
    }
  }
}

async function drive(link: Link, kind: Row["link"]): Promise<Row[]> {
  const rows: Row[] = [];
  for (const size of sizes) {
    const message = new Uint8Array(new SharedArrayBuffer(size));
    const rates: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const start = performance.now();
      for (let i = 0; i < messagesOf(size); i++) await link.write(message);
      await link.read(message.subarray(0, 1));
      rates.push((messagesOf(size) * size) / (performance.now() - start) / 1e6);
    }
    const times: number[] = [];
    for (let i = 0; i < roundTripsOf(size); i++) {
      const start = performance.now();
      await link.write(message);
      await link.read(message);
      times.push((performance.now() - start) * 1000);
    }
    rows.push({
      link: kind,
      messageBytes: size,
      gigabytesPerSecond: median(rates),
      roundTripMicroseconds: median(times),
    });
  }
  return rows;
}

/** A certificate of the tests, for both ends. */
function identity(): TlsIdentity {
  const text = (name: string) =>
    Deno.readTextFileSync(new URL(`../tests/network/certificates/${name}`, import.meta.url));
  return { certificate: text("alpha.pem"), key: text("alpha.key"), authority: text("authority.pem") };
}

async function pair(rank: number, rendezvous: string, kind: string, secret: Uint8Array | undefined) {
  const waits = { timeoutSeconds: 30, peerTimeoutSeconds: 15 };
  const tls = kind === "tls" ? identity() : undefined;
  const node = await Node.open({ size: 2, rank, rendezvous, secret, tls, group: "bench", ...waits });
  const { lanes: [links] } = await node.meet({ description: {}, facts: {}, lanes: 1 });
  return { node, link: links.get(1 - rank)! };
}

function freePort(): number {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  listener.close();
  return listener.addr.port;
}

/** Measures all kinds. */
export async function benchLinks(): Promise<Row[]> {
  const rows: Row[] = [];
  for (const kind of ["plain", "authenticated", "tls"] as const) {
    const rendezvous = `127.0.0.1:${freePort()}`;
    const secret = kind === "authenticated" ? new Uint8Array(randomBytes(32)) : undefined;
    const other = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", import.meta.filename!, "--follow", rendezvous, kind],
      env: { BENCH_SECRET: secret ? secret.toHex() : "" },
    }).spawn();
    const { node, link } = await pair(0, rendezvous, kind, secret);
    rows.push(...await drive(link, kind));
    await node.close();
    await other.status;
  }
  return rows;
}

if (import.meta.main) {
  if (Deno.args[0] === "--follow") {
    const hex = Deno.env.get("BENCH_SECRET")!;
    const { node, link } = await pair(1, Deno.args[1], Deno.args[2], hex === "" ? undefined : Uint8Array.fromHex(hex));
    await follow(link);
    await node.close();
  } else {
    const rows = await benchLinks();
    if (Deno.args.includes("--json")) console.log(JSON.stringify(rows));
    else {
      console.log("link            message bytes     GB/s   there and back, µs");
      for (const { link, messageBytes, gigabytesPerSecond, roundTripMicroseconds } of rows) {
        console.log(
          link.padEnd(14) + String(messageBytes).padStart(15) + gigabytesPerSecond.toFixed(3).padStart(9) +
            roundTripMicroseconds.toFixed(0).padStart(21),
        );
      }
    }
  }
}
