/**
 * The command line. In the one-file forms this module is also what a rank's Worker starts from, so it does nothing there.
 * @module
 */

import { completeEnvironment } from "./cli/environment.ts";
import { leaveWithoutHandlers } from "./cli/leave.ts";
import { report } from "./cli/output.ts";
import { isRankWorker } from "./train/rank.ts";

/** Time for Workers to end by themselves when the command is over, in ms. */
const leaveMilliseconds = 750;

if (import.meta.main && !isRankWorker()) {
  leaveWithoutHandlers();
  try {
    completeEnvironment();
    const { main } = await import("./cli/main.ts");
    Deno.exitCode = await main(Deno.args);
  } catch (error) {
    // Packages that were never fetched fail here, before there is a command line to speak of.
    Deno.exitCode = report(error, { json: Deno.args.includes("--json"), verbose: Deno.args.includes("--verbose") });
  }
  // One that is stuck in its driver must not keep the process for ever: this timer does not.
  Deno.unrefTimer(setTimeout(() => Deno.exit(), leaveMilliseconds));
}
