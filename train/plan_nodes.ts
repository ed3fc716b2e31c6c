/**
 * Planning for many machines alike: for 1, 2, 4, … of them the time of a step, and how much of it the sums of gradients
 * between them take. Everything here is predicted, from the plans of one machine and a model of the links.
 * @module
 */

import { UserError } from "../errors.ts";
import { nameMesh } from "../parallel/mesh.ts";
import {
  algorithmsFor,
  type GradientCompression,
  type LinkModel,
  type PlannedAlgorithm,
} from "../parallel/link_model.ts";
import { exchangeOver } from "./exchange.ts";
import {
  formatSeconds,
  type Pick,
  planMesh,
  type PlannedMesh,
  type PlanRequest,
  type Survey,
  surveyMeshes,
} from "./planner.ts";

/** The machines. */
export interface NodesOptions {
  /** How many. */
  readonly nodes: number;
  /** What joins them. */
  readonly link: LinkModel;
  /** How gradients are written on the way. */
  readonly compression: GradientCompression;
}

/** A step of some machines. */
export interface NodesPrediction {
  /** How many. */
  readonly machines: number;
  /** Sequences of a step, over all machines. */
  readonly batchSize: number;
  /** What is on each machine. */
  readonly planned: PlannedMesh;
  /** How sums between machines are made; `auto`: each bucket by the faster way. */
  readonly algorithm: PlannedAlgorithm | "auto";
  /** Of the step. */
  readonly seconds: number;
  /** While sums between machines are under way. */
  readonly communicationSeconds: number;
  /** Of these, beside other work. */
  readonly hiddenSeconds: number;
  /** Of these, what makes the step longer. */
  readonly exposedSeconds: number;
  /** Payload that goes out on a machine's link, and comes in, in a step. */
  readonly bytesPerLink: number;
  /** Sequences a second, over all machines. */
  readonly sequencesPerSecond: number;
  /** Sequences a second of a machine, as a share of what one alone does: with its share of the batch, or all of it. */
  readonly efficiency: number;
}

/** Predictions for many machines. */
export interface NodesPlan extends NodesOptions {
  /** The batch grows with the machines: each has the share that it has with all of them. */
  readonly weak: readonly NodesPrediction[];
  /** The batch stays, and the meshes are the best of `weak`. Without numbers of machines that cannot take it. */
  readonly strong: readonly NodesPrediction[];
  /** All machines: every mesh with every algorithm, the fastest first. */
  readonly combinations: readonly NodesPrediction[];
  /** The meshes of one of them. */
  readonly survey: Survey;
  /** The best mesh for all machines. */
  readonly pick: Pick | undefined;
}

/** 1, 2, 4, … and `nodes` itself. */
function counts(nodes: number): number[] {
  const powers = Array.from({ length: Math.ceil(Math.log2(nodes)) }, (_, i) => 2 ** i);
  return [...powers, nodes];
}

/** Predicts a step of machines that have `planned` each, and where `alone` is one machine's rate in sequences a second. */
function predict(
  planned: PlannedMesh,
  batchSize: number,
  machines: number,
  { link, compression }: NodesOptions,
  algorithm: NodesPrediction["algorithm"],
  alone: number,
): NodesPrediction {
  const { seconds, exposedSeconds, sentBytes } = exchangeOver(planned.phases, {
    machines,
    link,
    compression,
    algorithm,
  });
  const step = planned.seconds + exposedSeconds;
  return {
    machines,
    batchSize,
    planned,
    algorithm,
    seconds: step,
    communicationSeconds: seconds,
    hiddenSeconds: Math.max(0, seconds - exposedSeconds),
    exposedSeconds,
    bytesPerLink: sentBytes,
    sequencesPerSecond: batchSize / step,
    efficiency: batchSize / step / machines / alone,
  };
}

/** Every way of an all-reduce; `auto` where there is more than one. */
function waysOf({ compression }: NodesOptions): readonly NodesPrediction["algorithm"][] {
  const algorithms = algorithmsFor(compression);
  return algorithms.length > 1 ? ["auto", ...algorithms] : algorithms;
}

