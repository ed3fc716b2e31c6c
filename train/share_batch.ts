/**
 * How a step's batch is shared out: sequences of each data-parallel copy of the model, cut into micro-batches.
 * @module
 */

import { UserError } from "../errors.ts";
import type { Selection } from "../gpu/select.ts";
import { splitBatch } from "../parallel/balance.ts";
import { coordinatesOf, type Mesh, worldSize } from "../parallel/mesh.ts";
import type { Copy } from "./rank_layout.ts";
import type { CompleteSettings } from "./settings.ts";

/** Micro-batches of a step of a copy; the last may be smaller. */
export function microBatchCount({ share, microBatchSize = share }: Copy): number {
  return Math.ceil(share / microBatchSize);
}

/**
 * Shares and micro-batches of all copies; where their devices are `unequal`, shares may follow the measured speeds.
 * `UserError` if the batch cannot be shared as the settings say.
 */
export function shareBatch(
  mesh: Mesh,
  settings: CompleteSettings,
  unequal = false,
): { copies: Copy[]; rebalances: boolean } {
  const { balance, batchSize } = settings;
  const zero = mesh.data > 1 ? Number(settings.zero) : 0;
  const rebalances = unequal && balance === "auto" && mesh.pipeline === 1 && zero < 2;
  // A share that is to grow and shrink is made of small pieces.
  const piece = rebalances ? Math.max(1, Math.floor(batchSize / mesh.data / 4)) : undefined;
  const copies = splitBatch(balance, batchSize, mesh.data).map((share): Copy => ({
    share,
    microBatchSize: microBatchOf(share, mesh, settings) ?? piece ?? (worldSize(mesh) > 1 ? share : undefined),
  }));
  const counts = new Set(copies.map(microBatchCount));
  if (zero >= 2 && counts.size > 1) {
    throw new UserError(
      `--zero ${zero} sums gradients in every micro-batch, so all copies need as many, not ` +
        `${
          [...counts].join(" and ")
        }: leave out --micro-batch-size, or use --balance even with a --batch-size that is a ` +
        `multiple of ${mesh.data}`,
    );
  }
  return { copies, rebalances };
}

/** True if copies of the model are on devices of other kinds, or share them with other numbers of ranks. */
export function unequalCopies(mesh: Mesh, devices: readonly number[], selections: readonly Selection[]): boolean {
  const kinds = Array.from({ length: mesh.data }, (_, data) => {
    const own = devices.filter((_, rank) => coordinatesOf(mesh, rank).data === data);
    return own.map((device) => {
      const { name, deviceId } = selections[device].device ?? {};
      return `${name} ${deviceId} ${devices.filter((other) => other === device).length}`;
    }).sort().join();
  });
  return new Set(kinds).size > 1;
}

/** Sequences that a copy computes at a time, where flags or a pipeline decide it. */
function microBatchOf(share: number, mesh: Mesh, settings: CompleteSettings): number | undefined {
  const { batchSize, microBatchSize, microBatches, pipelineSchedule } = settings;
  const of = mesh.data > 1
    ? `the ${share} sequences that ${settings.balance.includes(":") ? "one" : "each"} of ${mesh.data} copies takes`
    : `--batch-size ${batchSize}`;
  if (microBatches !== undefined && share % microBatches !== 0) {
    throw new UserError(`--micro-batches ${microBatches} does not divide ${of}`);
  }
  if (microBatches !== undefined && microBatchSize !== undefined && microBatches * microBatchSize !== share) {
    throw new UserError(`--micro-batches ${microBatches} of --micro-batch-size ${microBatchSize} do not make up ${of}`);
  }
  if (microBatchSize !== undefined) return Math.min(share, microBatchSize);
  if (microBatches !== undefined) return share / microBatches;
  if (mesh.pipeline === 1) return undefined;
  const unit = pipelineSchedule === "interleaved" ? mesh.pipeline : 1;
  let count = Math.min(share, 4 * mesh.pipeline);
  while (count > 1 && (share % count !== 0 || count % unit !== 0)) count--;
  return share / count;
}

/** Rows of a micro-batch of each copy on each rank between the parts of a pipeline. `UserError` if they cannot be shared evenly. */
export function hiddenRows(
  mesh: Mesh,
  { sequenceParallel }: CompleteSettings,
  copies: readonly Copy[],
  sequenceLength: number,
): number[] {
  return copies.map(({ share, microBatchSize = share }) => {
    const rows = microBatchSize * sequenceLength / (sequenceParallel ? mesh.tensor : 1);
    if (Number.isInteger(rows)) return rows;
    throw new UserError(
      `--sequence-parallel needs ${mesh.tensor} ranks to share the rows of a micro-batch evenly: choose another ` +
        `--micro-batch-size or --sequence-length`,
    );
  });
}
