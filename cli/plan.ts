/** `muster plan`. */

import { UserError } from "../errors.ts";
import { formatBytes, usableMemory } from "../graph/plan.ts";
import { parameterCount } from "../model/configuration.ts";
import { drawSchedule } from "../parallel/draw_schedule.ts";
import { nameMesh } from "../parallel/mesh.ts";
import { makeSchedule, simulate } from "../parallel/schedules.ts";
import { planTraining, type TrainingPlan } from "../train/plan_training.ts";
import { flagsOf, formatSeconds, type PlannedMesh } from "../train/planner.ts";
import { formatCount } from "../train/progress.ts";
import { type CompleteSettings, completeSettings, flagName } from "../train/settings.ts";
import { columns } from "./columns.ts";
import { print, printError, printJson } from "./output.ts";
import { nodesHead, nodesJson, nodesTables, readNodes } from "./plan_nodes.ts";
import { readSettings } from "./train.ts";
import { bytesOption, optionalNumber, type Options } from "./values.ts";

/** Columns where the output is no terminal. */
const usualColumns = 120;

/** Bytes of a mesh under the names of the table. */
function bytesOf({ bytes, totalBytes, communicationBytes }: PlannedMesh) {
  return {
    weights: bytes.parameter,
    gradients: bytes.gradient,
    optimizer: bytes.optimizer,
    activations: bytes.activation,
    other: bytes.input + bytes.constant + bytes.output,
    total: totalBytes,
    communication: communicationBytes,
  };
}

function describeChanges(settings: Partial<CompleteSettings>): string {
  return Object.entries(settings).map(([name, value]) => `${flagName(name)} ${value}`).join(" ");
}

/** `f32 3.1 MiB, bf16 1.6 MiB (0.51)`. */
function describeStored({ stored }: TrainingPlan): string {
  const [whole] = stored;
  return stored.map(({ precision, bytes }, i) =>
    `${precision} ${formatBytes(bytes)}${i > 0 ? ` (${(bytes / whole.bytes).toFixed(2)})` : ""}`
  ).join(", ");
}

const formatRate = (flops: number) =>
  flops >= 1e12 ? `${(flops / 1e12).toPrecision(3)} TFLOP/s` : `${(flops / 1e9).toPrecision(3)} GFLOP/s`;

/** Devices in words, like ones once. */
function describeHardware({ hardware }: TrainingPlan): string[] {
  const kinds = new Map<string, number>();
  for (const { capabilities: { name, memoryBytes }, productFlops, readRate, writeRate } of hardware) {
    const memory = memoryBytes === undefined
      ? "memory unknown"
      : `${formatBytes(usableMemory * memoryBytes)} of ${formatBytes(memoryBytes)} usable`;
    const copies = `copies ${(readRate / 1e9).toFixed(1)} and ${(writeRate / 1e9).toFixed(1)} GB/s`;
    const text = `${name}: products ${formatRate(productFlops)}, ${copies}, ${memory}`;
    kinds.set(text, (kinds.get(text) ?? 0) + 1);
  }
  return [...kinds].map(([text, count], i) => `${i === 0 ? "ranks " : "      "}   ${count} x ${text}`);
}

function table({ survey: { planned }, pick }: TrainingPlan): string[] {
  const changed = planned.some(({ settings }) => Object.keys(settings).length > 0);
  const head = ["", "dp", "pp", "tp", "micro", ...(changed ? ["with"] : [])];
  const bytes = ["weights", "gradients", "optimizer", "activations", "other", "total", "communication"];
  const rows = planned.map((one) => {
    const { mesh, microBatches, microBatchSize, settings, seconds, bubble } = one;
    return [
      one.mesh === pick?.mesh ? "*" : "",
      ...[mesh.data, mesh.pipeline, mesh.tensor].map(String),
      `${microBatches} x ${microBatchSize}`,
      ...(changed ? [describeChanges(settings)] : []),
      ...Object.values(bytesOf(one)).map(formatBytes),
      formatSeconds(seconds),
      mesh.pipeline > 1 ? `${(100 * bubble).toFixed(0)}%` : "-",
    ];
  });
  return columns([[...head, ...bytes, "step", "bubble"], ...rows]);
}

