/**
 * `deno task test [path…]`: the checks, then the tests, those that need no device first. The last line is
 * `N passed, N failed` (with `, N skipped` if any were).
 *
 * `deno task test:hosts [path…]`: the suites on separate hosts (`tests/hosts/*_suite.ts`), which need root and take long.
 */

import { check, reportChecks } from "./check.ts";

const top = new URL("..", import.meta.url).pathname.replace(/\/$/, "");

/** Folders whose tests use the GPU: one process per file, so that a driver's crash costs one file. */
const deviceFolders = ["gpu", "graph", "kernels", "train", "oracle", "cli", "model"];
/** Time allowed for one test process, and for a suite, in ms. */
const processMilliseconds = 6 * 60_000;
const suiteMilliseconds = 60 * 60_000;

/** What came of some tests. */
export interface Counts {
  passed: number;
  failed: number;
  skipped: number;
  /** Names, each with what went wrong where that is known. */
  readonly failures: string[];
}

const entities: Readonly<Record<string, string>> = {
  amp: "&",
  lt: "<",
  gt: ">",
  quot: '"',
  apos: "'",
  "#39": "'",
  "#10": "\n",
};
const plain = (text: string) => text.replaceAll(/&(#?\w+);/g, (all, name: string) => entities[name] ?? all);

/** The first lines of what a test failed with: the end of a long output is what is kept of it. */
function reasonOf(body: string): string {
  const text = plain(/<(?:failure|error)\b[^>]*?>([\s\S]*?)<\//.exec(body)?.[1] ?? "");
  const lines = text.trim() === "" ? [] : text.trim().split("\n").slice(0, 12);
  return lines.map((line) => `\n      ${line.slice(0, 600)}`).join("");
}

/** Counts the test cases of a JUnit report; steps count with the test they belong to. */
export function countJUnit(xml: string): Counts {
  const counts: Counts = { passed: 0, failed: 0, skipped: 0, failures: [] };
  for (const [, attributes, body] of xml.matchAll(/<testcase\b([^>]*?)(?:\/>|>([\s\S]*?)<\/testcase>)/g)) {
    const name = /\bname="([^"]*)"/.exec(attributes)?.[1] ?? "unnamed";
    if (body?.includes("<failure") || body?.includes("<error")) {
      counts.failed++;
      counts.failures.push(plain(name) + reasonOf(body));
    } else if (body?.includes("<skipped")) counts.skipped++;
    else counts.passed++;
  }
  return counts;
}

function testFiles(folder: string, ending: string): string[] {
  return [...Deno.readDirSync(`${top}/${folder}`)].flatMap((entry) => {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory) return entry.name === "fixtures" ? [] : testFiles(path, ending);
    return entry.name.endsWith(ending) ? [path] : [];
  }).sort();
}

/** Runs tests in one process; the output of a suite, which says what it has measured, is shown. */
async function runTests(files: readonly string[], isSuite = false): Promise<Counts> {
  const junit = Deno.makeTempFileSync({ suffix: ".xml" });
  try {
    const quiet = isSuite ? [] : ["--quiet"];
    const sanitize = ["--sanitize-ops", "--sanitize-resources"];
    const preload = "--preload=tests/last_workers.ts";
    const args = ["test", "-A", preload, ...quiet, ...sanitize, `--junit-path=${junit}`, ...files];
    // Without tuning, which chooses by time, the same numbers come out each time.
    const env = { MUSTER_TUNE: "off" };
    const child = new Deno.Command(Deno.execPath(), { args, cwd: top, stdin: "null", env }).spawn();
    const timer = setTimeout(() => child.kill("SIGKILL"), isSuite ? suiteMilliseconds : processMilliseconds);
    const { success, signal, code } = await child.status;
    clearTimeout(timer);
    const counts = countJUnit(Deno.readTextFileSync(junit));
    if (!success && counts.failed === 0) {
      counts.failed++;
      counts.failures.push(`${files.join(" ")} ended by ${signal ?? `exit code ${code}`}`);
    }
    return counts;
  } finally {
    Deno.removeSync(junit);
  }
}

if (import.meta.main) {
  const wanted = Deno.args.filter((arg) => !arg.startsWith("-"));
  const suites = Deno.args.includes("--hosts");
  const all = testFiles("tests", suites ? "_suite.ts" : "_test.ts")
    .filter((file) => wanted.length === 0 || wanted.some((part) => file.includes(part)));
  const onDevice = (file: string) => deviceFolders.includes(file.split("/")[1]);
  const total: Counts = { passed: 0, failed: 0, skipped: 0, failures: [] };
  const add = ({ passed, failed, skipped, failures }: Counts) => {
    total.passed += passed;
    total.failed += failed;
    total.skipped += skipped;
    total.failures.push(...failures);
  };
  if (wanted.length === 0 && !suites) {
    const checks = await check();
    reportChecks(checks);
    add({
      passed: checks.filter((result) => result.passed).length,
      failed: checks.filter((result) => !result.passed).length,
      skipped: 0,
      failures: checks.filter((result) => !result.passed).map((result) => result.name),
    });
  }
  if (suites) { for (const file of all) add(await runTests([file], true)); }
  else {
    const hostOnly = all.filter((file) => !onDevice(file));
    if (hostOnly.length > 0) add(await runTests(hostOnly));
    for (const file of all.filter(onDevice)) add(await runTests([file]));
  }
  if (total.failures.length > 0) console.log(`\nfailed:\n${total.failures.map((name) => `  ${name}`).join("\n")}`);
  const skipped = total.skipped > 0 ? `, ${total.skipped} skipped` : "";
  console.log(`\n${total.passed} passed, ${total.failed} failed${skipped}`);
  if (total.failed > 0 || total.passed === 0) Deno.exit(1);
}
