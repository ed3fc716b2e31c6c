/**
 * `deno task bench:comm [--json]`: all-reduce of f32 among processes on loopback from 4 KiB to 256 MiB at 2 and 4 ranks, beside
 * Open MPI over TCP and Gloo where they are installed: time and bus bandwidth. Systems take turns; medians over rounds. Where
 * there are cores for all, Muster's processes are bound to one each (`taskset`), as Open MPI binds its own.
 * `--ranks 2,4`, `--rounds 3`, `--least BYTES`, `--most BYTES`, `--systems Muster,Gloo` and `--algorithm ring` narrow it;
 * `--compression f16,bf16,int8` adds sums whose numbers travel so. Their bandwidth is that of the f32 they stand for.
 *
 * `MPIRUN`, `MPICC` and `TORCH_PYTHON` name other programs than `mpirun`, `mpicc` and `/usr/bin/python3`.
 */

import { parseArgs } from "node:util";
import { messageOf } from "../errors.ts";
import { startMesh } from "../tests/parallel/loopback_mesh.ts";

/** A size of one system. */
interface Row {
  readonly system: string;
  readonly ranks: number;
  readonly bytes: number;
  /** Median over rounds of the median time of the slowest rank, in µs. */
  readonly microseconds: number;
  /** Bus bandwidth, 2 (n - 1) / n · bytes / time, in GB/s. */
  readonly gigabytesPerSecond: number;
}

/** Runs all sizes once and returns the lines that rank 0 printed. */
type System = (ranks: number, plan: string) => Promise<string>;

const { values } = parseArgs({
  options: {
    json: { type: "boolean", default: false },
    ranks: { type: "string", default: "2,4" },
    rounds: { type: "string", default: "3" },
    most: { type: "string", default: String(256 * 2 ** 20) },
    least: { type: "string", default: "4096" },
    systems: { type: "string", default: "Muster,Open MPI,Gloo" },
    algorithm: { type: "string", default: "auto" },
    compression: { type: "string", default: "" },
  },
});
const median = (numbers: number[]) => [...numbers].sort((a, b) => a - b)[numbers.length >> 1];
const here = new URL("./", import.meta.url);
/** For the program that is compiled. */
const folder = await Deno.makeTempDir();

async function run(command: string, args: readonly string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(command, { args: [...args] }).output();
  if (!success) throw new Error(`${command} has failed: ${new TextDecoder().decode(stderr).trim()}`);
  return new TextDecoder().decode(stdout);
}

/**
 * Whether processes can be bound to cores. Two that wait for each other are drawn to one core by Linux, even if another is
 * idle; then an exchange takes three times as long. Members on machines of their own do not have that.
 */
const bindable = await run("taskset", ["-c", "0", "true"]).then(() => true, () => false);

const muster = (way: string): System => async (ranks, plan) => {
  const module = new URL("comm_member.ts", here).href;
  // Open MPI binds two processes, and more if there are cores for all.
  const bound = bindable && ranks <= navigator.hardwareConcurrency;
  const launcher = (rank: number) => bound ? ["taskset", "-c", String(rank)] : [];
  const members = await startMesh(ranks, module, [String(ranks), plan, values.algorithm, way], launcher);
  const outputs = await Promise.all(members.map(({ output }) => output));
  await Promise.all(members.map(({ child }) => child.status));
  return outputs[0];
};

/** Each peer system, or why it is left out. */
async function openMpi(): Promise<System> {
  const mpirun = Deno.env.get("MPIRUN") ?? "mpirun";
  await run(mpirun, ["--version"]);
  const program = `${folder}/comm_mpi`;
  await run(Deno.env.get("MPICC") ?? "mpicc", ["-O2", "-o", program, new URL("peers/comm_mpi.c", here).pathname]);
  const options = [
    "--allow-run-as-root",
    "--oversubscribe",
    "--mca",
    "btl",
    "tcp,self",
    "--mca",
    "btl_tcp_if_include",
    "lo",
  ];
  return (ranks, plan) => run(mpirun, [...options, "-np", String(ranks), program, plan]);
}