function text(plan: TrainingPlan): string {
  const { settings, configuration, sequenceLength, survey: { planned, refused }, pick, nodes } = plan;
  const lines = [
    `model    ${settings.model ?? configuration.family}, ${formatCount(parameterCount(configuration))} parameters, ` +
    `vocabulary ${formatCount(configuration.vocabularySize)}`,
    `batch    ${settings.batchSize} sequences of ${formatCount(sequenceLength)} tokens a step; ${settings.precision}`,
    ...describeHardware(plan),
    ...(nodes ? nodesHead(nodes) : []),
  ];
  if (nodes) lines.push(...nodesTables(nodes));
  else if (planned.length > 0) {
    lines.push(
      "",
      "Bytes of the largest rank on its device; communication: its share of host memory through which ranks speak.",
      "micro: micro-batches of a step x sequences in each.",
      ...table(plan),
    );
  }
  if (refused.length > 0) {
    const width = Math.max(...refused.map(({ mesh }) => nameMesh(mesh).length));
    lines.push("", "not possible");
    for (const { mesh, reason } of refused) lines.push(`   ${nameMesh(mesh).padEnd(width)}  ${reason}`);
  }
  if (pick) {
    const flags = [...(nodes ? [`--nodes ${nodes.nodes}`] : []), ...flagsOf(pick)];
    lines.push("", `* ${nameMesh(pick.mesh)}: ${pick.why}`, `  train with ${flags.join(" ")}`);
    if (plan.stored.length > 1) lines.push(`  weights and activations by --precision: ${describeStored(plan)}`);
  }
  return `${lines.join("\n")}\n`;
}

function json({ configuration, sequenceLength, settings, hardware, survey, pick, stored, nodes }: TrainingPlan) {
  const extents = ({ data, pipeline, tensor }: PlannedMesh["mesh"]) => ({ dp: data, pp: pipeline, tp: tensor });
  return {
    model: { ...configuration, parameters: parameterCount(configuration), sequenceLength },
    batchSize: settings.batchSize,
    ranks: hardware.map(({ capabilities: { name, memoryBytes, flopsPerSecond }, ...rates }) => ({
      name,
      memoryBytes,
      usableBytes: memoryBytes === undefined ? undefined : Math.floor(usableMemory * memoryBytes),
      flopsPerSecond,
      ...rates,
    })),
    meshes: survey.planned.map((one) => ({
      ...extents(one.mesh),
      microBatchSize: one.microBatchSize,
      microBatches: one.microBatches,
      settings: one.settings,
      bytes: bytesOf(one),
      milliseconds: 1e3 * one.seconds,
      bubble: one.bubble,
    })),
    refused: survey.refused.map(({ mesh, reason }) => ({ ...extents(mesh), reason })),
    precision: settings.precision,
    stored: Object.fromEntries(stored.map(({ precision, bytes }) => [precision, bytes])),
    pick: pick ? { ...extents(pick.mesh), why: pick.why, flags: flagsOf(pick) } : null,
    ...(nodes ? { machines: nodesJson(nodes) } : {}),
  };
}

/** The timeline of a schedule, which needs no model. */
function draw(settings: CompleteSettings): void {
  const { pipelineSchedule: name, pp: stages = 4, microBatches = 2 * stages, pipelineChunks } = settings;
  const shape = { stages, microBatches, chunks: name === "interleaved" ? pipelineChunks : 1 };
  if (settings.json) {
    const costs = { forward: 1, backward: name === "zero-bubble" ? 1 : 2, weights: 1 };
    return printJson({ schedule: name, ...shape, ...simulate(makeSchedule(name, shape), shape, costs) });
  }
  const width = Deno.stdout.isTerminal() ? Deno.consoleSize().columns : usualColumns;
  print(`${drawSchedule(name, shape, width)}\n`);
}

/** The command. */
export async function planCommand(given: Options) {
  const { ranks, memory, tflops, vocabSize, draw: drawn, nodes, link, gradCompression, ...options } = given;
  const asked = await readSettings(options);
  const settings = completeSettings(asked);
  if (drawn === true) {
    draw(settings);
    return 0;
  }
  const described = { ranks, memory, tflops };
  const count = optionalNumber(described, "ranks", { least: 1, most: 1024, whole: true });
  const memoryBytes = bytesOption(described, "memory");
  const rate = optionalNumber(described, "tflops", { least: 1e-3 });
  if (count === undefined && (memoryBytes !== undefined || rate !== undefined)) {
    throw new UserError("--memory and --tflops describe GPUs that are not here: say with --ranks how many");
  }
  const vocabularySize = optionalNumber({ vocabSize }, "vocabSize", { least: 1, whole: true });
  const machines = readNodes({ nodes, link, gradCompression });
  const plan = await planTraining(asked, {
    ...(machines === undefined ? {} : { machines }),
    ...(vocabularySize === undefined ? {} : { vocabularySize }),
    ...(count === undefined ? {} : {
      gpus: {
        ranks: count,
        ...(memoryBytes === undefined ? {} : { memoryBytes }),
        ...(rate === undefined ? {} : { flopsPerSecond: rate * 1e12 }),
      },
    }),
    onProgress: (message) => settings.json || printError(`${message}\n`),
  });
  if (settings.json) printJson(json(plan));
  else print(text(plan));
  if (plan.pick) return 0;
  throw new UserError("None of these layouts can train the model, for the reasons above");
}
