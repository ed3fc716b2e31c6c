/** Carries bytes over a link and says whether the system's own calls are there for it: run with other permissions. */

import { PlainLink } from "../../network/plain_link.ts";
import { systemSocket } from "../../network/system_socket.ts";
import { carry, connectionPair, noise } from "./link_pairs.ts";

if (import.meta.main) {
  const connections = await connectionPair();
  const found = connections.every((connection) => systemSocket(connection) !== undefined);
  const [a, b] = connections.map((connection) => new PlainLink(connection, "peer"));
  for (const link of [a, b]) link.proven();
  const bytes = noise(3_000_000);
  const carried = await carry(a, b, bytes, [1, 700_000], [65_537]);
  if (!bytes.every((byte, i) => carried[i] === byte)) throw new Error("Other bytes came");
  console.log(`${found ? "found" : "none"}, ${carried.length} bytes carried`);
  a.close();
  b.close();
}
