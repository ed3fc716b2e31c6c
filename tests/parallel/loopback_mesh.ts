/** Links over plain TCP on loopback, for tests and benches of what goes over links. */

import type { Link } from "../../network/link.ts";
import { PlainLink } from "../../network/plain_link.ts";

/** Listens on a free port of loopback. */
export function listen(): Deno.TcpListener {
  return Deno.listen({ hostname: "127.0.0.1", port: 0 });
}

/** The port of a listener. */
export const portOf = (listener: Deno.TcpListener): number => listener.addr.port;

/** Connects member `rank` with all others, who listen on `ports`; the later member calls and says its rank first. */
export async function connectMesh(
  rank: number,
  listener: Deno.TcpListener,
  ports: readonly number[],
): Promise<Map<number, Link>> {
  const links = new Map<number, Link>();
  const link = (other: number, connection: Deno.TcpConn) => {
    const plain = new PlainLink(connection, `node ${other} (127.0.0.1:${ports[other]})`);
    plain.proven();
    links.set(other, plain);
  };
  for (let other = 0; other < rank; other++) {
    const connection = await Deno.connect({ hostname: "127.0.0.1", port: ports[other] });
    await connection.write(new Uint8Array([rank]));
    link(other, connection);
  }
  for (let missing = ports.length - 1 - rank; missing > 0; missing--) {
    const connection = await listener.accept();
    const other = new Uint8Array(1);
    await connection.read(other);
    link(other[0], connection);
  }
  listener.close();
  return links;
}

/** The links of `size` members that all live in this process. */
export function localMesh(size: number): Promise<Map<number, Link>[]> {
  const listeners = Array.from({ length: size }, listen);
  const ports = listeners.map(portOf);
  return Promise.all(listeners.map((listener, rank) => connectMesh(rank, listener, ports)));
}

/** A member in a process of its own. */
export interface MemberProcess {
  readonly child: Deno.ChildProcess;
  /** Resolves when it first writes to standard output, or has ended. */
  readonly begun: Promise<void>;
  /** All that it writes to standard output. */
  readonly output: Promise<string>;
}

/**
 * Starts `module` in `size` processes with `args` and the rank; there, `joinMesh` connects them. `launcher` gives the command
 * under which a rank's process is started, if any.
 */
export async function startMesh(
  size: number,
  module: string,
  args: readonly string[],
  launcher: (rank: number) => readonly string[] = () => [],
): Promise<MemberProcess[]> {
  const children = Array.from({ length: size }, (_, rank) => {
    const run = [Deno.execPath(), "run", "-A", "--no-check", module, ...args, String(rank)];
    const [command, ...rest] = [...launcher(rank), ...run];
    return new Deno.Command(command, { args: rest, stdin: "piped", stdout: "piped" }).spawn();
  });
  // The first line is the port on which the member listens.
  const readers = children.map(({ stdout }) => stdout.pipeThrough(new TextDecoderStream()).getReader());
  const ports = await Promise.all(readers.map(async (reader) => Number((await reader.read()).value)));
  return await Promise.all(children.map(async (child, rank) => {
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(JSON.stringify(ports)));
    await writer.close();
    const begun = Promise.withResolvers<void>();
    const rest = async () => {
      let text = "";
      for (;;) {
        const { value, done } = await readers[rank].read();
        begun.resolve();
        if (done) return text;
        text += value;
      }
    };
    return { child, begun: begun.promise, output: rest() };
  }));
}

/** The links of a member that `startMesh` has started. */
export async function joinMesh(rank: number): Promise<Map<number, Link>> {
  const listener = listen();
  await Deno.stdout.write(new TextEncoder().encode(`${portOf(listener)}\n`));
  const ports: number[] = await new Response(Deno.stdin.readable).json();
  return await connectMesh(rank, listener, ports);
}
