/** A member in a process of its own: `process_group_member.ts SIZE LENGTH sum|endless TIMEOUT RANK`; prints what has come of it. */

import { MachineError } from "../../errors.ts";
import { ProcessGroup } from "../../parallel/process_group.ts";
import { joinMesh } from "./loopback_mesh.ts";
import { broughtBy, hashOf } from "./process_groups.ts";

if (import.meta.main) {
  const [size, length, mode, timeoutSeconds, rank] = Deno.args.map((arg) => isNaN(Number(arg)) ? arg : Number(arg));
  const links = await joinMesh(Number(rank));
  const group = new ProcessGroup({
    rank: Number(rank),
    size: Number(size),
    links,
    timeoutSeconds: Number(timeoutSeconds),
    algorithm: "ring",
  });
  const data = broughtBy(Number(rank), Number(length));
  try {
    do {
      await group.allReduce(data);
      if (mode === "sum") console.log(hashOf(data));
      else console.log("round");
    } while (mode === "endless");
    await group.barrier();
    group.close();
  } catch (error) {
    if (!(error instanceof MachineError)) throw error;
    console.log(JSON.stringify({ restartable: error.restartable, message: error.message }));
  }
}
