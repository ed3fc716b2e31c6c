/**
 * A schedule as text: a row for each stage, a cell for each forward's time.
 * @module
 */

import { makeSchedule, type ScheduleName, type ScheduleOptions, simulate } from "./schedules.ts";

/** Marks behind a micro-batch's number. */
const marks = { forward: " ", backward: "'", weights: '"' } as const;

/**
 * Draws a schedule with forwards of one unit of time and backwards of two (one each for the gradients of inputs and of
 * weights, where these are apart), in at most `columns` columns; what does not fit is cut, and said.
 */
export function drawSchedule(name: ScheduleName, options: ScheduleOptions, columns = 120): string {
  const costs = { forward: 1, backward: name === "zero-bubble" ? 1 : 2, weights: 1 };
  const { total, bubble, timeline } = simulate(makeSchedule(name, options), options, costs);
  const cell = Math.max(2, String(options.microBatches).length + 1);
  const label = `stage ${options.stages - 1} `.length;
  const fitting = Math.max(1, Math.floor((columns - label) / cell));
  const rows = Array.from({ length: options.stages }, () => new Array<string>(total).fill("·".padEnd(cell)));
  for (const { stage, action: { kind, microBatch, chunk }, start, end } of timeline) {
    // Chunks behind the first are told by letters instead of numbers' marks being doubled.
    const mark = chunk === 0
      ? marks[kind]
      : kind === "forward"
      ? String.fromCharCode(96 + chunk)
      : String.fromCharCode(64 + chunk);
    const text = `${microBatch + 1}${mark}`.trimEnd();
    for (let t = start; t < end; t++) rows[stage][t] = (t === start ? text : "─").padEnd(cell).slice(0, cell + 1);
  }
  const cut = total > fitting ? ` (the first ${fitting} of ${total} units)` : "";
  const legend = name === "zero-bubble" ? `1 forward, 1' backward of inputs, 1" of weights` : "1 forward, 1' backward";
  const chunked = options.chunks > 1 ? ", 1a and 1A the same in a stage's second part, and so on" : "";
  return [
    ...rows.map((row, stage) => `stage ${stage}`.padEnd(label) + row.slice(0, fitting).join("").trimEnd()),
    `${name}, ${options.microBatches} micro-batches: idle ${(100 * bubble).toFixed(1)}%${cut}`,
    `${legend}${chunked}, · idle`,
  ].join("\n");
}
