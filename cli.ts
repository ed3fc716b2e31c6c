/**
 * The command line. In the one-file forms this module is also what a rank's Worker starts from, so it does nothing there.
 * @module
 */

import { isRankWorker } from "./train/rank.ts";

if (import.meta.main && !isRankWorker()) {
  const { main } = await import("./cli/main.ts");
  Deno.exitCode = await main(Deno.args);
}