async function gloo(): Promise<System> {
  const python = Deno.env.get("TORCH_PYTHON") ?? "/usr/bin/python3";
  await run(python, ["-c", "import torch.distributed as d; assert d.is_gloo_available()"]);
  return (ranks, plan) => run(python, [new URL("peers/comm_gloo.py", here).pathname, String(ranks), plan]);
}

const systems = new Map<string, System>();
const skipped: Record<string, string> = {};
const available: Record<string, () => Promise<System>> = {
  "Muster": () => Promise.resolve(muster("own")),
  "Muster, other memory": () => Promise.resolve(muster("copied")),
  ...Object.fromEntries(
    values.compression.split(",").filter(Boolean)
      .map((format) => [`Muster, ${format}`, () => Promise.resolve(muster(format))]),
  ),
  "Open MPI": openMpi,
  "Gloo": gloo,
};
for (const [name, open] of Object.entries(available)) {
  if (!values.systems.split(",").some((wanted) => name.startsWith(wanted))) continue;
  try {
    systems.set(name, await open());
  } catch (error) {
    skipped[name] = messageOf(error).split("\n")[0];
  }
}

const sizes: number[] = [];
for (let bytes = Number(values.least); bytes <= Number(values.most); bytes *= 4) sizes.push(bytes);
const plan = sizes.map((bytes) => `${bytes}:${Math.max(3, Math.min(200, Math.round(2 ** 26 / bytes)))}`).join(",");

const rows: Row[] = [];
for (const ranks of values.ranks.split(",").map(Number)) {
  const times = new Map([...systems.keys()].map((name) => [name, sizes.map((): number[] => [])]));
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const [name, system] of systems) {
      const lines = (await system(ranks, plan)).split("\n").filter((line) => line.startsWith("{"));
      lines.forEach((line, i) => times.get(name)![i].push(median(JSON.parse(line).times)));
    }
  }
  for (const [system, ofSizes] of times) {
    sizes.forEach((bytes, i) => {
      const seconds = median(ofSizes[i]);
      const gigabytesPerSecond = 2 * (ranks - 1) / ranks * bytes / seconds / 1e9;
      rows.push({ system, ranks, bytes, microseconds: seconds * 1e6, gigabytesPerSecond });
    });
  }
}

await Deno.remove(folder, { recursive: true });

const load = Deno.loadavg();
if (values.json) {
  console.log(
    JSON.stringify({ deno: Deno.version.deno, cores: navigator.hardwareConcurrency, bindable, load, skipped, rows }),
  );
} else {
  console.log(
    `Deno ${Deno.version.deno}, ${navigator.hardwareConcurrency} cores, load ${
      load.map((l) => l.toFixed(1)).join(" ")
    }`,
  );
  for (const [name, reason] of Object.entries(skipped)) console.log(`without ${name}: ${reason}`);
  const names = [...systems.keys()];
  const peers = names.filter((name) => !name.startsWith("Muster"));
  const header = [...names, ...peers.map((name) => `of ${name}`)].map((name) => name.padStart(24)).join("");
  console.log(`time in µs (bus bandwidth in GB/s), and Muster's bandwidth as a share of the peer's`);
  console.log(`${"ranks".padEnd(7)}${"KiB".padStart(8)}${header}`);
  for (const ranks of new Set(rows.map((row) => row.ranks))) {
    for (const bytes of sizes) {
      const of = (name: string) => rows.find((r) => r.system === name && r.ranks === ranks && r.bytes === bytes)!;
      const cells = names.map((name) =>
        `${of(name).microseconds.toFixed(0)} (${of(name).gigabytesPerSecond.toFixed(2)})`
      );
      if (systems.has("Muster")) {
        const share = (name: string) => of(name).microseconds / of("Muster").microseconds;
        cells.push(...peers.map((name) => share(name).toFixed(2)));
      }
      const line = cells.map((cell) => cell.padStart(24)).join("");
      console.log(`${String(ranks).padEnd(7)}${String(bytes / 1024).padStart(8)}${line}`);
    }
  }
}
