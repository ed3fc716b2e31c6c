/** `muster doctor`. */

import { cacheFolder } from "../data/catalogue.ts";
import { parseAddress } from "../network/rendezvous.ts";
import { checkDevices, checkDrivers } from "../train/check_graphics.ts";
import {
  checkClock,
  checkEnvironment,
  checkFolder,
  checkHandles,
  checkMemory,
  checkPermissions,
} from "../train/check_machine.ts";
import { checkListening, checkPlace, checkRendezvous } from "../train/check_network.ts";
import type { NodeFlags } from "../train/node_place.ts";
import { checkTraining } from "../train/check_training.ts";
import { type Finding, fine } from "../train/finding.ts";
import { nodeFlags } from "./nodes.ts";
import { print, printJson, terminalColumns } from "./output.ts";
import type { Options } from "./values.ts";
import { versionFacts } from "./version.ts";

/** Folder of runs whose place is not told. */
const runs = "runs";

/** Everything that is looked at, in order. */
async function* examine(flags: NodeFlags): AsyncGenerator<Finding> {
  const { nodes, rendezvous } = flags;
  const { muster, commit, deno, os, arch } = versionFacts();
  yield fine("muster", `${muster}${commit ? `, commit ${commit.slice(0, 12)}` : ""}; deno ${deno}, ${os} ${arch}`);
  yield checkPermissions();
  yield checkEnvironment(Deno.env.toObject());
  yield checkClock();
  yield checkMemory();
  yield checkFolder("cache", cacheFolder(), "name another folder by MUSTER_CACHE");
  yield checkFolder("runs", runs, "name another folder by --out");
  const handles = checkHandles(nodes);
  if (handles) yield handles;
  yield* await checkListening();
  // Either may be asked for alone.
  const place = await checkPlace(nodes === undefined || rendezvous === undefined ? {} : flags, Deno.env);
  yield place.finding;
  const meeting = rendezvous ?? place.rendezvous;
  if (meeting !== undefined) yield await checkRendezvous(meeting);
  yield* checkDrivers();
  const { findings, usable } = await checkDevices();
  yield* findings;
  for (const { index } of usable) yield await checkTraining(index);
}

const nameColumns = 18;
const stateColumns = 9;

/** Text cut into lines between words. */
function wrap(text: string, columns: number): string[] {
  const lines = [""];
  for (const word of text.split(" ")) {
    const last = lines[lines.length - 1];
    if (last !== "" && last.length + 1 + word.length > columns) lines.push(word);
    else lines[lines.length - 1] = last === "" ? word : `${last} ${word}`;
  }
  return lines;
}

function show({ name, state, found, remedy }: Finding): void {
  const head = `${(state === "failed" ? "FAILED" : state).padEnd(stateColumns)}${name.padEnd(nameColumns)}`;
  const margin = " ".repeat(head.length);
  const columns = Math.max(40, (Deno.stdout.isTerminal() ? terminalColumns() : 120) - head.length);
  const lines = [...wrap(found, columns), ...(remedy === undefined ? [] : wrap(`→ ${remedy}`, columns))];
  print(`${head}${lines.join(`\n${margin}`)}\n`);
}

/** The command. */
export async function doctorCommand(options: Options): Promise<number> {
  const flags = nodeFlags(options);
  // A mistake in it ends the command; nothing has been looked at yet.
  if (flags.rendezvous !== undefined) parseAddress(flags.rendezvous);
  const checks: Finding[] = [];
  for await (const finding of examine(flags)) {
    checks.push(finding);
    if (options.json !== true) show(finding);
  }
  const count = (wanted: Finding["state"]) => checks.filter(({ state }) => state === wanted).length;
  const [ok, warnings, failed] = [count("ok"), count("warning"), count("failed")];
  if (options.json === true) printJson({ checks, ok, warnings, failed });
  else print(`\n${ok} ok, ${warnings} warning${warnings === 1 ? "" : "s"}, ${failed} failed\n`);
  return failed > 0 ? 1 : 0;
}
