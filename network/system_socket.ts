/**
 * The system's own `send` and `recv` on a connection of Deno, where it lets programs call the system's libraries (Linux, with
 * permission for FFI): a call that moves what can be moved at once takes 4 µs, one through Deno's event loop 15 to 50.
 * They never wait: for that, and for telling what is wrong with a connection, there is the connection itself.
 * @module
 */

/** Moves bytes without waiting; gives how many, 0 if none can be moved now, the other side has ended, or there is a fault. */
export interface SystemSocket {
  /** Hands bytes to the system. */
  send(source: Uint8Array<ArrayBufferLike>): number;
  /** Takes what has come. */
  receive(target: Uint8Array<ArrayBufferLike>): number;
}

/** `deno` has connections do without: for tests, and in case of trouble. */
const variable = "MUSTER_SOCKETS";

function openLibrary() {
  if (Deno.build.os !== "linux") return undefined;
  if (Deno.permissions.querySync({ name: "ffi" }).state !== "granted") return undefined;
  const allowed = Deno.permissions.querySync({ name: "env", variable }).state === "granted";
  if (allowed && Deno.env.get(variable) === "deno") return undefined;
  try {
    // Lengths are below 2³¹, so that the results fit into an i32.
    return Deno.dlopen("libc.so.6", {
      send: { parameters: ["i32", "buffer", "usize", "i32"], result: "i32" },
      recv: { parameters: ["i32", "buffer", "usize", "i32"], result: "i32" },
      getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
      getpeername: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
      sched_yield: { parameters: [], result: "i32" },
    }).symbols;
  } catch {
    return undefined; // Another C library than glibc.
  }
}

/** Opened with this module and never closed: links come and go. */
const library = openLibrary();

/** Lets other threads have the core that this one is on, if there are any. */
export const yieldCore: () => void = library ? library.sched_yield : () => {};

const [dontWait, noSignal] = [0x40, 0x4000];
const [ipv4, ipv6] = [2, 10];
/** File descriptors that are looked at; a connection with a higher one does without. */
const descriptorsMost = 4096;

const address = new DataView(new ArrayBuffer(128));
const addressLength = new Uint32Array(1);

/** The port in the answer of `getsockname` or `getpeername`; undefined if it is not of an internet socket. */
function portOf(ask: (descriptor: number, address: DataView, length: Uint32Array) => number, descriptor: number) {
  addressLength[0] = address.byteLength;
  if (ask(descriptor, address, addressLength) !== 0) return undefined;
  const family = address.getUint16(0, new Uint8Array(new Uint16Array([1]).buffer)[0] === 1);
  return family === ipv4 || family === ipv6 ? address.getUint16(2) : undefined;
}

/**
 * The socket of a connection; undefined where there is none to be had. It must not be used once the connection is closed:
 * the system may have given its number to something else.
 */
export function systemSocket(connection: Deno.TcpConn): SystemSocket | undefined {
  if (!library) return undefined;
  const { send, recv, getsockname, getpeername } = library;
  const { port: near } = connection.localAddr;
  const { port: far } = connection.remoteAddr;
  const found: number[] = [];
  for (let descriptor = 0; descriptor < descriptorsMost; descriptor++) {
    if (portOf(getpeername, descriptor) === far && portOf(getsockname, descriptor) === near) found.push(descriptor);
  }
  // Deno does not tell a connection's descriptor. Two with these ports, on different addresses, are told apart by nothing.
  if (found.length !== 1) return undefined;
  const [descriptor] = found;
  return {
    send: (source) => Math.max(0, send(descriptor, source, BigInt(source.length), dontWait | noSignal)),
    receive: (target) => Math.max(0, recv(descriptor, target, BigInt(target.length), dontWait)),
  };
}
