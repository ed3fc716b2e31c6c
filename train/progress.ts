/**
 * A run's events as lines for a person.
 * @module
 */

import { styleText } from "node:util";
import { formatBytes } from "../graph/plan.ts";
import type { TrainEvent } from "./events.ts";
import { type CompleteSettings, flagName, settingNames } from "./settings.ts";
import { traceSteps } from "./trace_file.ts";

/** Where lines go. */
export interface Terminal {
  readonly isTerminal: boolean;
  /** Columns. */
  readonly width: () => number;
  write(text: string): void;
}

/** Compilation that takes no longer than this, in s, is not worth a line. */
const compileSeconds = 2;
/** Plain lines come at most this often when the output is no terminal, in ms. */
const plainMilliseconds = 10_000;

/** `1 h 02 min`, `3 min 20 s`, `12 s`. */
export function formatDuration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const pad = (n: number) => String(n).padStart(2, "0");
  if (whole >= 3600) return `${Math.floor(whole / 3600)} h ${pad(Math.floor(whole / 60) % 60)} min`;
  if (whole >= 60) return `${Math.floor(whole / 60)} min ${pad(whole % 60)} s`;
  return `${whole} s`;
}

/** `1,234,567`. */
export function formatCount(count: number): string {
  return Math.round(count).toLocaleString("en-US");
}

/** `43%`, `1.7%`. */
export function formatShare(share: number): string {
  return `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)}%`;
}

/** What is done, as a bar of at most 20 columns; none where there is room for fewer than 6. */
function progressBar(share: number, room: number): string {
  const columns = Math.min(20, room);
  if (columns < 6) return "";
  const full = Math.round(columns * share);
  return `  ${"█".repeat(full)}${"░".repeat(columns - full)}`;
}

/** All settings as flags, in lines. */
function describeSettings(settings: CompleteSettings): string[] {
  const lines = [""];
  for (const name of settingNames) {
    const value = settings[name];
    if (value === undefined || value === false) continue;
    const shown = typeof value === "number" ? Number(value.toPrecision(12)) : value;
    const flag = `--${flagName(name)}${value === true ? "" : ` ${shown}`}`;
    const last = lines[lines.length - 1];
    if (last.length + flag.length < 100) lines[lines.length - 1] = last ? `${last} ${flag}` : flag;
    else lines.push(flag);
  }
  return lines;
}

function header(event: Extract<TrainEvent, { event: "start" }>): string[] {
  const { config, device, mesh, pick, parameters, vocabularySize, microBatchSize, bytes, memory, run, firstStep } =
    event;
  const c = config;
  const from = firstStep > 0 ? `, resumed at step ${firstStep}` : c.init ? `, from ${c.init}` : "";
  const batch = microBatchSize === c.batchSize ? "" : ` (${microBatchSize} at a time)`;
  return [
    `device   ${device}${mesh ? `; ${mesh}` : ""}`,
    ...(pick ? [`layout   ${pick}`] : []),
    `model    ${c.model ?? c.family}, ${formatCount(parameters)} parameters${from}`,
    `data     ${c.data}, vocabulary ${formatCount(vocabularySize)} (${c.tokenizer})`,
    `batch    ${c.batchSize} sequences${batch}; ${c.steps} steps; ${c.lrSchedule} learning rate ${c.learningRate}; ` +
    c.precision,
    `memory   ${formatBytes(bytes)}: ${memory}`,
    ...describeSettings(c).map((line, i) => `${i === 0 ? "config" : ""}`.padEnd(9) + line),
    `run      ${run}`,
    ...(c.trace ? [`trace    ${c.trace}, of the first ${traceSteps} steps`] : []),
  ];
}

/** What f16 needs to be told of, if it is used: `, loss scale 65,536, 1 step skipped`. */
function describeScaling({ lossScale, skipped = 0 }: Extract<TrainEvent, { event: "step" }>): string {
  if (lossScale === undefined) return "";
  const steps = skipped > 0 ? `, ${skipped} step${skipped === 1 ? "" : "s"} skipped` : "";
  return `  loss scale ${formatCount(lossScale)}${steps}`;
}

