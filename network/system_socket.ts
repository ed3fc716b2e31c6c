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
      getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
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
const [socketLevel, protocolOption, tcp] = [1, 38, 6];
/** File descriptors that are looked at; a connection with a higher one does without. */
const descriptorsMost = 1 << 16;

const address = new DataView(new ArrayBuffer(128));
const length = new Uint32Array(1);
const option = new Int32Array(1);
/** Families are in the machine's byte order, ports in the network's. */
const littleEndian = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** An address of IPv6 in its one shortest form. */
function shortest(hostname: string): string {
  const url = `http://[${hostname}]`;
  return hostname.includes(":") && URL.canParse(url) ? new URL(url).hostname : hostname;
}

/** The hostname in `address`. */
function hostnameOf(family: number): string {
  if (family === ipv4) return Array.from({ length: 4 }, (_, i) => address.getUint8(4 + i)).join(".");
  return shortest(Array.from({ length: 8 }, (_, i) => address.getUint16(8 + 2 * i).toString(16)).join(":"));
}

/** Whether `getsockname` or `getpeername` tells this address of a descriptor. */
function hasAddress(
  ask: (descriptor: number, address: DataView, length: Uint32Array) => number,
  descriptor: number,
  { hostname, port }: Deno.NetAddr,
): boolean {
  length[0] = address.byteLength;
  if (ask(descriptor, address, length) !== 0) return false;
  const family = address.getUint16(0, littleEndian);
  if (family !== ipv4 && family !== ipv6 || address.getUint16(2) !== port) return false;
  return hostnameOf(family) === hostname;
}

/**
 * The socket of a connection; undefined where there is none to be had. It must not be used once the connection is closed:
 * the system may have given its number to something else.
 *
 * Deno does not tell a connection's descriptor. It is the one of TCP that has both its addresses; no two have.
 */
export function systemSocket(connection: Deno.TcpConn): SystemSocket | undefined {
  if (!library) return undefined;
  const { send, recv, getsockname, getpeername, getsockopt } = library;
  const { localAddr, remoteAddr } = connection;
  const near = { ...localAddr, hostname: shortest(localAddr.hostname) };
  const far = { ...remoteAddr, hostname: shortest(remoteAddr.hostname) };
  const isTcp = (descriptor: number) => {
    length[0] = option.byteLength;
    return getsockopt(descriptor, socketLevel, protocolOption, option, length) === 0 && option[0] === tcp;
  };
  for (let descriptor = 0; descriptor < descriptorsMost; descriptor++) {
    const found = hasAddress(getpeername, descriptor, far) && hasAddress(getsockname, descriptor, near);
    if (!found || !isTcp(descriptor)) continue;
    return {
      send: (source) => Math.max(0, send(descriptor, source, BigInt(source.length), dontWait | noSignal)),
      receive: (target) => Math.max(0, recv(descriptor, target, BigInt(target.length), dontWait)),
    };
  }
  return undefined;
}