/** The fastest of predictions; of equally fast ones the first. */
const fastest = (all: readonly NodesPrediction[]) => all.reduce((a, b) => b.seconds < a.seconds ? b : a);

/**
 * Plans for `nodes` machines like that of the request, whose batch is that of all of them. `UserError` if it cannot be
 * shared by so many.
 */
export function planNodes(request: PlanRequest, options: NodesOptions): NodesPlan {
  const { nodes } = options;
  const { batchSize } = request.settings;
  if (batchSize < nodes) {
    throw new UserError(
      `--batch-size ${batchSize} is less than one sequence for each of --nodes ${nodes} machines: it is the batch of all ` +
        `of them together`,
    );
  }
  /** The request of a machine of several that share `batch`; the one with most sequences decides. */
  const requestOf = (batch: number, machines: number): PlanRequest => ({
    ...request,
    settings: { ...request.settings, batchSize: Math.ceil(batch / machines) },
    machines,
  });
  const survey = surveyMeshes(requestOf(batchSize, nodes));
  const combinations: NodesPrediction[] = [];
  const plan = { ...options, survey, combinations };
  if (survey.planned.length === 0) return { ...plan, weak: [], strong: [], pick: undefined };

  const ways = waysOf(options);
  const own = Math.ceil(batchSize / nodes);
  const single = surveyMeshes(requestOf(own, 1)).planned[0] ?? survey.planned[0];
  const alone = own / single.seconds;
  const meshes = (machines: number) => machines === 1 ? [single] : survey.planned;
  const weak = counts(nodes).map((machines) => {
    const batch = Math.round(batchSize * machines / nodes);
    return fastest(
      meshes(machines).flatMap((mesh) => ways.map((way) => predict(mesh, batch, machines, options, way, alone))),
    );
  });
  for (const planned of meshes(nodes)) {
    for (const way of ways) combinations.push(predict(planned, batchSize, nodes, options, way, alone));
  }
  combinations.sort((a, b) => a.seconds - b.seconds);
  const best = [...new Map(weak.map(({ planned }) => [nameMesh(planned.mesh), planned])).values()];
  return { ...plan, weak, strong: planStrong(best, request, requestOf, options), pick: pickOf(combinations) };
}

/** The same batch on fewer machines, with the meshes that are best for some of these numbers and micro-batches no larger. */
function planStrong(
  best: readonly PlannedMesh[],
  { settings: { batchSize, microBatches } }: PlanRequest,
  requestOf: (batch: number, machines: number) => PlanRequest,
  options: NodesOptions,
): NodesPrediction[] {
  const found: NodesPrediction[] = [];
  for (const machines of counts(options.nodes)) {
    const request = requestOf(batchSize, machines);
    const meshes = best.flatMap(({ mesh, settings: changed, microBatchSize }) => {
      const size = microBatches === undefined ? { microBatchSize } : {};
      const planned = planMesh({ ...request, settings: { ...request.settings, ...changed, ...size } }, mesh);
      return "seconds" in planned ? [planned] : [];
    });
    if (meshes.length === 0) continue;
    // Where one machine cannot hold the batch, the first number that can is what others are compared with.
    const [first] = found;
    const alone = first ? first.sequencesPerSecond / first.machines : undefined;
    const one = fastest(
      meshes.flatMap((mesh) =>
        waysOf(options).map((way) => predict(mesh, batchSize, machines, options, way, alone ?? 1))
      ),
    );
    found.push(alone === undefined ? { ...one, efficiency: 1 } : one);
  }
  return found;
}

/** The first combination, and what comes next to it. */
function pickOf(combinations: readonly NodesPrediction[]): Pick {
  const [{ planned, seconds, machines }] = combinations;
  const next = combinations.find((one) => one.planned.mesh !== planned.mesh);
  const why = `predicted ${formatSeconds(seconds)} a step on ${machines} machine${machines === 1 ? "" : "s"}` +
    (next ? `, the next best, ${nameMesh(next.planned.mesh)}, ${formatSeconds(next.seconds)}` : "");
  return { ...planned, why };
}
