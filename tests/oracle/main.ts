/**
 * `deno task oracle <folder>`: compares ops and models with a folder of reference numbers: one that holds `ops/` and
 * model folders, one model's folder, or one of ops.
 */

import { pathToFileURL } from "node:url";
import { openDevice } from "../../gpu/open.ts";
import { compareModel } from "./models.ts";
import { compareOp, type Comparison, opNames } from "./ops.ts";

function exists(path: URL): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

const given = Deno.args.find((arg) => !arg.startsWith("-"));
if (given === undefined) {
  console.error("muster: name a folder of reference numbers, as in: deno task oracle tests/fixtures");
  Deno.exit(2);
}
const folder = new URL(`${pathToFileURL(given).href.replace(/\/$/, "")}/`);
if (!exists(folder)) {
  console.error(`muster: there is no folder ${given}`);
  Deno.exit(2);
}
const opsFolder = exists(new URL("ops/", folder)) ? new URL("ops/", folder) : folder;
const ops = opNames.filter((op) => exists(new URL(`${op}.json`, opsFolder)));
const models = exists(new URL("manifest.json", folder))
  ? [folder]
  : [...Deno.readDirSync(folder)].filter((entry) => entry.isDirectory)
    .map((entry) => new URL(`${entry.name}/`, folder)).filter((path) => exists(new URL("manifest.json", path)));
if (ops.length + models.length === 0) {
  console.error(`muster: ${given} holds neither ops (matmul.json, …) nor a model (manifest.json)`);
  Deno.exit(2);
}

const device = await openDevice();
console.log(`device ${device.capabilities.name}, subgroups of ${device.capabilities.subgroupSize}`);
let passed = 0;
let failed = 0;
const report = (comparisons: readonly Comparison[]) => {
  for (const { what, error, limit } of comparisons) {
    const good = error <= limit;
    if (good) passed++;
    else failed++;
    console.log(`${good ? "ok    " : "FAILED"} ${error.toExponential(2)} of ${limit.toExponential(2)}  ${what}`);
  }
};
for (const op of ops) report(await compareOp(device, op, opsFolder));
for (const model of models) report(await compareModel(device, model));
await device.destroy();
console.log(`${passed} passed, ${failed} failed`);
if (failed > 0) Deno.exitCode = 1;