/** Makes the function that shows events: a live line on a terminal, plain lines elsewhere. */
export function progressReporter(terminal: Terminal, options: { quiet: boolean }): (event: TrainEvent) => unknown {
  let live = false;
  let steps = 0;
  let firstStep = 0;
  let firstAt = 0;
  let shown = -Infinity;
  // Of several machines the first shows what and how far the run is; logs of all are often put together.
  let leads = true;
  let node = 0;
  let headed = false;
  const recent: number[] = [];
  const clear = () => {
    if (live) terminal.write("\r\x1b[K");
    live = false;
  };
  const line = (text: string) => {
    clear();
    terminal.write(`${text}\n`);
  };
  /** Rewrites the line that a terminal shows last. */
  const relive = (text: string) => {
    terminal.write(`\r\x1b[K${text.slice(0, Math.max(0, terminal.width() - 1))}`);
    live = true;
  };
  const bold = (text: string) => terminal.isTerminal ? styleText("bold", text) : text;

  return (event) => {
    if (options.quiet && event.event !== "done") return;
    switch (event.event) {
      case "message":
      case "stall":
        return line(event.message);
      case "balance": {
        const { step, shares } = event;
        const batch = shares.reduce((a, b) => a + b, 0);
        return line(
          `step ${step}: by their measured speeds the copies of the model take ${shares.join(", ")} of the ${batch} ` +
            `sequences from here on`,
        );
      }
      case "world": {
        const { nodes, machines, step } = event;
        node = event.node;
        leads = node === 0;
        const others = machines.filter((_, i) => i !== node).join(", ");
        const from = headed ? ` from step ${step} on` : "";
        return line(`nodes    this is node ${node} of ${nodes}${from}${others ? `, with ${others}` : ", alone"}`);
      }
      case "lost":
        return line(`${event.message}; going back to step ${event.step} with whoever comes`);
      case "straggler": {
        const { step, machine, slowness } = event;
        return leads && line(`step ${step}: ${machine} takes ${slowness.toFixed(1)} times as long as the others`);
      }
      case "compile": {
        const { done, total, seconds } = event;
        if (terminal.isTerminal && done < total) return relive(`compiling kernels ${done} of ${total}`);
        if (done === total) {
          clear();
          return leads && seconds > compileSeconds && line(`compiled ${total} kernels in ${seconds.toFixed(1)} s`);
        }
        const now = performance.now();
        if (!leads || seconds < compileSeconds || now - shown < plainMilliseconds) return;
        shown = now;
        return line(`compiling kernels ${done} of ${total}`);
      }
      case "start":
        steps = event.config.steps;
        firstStep = event.firstStep;
        if (!headed && leads) header(event).forEach(line);
        else if (!headed) line(`device   node ${node}: ${event.device}, ${formatBytes(event.bytes)}`);
        headed = true;
        return;
      case "step": {
        const now = performance.now();
        // The first two steps touch memory for the first time and are timed: the time left is told from those behind them.
        if (event.step <= firstStep + 2) firstAt = now;
        recent.push(event.milliseconds);
        if (recent.length > 20) recent.shift();
        const mean = recent.reduce((a, b) => a + b, 0) / recent.length;
        const rate = event.tokensPerSecond * event.milliseconds / mean;
        const perStep = event.step > firstStep + 3
          ? (now - firstAt) / (event.step - firstStep - 2)
          : event.milliseconds;
        const left = formatDuration((steps - event.step) * perStep / 1e3);
        const utilization = event.modelFlopsUtilization * event.milliseconds / mean;
        const begin =
          `step ${String(event.step).padStart(String(steps).length)}/${steps}  loss ${event.loss.toFixed(4)}  ` +
          `${formatCount(rate)} tokens/s`;
        const text = `${begin}  MFU ${formatShare(utilization)}${describeScaling(event)}  ${left} left`;
        if (terminal.isTerminal) {
          const room = Math.max(0, terminal.width() - 1);
          const fitting = text.length <= room ? text : `${begin}  ${left} left`.slice(0, room);
          relive(`${fitting}${progressBar(event.step / steps, room - fitting.length - 2)}`);
        } else if (leads && (now - shown > plainMilliseconds || event.step === firstStep + 1)) {
          shown = now;
          line(text);
        }
        return;
      }
      case "evaluation":
        return leads && line(
          `step ${String(event.step).padStart(String(steps).length)}/${steps}  ${
            bold(`validation loss ${event.loss.toFixed(4)}`)
          }`,
        );
      case "checkpoint":
        return line(`saved    ${event.path}`);
      case "error":
        return clear();
      case "done":
        line(
          `${event.stopped ? "stopped" : "done"} at step ${event.step} in ${formatDuration(event.seconds)}: ` +
            `loss ${event.loss.toFixed(4)}, ${bold(`validation loss ${event.validationLoss.toFixed(4)}`)}`,
        );
        return;
    }
  };
}
