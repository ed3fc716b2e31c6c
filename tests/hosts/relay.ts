/**
 * `relay.ts COUNT MILLISECONDS`: cables that take time, where the kernel has no netem. In the namespace where it runs it makes
 * for each host i the TAP devices `pi` and `tpi`, and hands what is sent into one to the other after a while. A device
 * may be moved to another namespace afterwards.
 */

const libc = Deno.dlopen("libc.so.6", {
  open: { parameters: ["buffer", "i32"], result: "i32" },
  ioctl: { parameters: ["i32", "u64", "buffer"], result: "i32" },
  read: { parameters: ["i32", "buffer", "usize"], result: "isize", nonblocking: true },
  write: { parameters: ["i32", "buffer", "usize"], result: "isize" },
});

/** From linux/if_tun.h: TUNSETIFF, IFF_TAP | IFF_NO_PI. */
const setInterface = 0x400454can;
const tapWithoutHeader = 0x1002;
const readWrite = 2;
const frameBytes = 65536;

function openTap(name: string): number {
  const file = libc.symbols.open(new TextEncoder().encode("/dev/net/tun\0"), readWrite);
  const request = new Uint8Array(40);
  new TextEncoder().encodeInto(name, request);
  new DataView(request.buffer).setInt16(16, tapWithoutHeader, true);
  if (file < 0 || libc.symbols.ioctl(file, setInterface, request) < 0) throw new Error(`Cannot make ${name}`);
  return file;
}

async function carry(from: number, to: number, milliseconds: number): Promise<never> {
  for (;;) {
    const frame = new Uint8Array(frameBytes);
    const length = Number(await libc.symbols.read(from, frame, BigInt(frameBytes)));
    // A device that is down can be read again later.
    if (length <= 0) await new Promise((resolve) => setTimeout(resolve, 10));
    else setTimeout(() => libc.symbols.write(to, frame, BigInt(length)), milliseconds);
  }
}

const [count, milliseconds] = Deno.args.map(Number);
for (let i = 0; i < count; i++) {
  const [port, cable] = [openTap(`p${i}`), openTap(`tp${i}`)];
  carry(port, cable, milliseconds);
  carry(cable, port, milliseconds);
}
console.log("ready");
