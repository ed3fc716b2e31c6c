/** What `muster plan` says of several machines. */

import { UserError } from "../errors.ts";
import { formatBytes } from "../graph/plan.ts";
import { type GradientCompression, type LinkModel, parseLink, wireShare } from "../parallel/link_model.ts";
import { nameMesh } from "../parallel/mesh.ts";
import type { NodesOptions, NodesPlan, NodesPrediction } from "../train/plan_nodes.ts";
import { formatSeconds } from "../train/planner.ts";
import { formatCount } from "../train/progress.ts";
import { columns } from "./columns.ts";
import { optionalNumber, type Options } from "./values.ts";

/** Where nothing is said of the link. */
const usualLink = "10Gbit,50us";

/** What the options say of machines; undefined if it is one. */
export function readNodes(options: Options): NodesOptions | undefined {
  const nodes = optionalNumber(options, "nodes", { least: 1, most: 100_000, whole: true });
  const { link, gradCompression = "none" } = options;
  if (nodes === undefined) {
    const given = link !== undefined ? "--link" : gradCompression !== "none" ? "--grad-compression" : undefined;
    if (given === undefined) return undefined;
    throw new UserError(`${given} is of what goes between machines: say with --nodes how many there are`);
  }
  const compressions = Object.keys(wireShare) as GradientCompression[];
  const compression = compressions.find((name) => name === gradCompression);
  if (compression === undefined) {
    throw new UserError(`--grad-compression is ${gradCompression}, but must be one of ${compressions.join(", ")}`);
  }
  return { nodes, link: parseLink(link === undefined ? usualLink : String(link)), compression };
}

const formatRate = (bytesPerSecond: number) => {
  const bits = 8 * bytesPerSecond;
  return bits >= 1e9
    ? `${Number((bits / 1e9).toPrecision(3))} Gbit/s`
    : `${Number((bits / 1e6).toPrecision(3))} Mbit/s`;
};

function describeLink({ bytesPerSecond, latencySeconds, threadBytesPerSecond }: LinkModel): string {
  const latency = `${Number((1e6 * latencySeconds).toPrecision(3))} µs`;
  return `${formatRate(bytesPerSecond)}, ${latency}; a machine's network thread moves ${
    formatRate(threadBytesPerSecond)
  }`;
}

const head = ["step", "sums", "hidden", "exposed", "sent per link"];
const times = (one: NodesPrediction) => [
  formatSeconds(one.seconds),
  ...[one.communicationSeconds, one.hiddenSeconds, one.exposedSeconds].map((s) => s === 0 ? "-" : formatSeconds(s)),
  one.bytesPerLink === 0 ? "-" : formatBytes(one.bytesPerLink),
];

function scaling(predictions: readonly NodesPrediction[]): string[] {
  const rows = predictions.map((one) => [
    formatCount(one.machines),
    formatCount(one.batchSize),
    nameMesh(one.planned.mesh),
    `${one.planned.microBatches} x ${one.planned.microBatchSize}`,
    one.machines === 1 ? "-" : one.algorithm,
    ...times(one),
    one.sequencesPerSecond >= 100 ? formatCount(Math.round(one.sequencesPerSecond)) : one.sequencesPerSecond.toFixed(2),
    `${(100 * one.efficiency).toFixed(0)}%`,
  ]);
  return columns([
    ["machines", "batch", "layout", "micro", "algorithm", ...head, "sequences/s", "efficiency"],
    ...rows,
  ]);
}

/** Lines on the machines, for the head of the text. */
export function nodesHead({ nodes, link, compression }: NodesPlan): string[] {
  return [
    `machines ${formatCount(nodes)}, each with these ranks; gradients between them ` +
    `${compression === "none" ? "as f32" : `as ${compression}`}`,
    `link     ${describeLink(link)}`,
  ];
}

/** Tables of predictions. */
export function nodesTables(plan: NodesPlan): string[] {
  const { nodes, weak, strong, combinations } = plan;
  if (combinations.length === 0) return [];
  const rows = combinations.map((one, i) => [
    i === 0 ? "*" : "",
    nameMesh(one.planned.mesh),
    one.algorithm,
    formatBytes(one.planned.totalBytes),
    ...times(one),
  ]);
  return [
    "",
    "Predicted, by a model of the links: nothing here was measured on so many machines. sums: while gradients are summed",
    "between machines; hidden: of that, beside other work; exposed: what makes the step longer. auto: the faster way for each",
    "bucket. sent per link: payload that a machine sends in a step; as much comes in.",
    "",
    "The batch grows with the machines (weak scaling):",
    ...scaling(weak),
    "",
    "The same batch on fewer machines (strong scaling):",
    ...scaling(strong),
    "",
    `${formatCount(nodes)} machine${
      nodes === 1 ? "" : "s"
    }, by layout of each and algorithm; memory: of the largest rank`,
    ...columns([["", "layout", "algorithm", "memory", ...head], ...rows]),
  ];
}

const milliseconds = (seconds: number) => 1e3 * seconds;

function predictionJson(one: NodesPrediction) {
  const { mesh, microBatches, microBatchSize } = one.planned;
  return {
    machines: one.machines,
    batchSize: one.batchSize,
    dp: mesh.data,
    pp: mesh.pipeline,
    tp: mesh.tensor,
    microBatches,
    microBatchSize,
    algorithm: one.algorithm,
    milliseconds: milliseconds(one.seconds),
    communicationMilliseconds: milliseconds(one.communicationSeconds),
    hiddenMilliseconds: milliseconds(one.hiddenSeconds),
    exposedMilliseconds: milliseconds(one.exposedSeconds),
    bytesPerLink: one.bytesPerLink,
    sequencesPerSecond: one.sequencesPerSecond,
    efficiency: one.efficiency,
  };
}

/** The same as JSON. */
export function nodesJson({ nodes, link, compression, weak, strong, combinations }: NodesPlan) {
  return {
    predicted: true,
    nodes,
    link: {
      bytesPerSecond: link.bytesPerSecond,
      latencyMicroseconds: 1e6 * link.latencySeconds,
      stepMicroseconds: 1e6 * link.stepSeconds,
      threadBytesPerSecond: link.threadBytesPerSecond,
    },
    gradCompression: compression,
    weak: weak.map(predictionJson),
    strong: strong.map(predictionJson),
    combinations: combinations.map(predictionJson),
  };
}
